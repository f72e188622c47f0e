"""What videos show when nobody knows the answer: probabilities, over time too, and one vector a video."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.collect import rows_of_clips
from engine.protocols.fusion import Fusion
from modules.systems.base import Batch, Classes, Explanation, System, Video


class Shown(NamedTuple):
    """What B videos show; float32 on the CPU."""

    probabilities: Tensor  # [B, K]
    frame_probabilities: Tensor  # [B, C, T, K], of every frame of every clip
    embeddings: Tensor  # [B, D], unit length
    norms: Tensor  # [B], how long the vectors of the views were, in the mean


def rows_of(
    system: System, classes: Tensor, fusion: Fusion, keeps_frames: bool = False
) -> Callable[[Batch], dict[str, Tensor]]:
    """What a pass computes of each clip: unit ``embeddings`` [B, D] and how long they were, ``norms`` [B];
    ``frame_scores`` [B, T', K], and what fusion needs.

    Args:
        system: in eval mode and its form for tests.
        classes: encoded [K, D]; K = 0: embeddings only.
        keeps_frames: also ``frames`` [B, T', D] before the head, for ``explain_shown``.
    """

    def compute(batch: Batch) -> dict[str, Tensor]:
        video = system.video_of(batch)
        vectors = system.embed(video)
        rows = {"embeddings": F.normalize(vectors, dim=-1), "norms": vectors.norm(dim=-1)}
        if keeps_frames:
            rows["frames"] = video.frames
        if len(classes):
            rows |= rows_of_clips(system, video, classes, fusion.tables)
            rows["frame_scores"] = system.score_frames(video, classes)
        return rows

    return compute


def fuse_shown(
    rows: dict[str, Tensor], classes: Tensor, fusion: Fusion, logit_scale: Tensor, num_crops: int, num_frames: int
) -> Shown:
    """Fuse the views of videos.

    Probabilities are softmax(logit scale * score), of the fused feature where ``fusion`` makes one, else of the mean
    over views; those of a frame average over its crops. The embedding is the mean over views of the unit features after
    the temporal head. What depends on the classes asked for, such as modulation, acts on the probabilities and not on
    the embedding.

    Args:
        rows: of ``rows_of``, each [B, V, ...], V = crops * clips, crop-major.
        num_frames: T of a clip, which may have one feature for all.
    """
    embeddings = F.normalize(rows["embeddings"].mean(dim=1), dim=-1).cpu()
    norms = rows["norms"].mean(dim=1).cpu()
    if "scores" not in rows:
        num_clips = rows["embeddings"].shape[1] // num_crops
        shape = len(embeddings), num_clips, num_frames, 0
        return Shown(torch.zeros(len(embeddings), 0), torch.zeros(shape), embeddings, norms)
    scores = fusion.fuse(rows, classes, float(logit_scale)) if fusion.gives_cosines else rows["scores"].mean(dim=1)
    by_crop = rows["frame_scores"].unflatten(1, (num_crops, -1)).mean(dim=1)  # [B, C, T', K]
    by_crop = by_crop.expand(-1, -1, num_frames, -1)
    return Shown(
        (logit_scale * scores).softmax(dim=-1).float().cpu(),
        (logit_scale * by_crop).softmax(dim=-1).float().cpu(),
        embeddings,
        norms,
    )


def explain_shown(
    system: System, frames: Tensor, classes: Classes, encoded: Tensor, label: int, num_crops: int, num_frames: int
) -> list[Explanation]:
    """Why one video has the score of a class, see ``System.explain``; the mean over crops, as of probabilities.

    Args:
        frames: of ``rows_of``, [V, T', D], V = crops * clips, crop-major.
        num_frames: T of a clip, which may have one feature for all.

    Returns:
        Explanations with shares [C, T, N], float32 on the CPU.
    """
    found = system.explain(Video(frames), classes, encoded, label)
    by_crop = [each.shares.float().unflatten(0, (num_crops, -1)).mean(dim=0).cpu() for each in found]
    return [
        each._replace(shares=shares.expand(-1, num_frames, -1)) for each, shares in zip(found, by_crop, strict=True)
    ]


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
