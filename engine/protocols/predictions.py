"""One video's row of the tables, as people and files get it: what `predict.py`, `tools/search.py` and the page show."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from engine.protocols.probabilities import Shown
from modules.systems.base import Explanation


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one video shows.

    T counts the frames of all clips, without padding, in the order of time. Of a video that could not be read only path
    and error are there.
    """

    path: str
    scores: dict[str, float] = field(default_factory=dict)  # label -> probability, the most probable first
    labels: tuple[str, ...] = ()  # K, in the order asked for
    frame_scores: np.ndarray | None = None  # float32 [T, K], probabilities of each frame
    seconds: np.ndarray | None = None  # float64 [T], when the frames are shown
    frames: np.ndarray | None = None  # uint8 [T, S, S, 3], as the model sees them (centre crop)
    embedding: np.ndarray | None = None  # float32 [D], unit length
    norm: float | None = None  # how long it was before, the mean of all views
    explanations: tuple[Explanation, ...] = ()  # of the most probable class, where asked for; shares [T, N]
    error: str | None = None  # why the video could not be read

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes, with their probabilities."""
        return list(self.scores.items())[:count]

    def course(self, count: int) -> np.ndarray:
        """Probabilities of the ``count`` most probable classes in each frame, [T, count]."""
        return self.frame_scores[:, [self.labels.index(name) for name, _ in self.top(count)]]

    def without_frames(self) -> "Prediction":
        """The same, a few kilobytes large."""
        return replace(self, frames=None)


def prediction_of(
    path: str,
    seconds: np.ndarray,
    names: tuple[str, ...],
    shown: Shown,
    clips: Tensor,
    reasons: Sequence[Explanation],
) -> Prediction:
    """One video's row of the tables, the frames in the order of time.

    Args:
        seconds: times [C, T]; NaN: padding.
        clips: [C, T, 3, S, S].
        reasons: with shares [C, T, N].
    """
    ranking = np.argsort(-shown.probabilities.numpy(), kind="stable")
    order = np.argsort(seconds.ravel(), kind="stable")[: np.isfinite(seconds).sum()]  # without padding, which is last
    return Prediction(
        path=path,
        scores={names[place]: shown.probabilities[place].item() for place in ranking},
        labels=names,
        frame_scores=shown.frame_probabilities.flatten(0, 1).numpy()[order],
        seconds=seconds.ravel()[order],
        frames=clips.flatten(0, 1).numpy()[order].transpose(0, 2, 3, 1),
        embedding=shown.embeddings.numpy(),
        norm=shown.norms.item(),
        explanations=tuple(each._replace(shares=each.shares.flatten(0, 1)[order]) for each in reasons),
    )


def printable(path: str) -> str:
    """A path whose bytes may not be UTF-8."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def unreadable(failed: Sequence[Prediction], num_videos: int) -> str:
    """The error that names videos which could not be read: one line, or a line each below it."""
    lines = [f"{printable(prediction.path)}: {prediction.error}" for prediction in failed]
    listed = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
    return f"error: {len(lines)} of {num_videos} videos could not be read:{listed}"
