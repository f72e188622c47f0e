"""What videos show when nobody knows the answer: probabilities, over time too, and one vector a video."""

from collections.abc import Callable
from typing import NamedTuple

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
