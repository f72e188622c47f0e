"""What is said about the videos of the shapes set: captions, and transcripts with the time of every word."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datasets.shapes.world import MOTIONS, OBJECTS, ShapeClass, with_article

ONE_MOTION = (
    "{object} {motion}",
    "{object} that is {motion}",
    "a video of {object} {motion}",
    "here is {object}, and it is {motion}",
    "somewhere in the picture {object} is {motion}",
    "we see how {object} keeps {motion}",
    "look at {object} {motion}",
    "this is {object} {motion} over a colourful background",
)
TWO_MOTIONS = (
    "{object} {motion}, then {next}",
    "{object} that is {motion} and then {next}",
    "first {object} is {motion}, after that it is {next}",
    "{object} begins by {motion} and ends by {next}",
    "a video of {object} {motion} before it is {next}",
    "{object} is {motion} until it is {next}",
)
# No word such as "first" or "finally": it would tell the place of an act to somebody who does not look.
TOLD = (
    "Look, here {object} is {motion}, and it keeps {motion}.",
    "This is {object}, and what it does is {motion} all the time.",
    "We watch {object} {motion}. It is still {motion}.",
    "You can see {object} that is {motion}, just {motion}.",
    "There is {object} in the picture. It is {motion}, always {motion}.",
)
PUNCTUATION = ",."


class Speech(NamedTuple):
    """What somebody says while a film runs."""

    words: list[str]  # as speech recognition has them: lower case, without punctuation
    times: list[float]  # seconds at which they are said, rising
    sentences: list[str]  # the same words as somebody writes them, one text an act


def caption(acts: Sequence[ShapeClass], generator: np.random.Generator) -> str:
    """A sentence about a video of one motion, or of two of the same object."""
    forms = (ONE_MOTION, TWO_MOTIONS)[len(acts) - 1]
    motions = [MOTIONS[act.motion_id].name for act in acts]
    noun = with_article(OBJECTS[acts[0].object_id])
    return _any(forms, generator).format(object=noun, motion=motions[0], next=motions[-1])


def speech_of(
    acts: Sequence[ShapeClass], starts: Sequence[float], seconds: float, generator: np.random.Generator
) -> Speech:
    """Each act told while it lasts, its words evenly over it.

    Args:
        starts: second at which each act begins.
        seconds: that an act lasts.
    """
    told, words, times = [], [], []
    for act, start in zip(acts, starts, strict=True):
        noun, motion = with_article(OBJECTS[act.object_id]), MOTIONS[act.motion_id].name
        told.append(_any(TOLD, generator).format(object=noun, motion=motion))
        heard = told[-1].translate(str.maketrans("", "", PUNCTUATION)).lower().split()
        words += heard
        times += [round(start + seconds * (place + 0.5) / len(heard), 2) for place in range(len(heard))]
    return Speech(words, times, told)


def _any(forms: Sequence[str], generator: np.random.Generator) -> str:
    return forms[generator.integers(len(forms))]
