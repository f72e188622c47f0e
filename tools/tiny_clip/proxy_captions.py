"""What is said about pictures of the second world, see ``datasets.shapes.proxy``."""

from collections.abc import Sequence

from datasets.shapes.proxy.pictures import ATTRIBUTES
from datasets.shapes.world import with_article
from modules.classes.templates import TEMPLATES
from tools.shapes_captions import CaptionKind

OBJECT, COLOUR, TEXTURE, SCENE, STYLE, MOTION, PLACE, SIZE, TILT = range(len(ATTRIBUTES))
# How each attribute is said alone.
ALONE = (
    "{}",
    "something {}",
    "something {}",
    "something {}",
    "{}",
    "something {}",
    "something in the {}",
    "a {} thing",
    "something {}",
)


def _alone(column: int, name: str) -> str:
    return ALONE[column].format(with_article(name) if column in (OBJECT, STYLE) else name)


# One text for each value of each attribute. Places, sizes and tilts are what a head tells motions from.
SHORT_TEXTS = tuple(tuple(_alone(column, name) for name in names) for column, names in enumerate(ATTRIBUTES))


def _kind(rate: float, said: tuple[int, ...], *forms: str) -> CaptionKind:
    return CaptionKind(rate, said, forms)


def _videos_of(text: str) -> tuple[str, ...]:
    return tuple(template.replace("{}", text) for template in TEMPLATES["mote28"])


# Where a style hides what a kind would say, the first is said.
CAPTION_KINDS = (
    _kind(0.25, (OBJECT, MOTION), *_videos_of("{object} {motion}"), "{object} {motion}"),
    _kind(0.15, (OBJECT, SCENE), *_videos_of("{object} {scene}"), "{object} {scene}"),
    _kind(0.15, (OBJECT, COLOUR), *_videos_of("{coloured}"), "{coloured}"),
    _kind(0.10, (OBJECT, STYLE), "{style} of {object}", "{object} as {style}"),
    _kind(0.10, (OBJECT,), *_videos_of("{object}"), "{object}", "a picture of {object}."),
    _kind(0.05, (OBJECT, COLOUR, TEXTURE), "{coloured} that is {texture}"),
    _kind(0.10, (MOTION,), "something {motion}", "a thing {motion}", "{motion}", "an object that is {motion}"),
    _kind(0.05, (PLACE,), "something in the {place} of the picture", "a thing in the {place}"),
    _kind(0.02, (SIZE,), "something {size}", "a {size} thing"),
    _kind(0.03, (TILT,), "something {tilt}", "a thing that is {tilt}"),
)


def words_of(shown: Sequence[int]) -> dict[str, str]:
    """The words for the attributes [9] of a picture; those that are hidden are never asked for."""
    noun, colour, texture, scene, style, motion, place, size, tilt = (
        names[i] for names, i in zip(ATTRIBUTES, shown, strict=True)
    )
    return {
        "object": with_article(noun), "coloured": with_article(f"{colour} {noun}"), "texture": texture, "scene": scene,
        "style": with_article(style), "motion": motion, "place": place, "size": size, "tilt": tilt,
    }  # fmt: skip
