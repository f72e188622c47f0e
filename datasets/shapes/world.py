"""The classes of the built-in shapes set: which objects, motions and pairs of them each part holds.

The parts follow the zero-shot protocol of CLIP-based video recognition: a model is trained on the seen classes
(`train`, tested close-set on `val`) and tested on three parts of classes that it was not trained on.
Motions come in time-reversed pairs, so that no average over frames can tell the two of a pair apart.
"""

from typing import NamedTuple

import numpy as np

SEEN_OBJECTS = ("star", "square", "triangle", "heart", "cross", "moon", "flower", "house")
UNSEEN_OBJECTS = ("drop", "ring", "lightning bolt", "hourglass", "arrow")
STYLE_OBJECTS = ("diamond", "leaf", "gear")
OBJECTS = SEEN_OBJECTS + UNSEEN_OBJECTS + STYLE_OBJECTS

POSTER_PART = "zs_style"  # its videos have the shifted style: dark outlines on pale stripes
PARTS = ("train", "val", "zs_combinations", "zs_objects", "zs_style")
VIDEOS_PER_CLASS = {"train": 32, "val": 8, "zs_combinations": 10, "zs_objects": 10, "zs_style": 10}


class Motion(NamedTuple):
    """What an object does over a clip, in signs; negating them all plays it backwards.

    The picture's y axis points down, so a positive angle is clockwise.
    """

    name: str
    drift_x: int = 0
    drift_y: int = 0
    spin: int = 0
    growth: int = 0
    orbit: int = 0


MOTION_PAIRS = {
    "horizontal": (Motion("moving left", drift_x=-1), Motion("moving right", drift_x=1)),
    "vertical": (Motion("moving up", drift_y=-1), Motion("moving down", drift_y=1)),
    "spin": (Motion("spinning clockwise", spin=1), Motion("spinning counterclockwise", spin=-1)),
    "growth": (Motion("growing", growth=1), Motion("shrinking", growth=-1)),
    "roll": (Motion("rolling left", drift_x=-1, spin=-1), Motion("rolling right", drift_x=1, spin=1)),
    "orbit": (Motion("circling clockwise", orbit=1), Motion("circling counterclockwise", orbit=-1)),
}
SEEN_PAIRS = ("horizontal", "vertical", "spin", "growth")
MOTIONS = tuple(motion for pair in MOTION_PAIRS.values() for motion in pair)
MOTION_SIGNS = np.array([motion[1:] for motion in MOTIONS], dtype=np.float32)  # [M, 5]


class ShapeClass(NamedTuple):
    """A class: an object (index into OBJECTS) and what it does (index into MOTIONS)."""

    object_id: int
    motion_id: int

    @property
    def name(self) -> str:
        return f"{with_article(OBJECTS[self.object_id])} {MOTIONS[self.motion_id].name}"


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' or noun == 'hourglass' else 'a'} {noun}"


def label_set_of(part: str) -> str:
    """The label set (one label CSV) that a part's labels index."""
    return "seen" if part in ("train", "val") else part


def classes_of(label_set: str) -> list[ShapeClass]:
    """The classes of a label set, in label order."""
    return [
        ShapeClass(OBJECTS.index(name), MOTIONS.index(motion))
        for name, pair in _OBJECT_PAIRS[label_set]
        for motion in MOTION_PAIRS[pair]
    ]


def _seen_pairs_of(index: int) -> tuple[str, str]:
    """Two of the four seen motion pairs for each object; every pair is seen with four objects."""
    step = 1 if index < len(SEEN_PAIRS) else 2
    return SEEN_PAIRS[index % 4], SEEN_PAIRS[(index + step) % 4]


_SEEN = [(name, pair) for i, name in enumerate(SEEN_OBJECTS) for pair in _seen_pairs_of(i)]
_OBJECT_PAIRS = {
    "seen": _SEEN,
    # For half of the seen objects, the motion pairs that they were not seen with.
    "zs_combinations": [(o, pair) for o in SEEN_OBJECTS[1::2] for pair in SEEN_PAIRS if (o, pair) not in _SEEN],
    "zs_objects": [(name, pair) for i, name in enumerate(UNSEEN_OBJECTS[:4]) for pair in _seen_pairs_of(i)],
    # Other objects and two unseen pairs of motions, whose names share words with the seen ones.
    "zs_style": [
        ("diamond", "horizontal"), ("diamond", "spin"), ("leaf", "vertical"), ("leaf", "growth"),
        ("gear", "roll"), ("gear", "growth"), ("arrow", "spin"), ("star", "orbit"),
    ],
}  # fmt: skip
LABEL_SETS = tuple(_OBJECT_PAIRS)
