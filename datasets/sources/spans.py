"""K neighbouring spans of a video, what is said in each, and the frames of all: TVTSv2's rule, as published.

All but the draws is a pure function of them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SECONDS = (3, 4, 5)  # of a span, each as likely
GAP_S = 1.0  # between two spans; nothing that is said there is read
EDGE_S = 1  # at the end of a video that is never taken


class Draws(NamedTuple):
    """The random choices of a visit."""

    seconds: int  # of a span
    start: int = 0  # whole seconds; without meaning in a video that is too short for the spans
    fraction: float = 0.0  # of a second, added to them


class Spans(NamedTuple):
    """Begin and end of each span, float64 [K], seconds."""

    starts: np.ndarray
    ends: np.ndarray


def draw(duration: int, num_spans: int, rng: np.random.Generator) -> Draws:
    """Draw a visit of a video of ``duration`` whole seconds."""
    seconds = int(rng.choice(SECONDS))
    latest = duration - _length(seconds, num_spans) - EDGE_S
    if latest < 0:
        return Draws(seconds)
    return Draws(seconds, int(rng.integers(latest, endpoint=True)), float(rng.random()))


def spans_of(draws: Draws, duration: int, num_spans: int) -> Spans:
    """K spans of equal length with gaps between them.

    A video too short for spans of the seconds drawn is taken whole but for its last second, and its spans are shorter.

    Raises:
        ValueError: it is so short that nothing is left for them beside the gaps.
    """
    length = _length(draws.seconds, num_spans)
    if duration < length + EDGE_S:
        start, end = 0.0, float(duration - EDGE_S)
    else:
        start = draws.start + draws.fraction
        end = min(duration - EDGE_S, start + length)
    span_s = (end - start - (num_spans - 1) * GAP_S) / num_spans
    if span_s <= 0:
        raise ValueError(f"{duration} s are too short for {num_spans} spans with gaps of {GAP_S:g} s")
    starts = start + np.arange(num_spans) * (span_s + GAP_S)
    return Spans(starts, starts + span_s)


def texts_of(spans: Spans, times: Sequence[float] | np.ndarray, words: Sequence[str]) -> list[str]:
    """What is said strictly within each span: words, also empty ones, with a blank after each.

    Args:
        times: of the words, seconds [W].
    """
    times = np.asarray(times)
    inside = [(times > start) & (times < end) for start, end in zip(*spans, strict=True)]
    return ["".join(f"{words[place]} " for place in np.flatnonzero(mask)) for mask in inside]


def frames_of(spans: Spans, duration: int, num_frames: int) -> range:
    """The frames from the begin of the first span to the end of the last, gaps included.

    Frames are counted at the rate that ``num_frames`` in ``duration`` whole seconds make, as published; none where the
    video has too few.
    """
    rate = num_frames / duration
    first = int(spans.starts[0] * rate)
    return range(first, min(first + int((spans.ends[-1] - spans.starts[0]) * rate), num_frames))


def within(frames: range, rule: Callable[..., np.ndarray], **options: object) -> np.ndarray:
    """The indices that a rule of frames takes of a part of a video, int64 [T]; negative ones (padding) stay."""
    indices = rule(len(frames), **options)
    return np.where(indices < 0, indices, indices + frames.start)


def _length(seconds: int, num_spans: int) -> int:
    """Of all spans with the gaps between them, seconds."""
    return num_spans * seconds + int((num_spans - 1) * GAP_S)
