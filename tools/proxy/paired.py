"""Differences of two models, trained with the same seeds and tested on the same videos, and their errors."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ERRORS_OF_A_CLAIM = 2.0  # standard errors that a difference needs


class Difference(NamedTuple):
    """Of two accuracies, in points, with two paired standard errors.

    What another seed or another pretrained model would change is in the one over runs, what other videos of the same
    classes would change in the one over videos. A few runs may agree by chance, so the larger counts.
    """

    mean: float
    over_runs: float | None  # None: one run
    over_videos: float

    @property
    def error(self) -> float:
        """The larger one."""
        return self.over_videos if self.over_runs is None else max(self.over_runs, self.over_videos)

    @property
    def is_told(self) -> bool:
        """Whether it is large enough for a claim: not zero, whichever sign it has."""
        return abs(self.mean) >= ERRORS_OF_A_CLAIM * self.error and self.mean != 0

    @property
    def text(self) -> str:
        """For a table; in bold where it is told."""
        mark = "**" * self.is_told
        return f"{mark}{self.mean:+.1f} ± {self.error:.1f}{mark}"


def difference(first: dict[str, np.ndarray], second: dict[str, np.ndarray] | None, lists: Sequence[str]) -> Difference:
    """First minus second, in the mean over lists.

    Args:
        first: list -> bool [R, N], whether a video was right; runs and videos as in ``second``.
        second: None: zeros, so that the mean is the first's own accuracy.

    Raises:
        ValueError: they are not of the same runs and videos.
    """
    gaps = []
    for name in lists:
        ours = first[name].astype(float)
        theirs = np.zeros_like(ours) if second is None else second[name].astype(float)
        if ours.shape != theirs.shape:
            raise ValueError(f"{name}: {ours.shape} runs and videos cannot be paired with {theirs.shape}")
        gaps.append(100.0 * (ours - theirs))
    of_runs = np.mean([gap.mean(axis=1) for gap in gaps], axis=0)  # [R]
    over_runs = float(of_runs.std(ddof=1)) / math.sqrt(len(of_runs)) if len(of_runs) > 1 else None
    # Lists are of different videos, so the errors of their means are independent.
    variances = [float(gap.mean(axis=0).var(ddof=1)) / gap.shape[1] for gap in gaps]
    return Difference(float(of_runs.mean()), over_runs, math.sqrt(sum(variances)) / len(gaps))


class Claim(NamedTuple):
    """A sentence that holds where a difference is at least ``least``."""

    sentence: str
    difference: Difference
    least: float = 0.0
    is_level: bool = False  # the difference is from nothing: an accuracy, which has no sign

    @property
    def figure(self) -> str:
        """The difference in the sentence."""
        mean, error = self.difference.mean, self.difference.error
        return f"{mean:.1f} ± {error:.1f}" if self.is_level else f"{mean:+.1f} ± {error:.1f}"

    @property
    def verdict(self) -> str:
        """What two standard errors allow to say."""
        beyond = self.difference.mean - self.least
        if abs(beyond) < ERRORS_OF_A_CLAIM * self.difference.error or not beyond:
            return "cannot be told"
        return "holds" if beyond > 0 else "does not hold"
