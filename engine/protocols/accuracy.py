"""Accuracy of score tables; a video that could not be read counts as wrong."""

import torch
from torch import Tensor


def topk_hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k best scores, bool [N]; min(k, K) where there are fewer classes.

    Of equal scores the first class counts as the best: ``torch.topk`` takes any of them, another one of the same table
    in another layout.

    Args:
        scores: [N, K]; a row with NaN stands for a video that failed, which is never a hit.
        labels: int64 [N].
    """
    failed = scores.isnan().any(dim=1)
    own = scores.gather(1, labels[:, None])
    comes_first = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    num_better = ((scores > own) | ((scores == own) & comes_first)).sum(dim=1)
    return (num_better < k) & ~failed


def topk_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """Percentage of videos whose label is among the k best scores [N, K]."""
    return 100.0 * topk_hits(scores, labels, k).double().mean().item()


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """Mean and population standard deviation, as the published tables use."""
    table = torch.tensor(values, dtype=torch.float64)
    return table.mean().item(), table.std(correction=0).item()


def mean_as_text(values: list[float], digits: int) -> str:
    """The mean of runs in a table, with ± and the standard deviation where there are several."""
    mean, std = mean_and_std(values)
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if len(values) > 1 else f"{mean:.{digits}f}"


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), high only where both are; 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 in percent."""
    return {"top1": topk_accuracy(scores, labels, 1), "top5": topk_accuracy(scores, labels, 5)}
