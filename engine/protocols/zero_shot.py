"""Zero-shot accuracy: classes that nobody trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.protocols.accuracy import accuracy, mean_and_std
from engine.protocols.fusion import Fusion, fusion_of
from utils.config import EvalConfig


@dataclass(frozen=True)
class ZeroShot:
    """Top-1 and top-5 among all classes, and among random halves of them.

    Args:
        half_class_trials: halves that are drawn; 0: none.
    """

    fusion: Fusion
    half_class_trials: int = 0
    name = "zero_shot"
    needs_one_label = "accuracy among halves of the classes"

    @classmethod
    def of(cls, settings: EvalConfig) -> "ZeroShot":
        """As a configuration says; without a word of it views are fused as MoTE's zero-shot test does."""
        return cls(fusion_of(settings, "cosines"), settings.half_class_trials)

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, Any]:
        """Of scores [N, K] and labels int64 [N]."""
        halves = {"half_class": half_class(scores, labels, self.half_class_trials)} if self.half_class_trials else {}
        return accuracy(scores, labels) | halves


def half_class(scores: Tensor, labels: Tensor, num_trials: int = 10) -> dict[str, float]:
    """Accuracy among a random half of the classes: mean and population std over trials, in percent.

    Trial t draws its classes with NumPy's legacy generator seeded by t, as published; only videos of these
    classes count, scored among the classes that have a video.
    """
    num_classes = scores.shape[1]
    results = []
    for trial in range(num_trials):
        chosen = np.random.RandomState(trial).permutation(num_classes)[: num_classes // 2]
        kept = torch.isin(labels, torch.from_numpy(chosen))
        if not kept.any():
            continue  # a short list may hold no video of these classes
        present, remapped = labels[kept].unique(return_inverse=True)
        results.append(accuracy(scores[kept][:, present], remapped))
    summary = {}
    for name in ("top1", "top5") if results else ():
        mean, std = mean_and_std([result[name] for result in results])
        summary |= {f"{name}_mean": mean, f"{name}_std": std}
    return summary
