"""Videos as members of classes."""

import torch.nn.functional as F
from torch import Tensor


def classification_loss(
    scores: Tensor,
    logit_scale: Tensor,
    labels: Tensor,
    shares: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of scaled scores.

    Args:
        scores: [B, K].
        logit_scale: the factor of the scores, a scalar.
        labels: int64 [B].
        shares: [B, K], of several classes in a video, in the place of labels; rows sum to 1.
        smoothing: this share of each row goes to all classes alike (label smoothing).
    """
    target = labels if shares is None else shares
    return F.cross_entropy(logit_scale * scores, target, label_smoothing=smoothing)
