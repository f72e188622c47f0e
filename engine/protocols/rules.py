"""From view logits to figures: how views are fused, and what is averaged over what.

Every figure names its rule. Scores are [N, K], view logits [N, V, K] cosines, labels int64 [N]; a failed video's
rows are NaN and count as wrong.
"""

import numpy as np
import torch
from torch import Tensor

from engine.protocols.accuracy import mean_and_std, topk_accuracy


def fuse_close_set(view_logits: Tensor, scale: float = 1.0) -> Tensor:
    """Published close-set rule: softmax of each view's cosines (unscaled), mean over views, softmax again."""
    # In double: the second softmax squeezes close calls of many classes below float32's resolution.
    return (scale * view_logits.double()).softmax(dim=-1).mean(dim=1).softmax(dim=-1)


def fuse_zero_shot(view_logits: Tensor) -> Tensor:
    """Published zero-shot rule: 100 times the mean cosine over views."""
    return 100.0 * view_logits.mean(dim=1)


CLOSE_SET_RULE = "softmax of cosines per view, mean over views, softmax"
ZERO_SHOT_RULE = "mean of cosines over views"


def accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 in percent."""
    return {"top1": topk_accuracy(scores, labels, 1), "top5": topk_accuracy(scores, labels, 5)}


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
