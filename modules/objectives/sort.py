"""Transcripts of a video that are put in order."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sorting_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of each transcript's place, mean over clips and transcripts.

    Args:
        logits: [B, K, K], row k the transcript whose place is k.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), _places(logits).flatten())


def order_accuracy(logits: Tensor) -> Tensor:
    """The share of clips of whose transcripts each has its own place as its likeliest, a scalar of fp32; see above."""
    return in_order(logits).mean()


def in_order(logits: Tensor) -> Tensor:
    """Of which clips each transcript has its own place as its likeliest, fp32 [B], 1 or 0; see above."""
    return (logits.argmax(dim=-1) == _places(logits)).all(dim=-1).float()


def _places(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
