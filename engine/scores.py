"""Views of videos to probabilities, over time too, and to one vector a video; plain tensors."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.precision import Precision


class Scores(NamedTuple):
    """What B videos show; float32 on the CPU."""

    probabilities: Tensor  # [B, K]
    frame_probabilities: Tensor  # [B, C, T, K], of every frame of every clip
    embeddings: Tensor  # [B, D], unit length


@torch.inference_mode()
def score_views(
    model: nn.Module,
    views: Tensor,
    class_features: Tensor,
    num_crops: int,
    precision: Precision,
    clips_per_pass: int,
) -> Scores:
    """Probabilities are softmax(logit scale * mean cosine over views); those of a frame average over its crops.

    The embedding is the mean over views of the unit features after the temporal head. Modulation, which
    depends on the classes asked for, acts on the probabilities and not on the embedding.

    Args:
        model: a VideoCLIP in eval mode.
        views: uint8 [B, V, T, 3, S, S], V = crops * clips, crop-major.
        class_features: unit vectors [K, D]; K = 0: embeddings only.
        clips_per_pass: clips in one forward pass, which bounds memory.

    Raises:
        FloatingPointError: features or cosines are not finite.
    """
    batch_size, num_views, num_frames = views.shape[:3]
    clips = views.to(precision.device, non_blocking=True).flatten(0, 1)
    passes = [_score_clips(model, part, class_features, precision) for part in clips.split(clips_per_pass)]
    cosines, frame_cosines, features = (
        torch.cat(parts).unflatten(0, (batch_size, num_views)) for parts in zip(*passes, strict=True)
    )
    if not all(part.isfinite().all() for part in (cosines, frame_cosines, features)):
        raise FloatingPointError(
            f"the cosines of a video are not finite: the weights are too large for {precision.name}"
        )
    scale = model.clip.logit_scale.exp()
    by_crop = frame_cosines.unflatten(1, (num_crops, -1)).mean(dim=1)  # [B, C, T, K]
    by_crop = by_crop.expand(-1, -1, num_frames, -1)  # joint attention has one feature a clip
    return Scores(
        (scale * cosines.mean(dim=1)).softmax(dim=-1).float().cpu(),
        (scale * by_crop).softmax(dim=-1).float().cpu(),
        F.normalize(features.mean(dim=1), dim=-1).cpu(),
    )


def _score_clips(
    model: nn.Module, clips: Tensor, class_features: Tensor, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 [n, T, 3, S, S] -> cosines of clips [n, K] and of frames [n, T, K], and unit features [n, D]."""
    with precision.autocast():
        frame_features = model.encode_frames(clips).float()
        features = model.head(frame_features)[0].float()  # without a gate
        video_features = F.normalize(features.mean(dim=1), dim=-1)
        if not len(class_features):
            return features.new_zeros(len(clips), 0), features.new_zeros(*features.shape[:2], 0), video_features
        output = model(frame_features, class_features)
    frame_cosines = F.normalize(output.features[0].float(), dim=-1) @ class_features.float().T
    return output.logits[0], frame_cosines, video_features
