"""The second built-in world: what can be shown, and what the classes of each part fix of it.

A model is tuned on 8 seen objects in photos of four scenes (`train`, close-set on `val`), and tested on objects that
it was never tuned on: as such (objects), in named scenes, in named colours, in other styles, and in named motions.
Each of these is asked twice, of other objects: in a development half, on which settings are chosen, and in a final
half, whose figures are reported.
"""

from typing import NamedTuple

from datasets.shapes.world import MOTION_PAIRS, MOTIONS, SEEN_OBJECTS, SEEN_PAIRS, with_article

OBJECTS_OF = {
    "dev": ("drop", "lightning bolt", "arrow", "leaf", "cup", "fish", "key", "mushroom", "hammer", "boat", "rocket",
            "clover"),
    "final": ("ring", "hourglass", "diamond", "gear", "tree", "crown", "bottle", "spoon", "comb", "chair", "window",
              "fork"),
}  # fmt: skip
OBJECTS = (*SEEN_OBJECTS, *OBJECTS_OF["dev"], *OBJECTS_OF["final"])
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
TEXTURES = ("plain", "striped", "dotted", "checked")
SCENES = (
    "on grass", "on sand", "in front of bricks", "at sea", "at night", "in the snow", "on a chessboard", "on a carpet",
)  # fmt: skip
STYLES = ("photo", "sketch", "neon sign", "negative", "mosaic")
PHOTO = STYLES.index("photo")
OTHER_STYLES = tuple(style for style in range(len(STYLES)) if style != PHOTO)
SEEN_SCENES = (0, 1, 2, 3)
USUAL_RATE = 0.8  # of an object's usual colour, and of its usual texture

ANY = -1  # not fixed by a class
HALVES = tuple(OBJECTS_OF)
KINDS = ("objects", "scenes", "colours", "styles", "motions")
LABEL_SETS = ("seen", *(f"{half}_{kind}" for half in HALVES for kind in KINDS))
PARTS = ("train", "val", *LABEL_SETS[1:])
VIDEOS_PER_CLASS = {"train": 20, "val": 10, "objects": 24, "scenes": 8, "colours": 12, "styles": 24, "motions": 12}


class ProxyClass(NamedTuple):
    """What a class fixes, as indices; the rest of a video is drawn."""

    object_id: int
    motion_id: int = ANY
    colour_id: int = ANY
    scene_id: int = ANY

    @property
    def name(self) -> str:
        colour = "" if self.colour_id == ANY else f"{COLOURS[self.colour_id]} "
        motion = "" if self.motion_id == ANY else f" {MOTIONS[self.motion_id].name}"
        scene = "" if self.scene_id == ANY else f" {SCENES[self.scene_id]}"
        return f"{with_article(colour + OBJECTS[self.object_id])}{motion}{scene}"


def usual_colour(object_id: int) -> int:
    """No two objects have the same usual colour and the same usual texture."""
    return object_id % len(COLOURS)


def usual_texture(object_id: int) -> int:
    return (object_id // len(COLOURS) + object_id) % len(TEXTURES)


def home_scene(object_id: int) -> int:
    """Where a seen object mostly is in the videos of training."""
    return SEEN_SCENES[object_id % len(SEEN_SCENES)]


def label_set_of(part: str) -> str:
    """The label set (one label CSV) that a part's labels index."""
    return "seen" if part in ("train", "val") else part


def videos_per_class(part: str) -> int:
    return VIDEOS_PER_CLASS[part if label_set_of(part) == "seen" else part.partition("_")[2]]


def classes_of(label_set: str) -> list[ProxyClass]:
    """The classes of a label set, in label order."""
    if label_set == "seen":
        objects = range(len(SEEN_OBJECTS))
        return [ProxyClass(i, motion) for i in objects for motion in _motions_of(i, SEEN_PAIRS)]
    half, _, kind = label_set.partition("_")
    first = OBJECTS.index(OBJECTS_OF[half][0])
    return [each._replace(object_id=first + each.object_id) for each in _UNSEEN[kind]]


def _motions_of(number: int, pairs: tuple[str, ...]) -> list[int]:
    """Both motions of one time-reversed pair, and one each of the next two, as indices into MOTIONS."""
    both, single, other = (MOTION_PAIRS[pairs[(number + step) % len(pairs)]] for step in range(3))
    turn = number // len(pairs) % 2
    return [MOTIONS.index(motion) for motion in (*both, single[turn], other[1 - turn])]


_NUM = len(OBJECTS_OF["dev"])
_SEEN_MOTIONS = [MOTIONS.index(motion) for pair in SEEN_PAIRS for motion in MOTION_PAIRS[pair]]
# Of the objects of a half, counted from its first.
_UNSEEN = {
    "objects": [ProxyClass(i, _SEEN_MOTIONS[3 * i % 8]) for i in range(_NUM)],
    "scenes": [ProxyClass((5 * i + scene) % _NUM, scene_id=scene) for scene in range(len(SCENES)) for i in range(4)],
    # Two colours that the object does not usually have.
    "colours": [ProxyClass(i, colour_id=(i + 2 + 3 * turn) % len(COLOURS)) for i in range(_NUM) for turn in range(2)],
    "styles": [ProxyClass(i, _SEEN_MOTIONS[(3 * i + 4) % 8]) for i in range(_NUM)],
    "motions": [ProxyClass(2 * i, m) for i in range(6) for m in _motions_of(i, tuple(MOTION_PAIRS))],
}
