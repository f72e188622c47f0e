"""Close-set accuracy: the classes of training."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.protocols.accuracy import accuracy
from engine.protocols.fusion import Fusion, fusion_of
from utils.config import EvalConfig


@dataclass(frozen=True)
class CloseSet:
    """Top-1 and top-5 among the classes of training."""

    fusion: Fusion
    name = "close_set"
    needs_one_label = ""

    @classmethod
    def of(cls, settings: EvalConfig) -> "CloseSet":
        """As a configuration says; without a word of it views are fused as MoTE's close-set test does."""
        return cls(fusion_of(settings, "probabilities"))

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, Any]:
        """Of scores [N, K] and labels int64 [N]."""
        return accuracy(scores, labels)
