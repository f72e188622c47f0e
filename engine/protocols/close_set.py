"""Close-set accuracy: the classes of training."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.protocols.accuracy import accuracy


@dataclass(frozen=True)
class CloseSet:
    """Top-1 and top-5 of views that are fused as published.

    Args:
        softmax_scale: of the cosines before the softmax of each view.
    """

    softmax_scale: float = 1.0
    name = "close_set"
    rule = "softmax of cosines per view, mean over views, softmax"

    def fuse(self, view_scores: Tensor) -> Tensor:
        """[N, V, K] -> scores [N, K]; the published scale is 1"""
        # In double: the second softmax squeezes close calls of many classes below float32's resolution.
        return (self.softmax_scale * view_scores.double()).softmax(dim=-1).mean(dim=1).softmax(dim=-1)

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, Any]:
        """Of scores [N, K] and labels int64 [N]."""
        return accuracy(scores, labels)
