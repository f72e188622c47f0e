"""Captions for pictures of the shapes world, and which captions are true of which pictures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from datasets.shapes.pictures import ATTRIBUTES
from datasets.shapes.world import with_article
from modules.classes.templates import TEMPLATES

NOT_SAID = -1


class CaptionKind(NamedTuple):
    """How often captions say something (`rate`), what (columns of the attributes), and in which words."""

    rate: float
    said: tuple[int, ...]
    forms: tuple[str, ...]


# The web has few full sentences. Captions that say one thing only teach the most: a batch has many pictures that
# they must be told apart from, whereas few pictures of a batch share an object and differ in the motion.
CAPTION_KINDS = (
    CaptionKind(0.35, (0, 1), tuple(t.replace("{}", "{object} {motion}") for t in TEMPLATES["mote28"])),
    CaptionKind(0.15, (0, 1), ("{object} {motion}", "{object} that is {motion}", "look, {object} {motion}!")),
    CaptionKind(0.25, (1,), ("something {motion}", "a thing {motion}", "{motion}", "an object that is {motion}")),
    CaptionKind(0.10, (0,), ("{object}", "a picture of {object}.", "a photo of {object}.", "a video of {object}.")),
    CaptionKind(0.10, (2,), ("something in the {place} of the picture", "a thing in the {place}")),
    CaptionKind(0.05, (3,), ("something {size}", "a {size} thing")),
)


class Captions(NamedTuple):
    """N texts, and what each says: int64 [N, A] like the attributes of pictures, NOT_SAID where it says nothing."""

    texts: list[str]
    said: np.ndarray


def _words(shown: Sequence[int]) -> dict[str, str]:
    noun, motion, place, size = (names[i] for names, i in zip(ATTRIBUTES, shown, strict=True))
    return {"object": with_article(noun), "motion": motion, "place": place, "size": size}


def write_captions(
    attributes: np.ndarray,
    generator: np.random.Generator,
    kinds: Sequence[CaptionKind] = CAPTION_KINDS,
    words: Callable[[Sequence[int]], dict[str, str]] = _words,
) -> Captions:
    """A random caption for each of N pictures with the given attributes [N, A].

    Args:
        attributes: indices; NOT_SAID where a picture does not show it.
        kinds: a picture that does not show what a kind says gets the first one, which every picture must show.
        words: the words for the attributes [A] of a picture, by the fields of the forms.
    """
    drawn = generator.choice(len(kinds), size=len(attributes), p=[kind.rate for kind in kinds])
    said = np.full_like(attributes, NOT_SAID)
    texts = []
    for row, (shown, kind_id) in enumerate(zip(attributes, drawn, strict=True)):
        kind = kinds[kind_id]
        if (shown[list(kind.said)] == NOT_SAID).any():
            kind = kinds[0]
        form = kind.forms[generator.integers(len(kind.forms))]
        texts.append(form.format(**words(shown)))
        said[row, kind.said] = shown[list(kind.said)]
    return Captions(texts, said)


def is_true_of(said: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """bool [N pictures, M captions]: nothing that the caption says [M, A] differs from the picture [N, A]."""
    return ((said[None] == NOT_SAID) | (said[None] == attributes[:, None])).all(axis=2)
