"""Videos as members of classes."""

import torch.nn.functional as F
from torch import Tensor


def classification_loss(scores: Tensor, logit_scale: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of scaled scores.

    Args:
        scores: [B, K].
        logit_scale: the factor of the scores, a scalar.
        labels: int64 [B].
    """
    return F.cross_entropy(logit_scale * scores, labels)
