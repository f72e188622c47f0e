"""Which classes a model takes for which: counts, the most confused classes, the surest mistakes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FAILED = -1  # the prediction for a video that could not be read


class ConfusedPair(NamedTuple):
    """Videos of one class that were taken for another."""

    true: int
    predicted: int
    count: int
    share: float  # of the true class's videos
    reverse_count: int  # videos of ``predicted`` that were taken for ``true``


def predictions(scores: Tensor) -> np.ndarray:
    """The best class of each row of scores [N, K], int64 [N]; ``FAILED`` where the row holds NaN."""
    best = scores.nan_to_num().argmax(dim=1)  # the first of equal ones, as in engine.protocols.accuracy
    return torch.where(scores.isnan().any(dim=1), FAILED, best).numpy()


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Videos of class (row) taken for class (column), int64 [K, K]; failed videos are in no cell."""
    read = predicted != FAILED
    cells = labels[read] * num_classes + predicted[read]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracy(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 of each class in percent [K], NaN for a class without videos; and its number of videos [K]."""
    num_videos = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[labels == predicted], minlength=num_classes)
    accuracy = np.full(num_classes, np.nan)
    np.divide(100.0 * hits, num_videos, out=accuracy, where=num_videos > 0)
    return accuracy, num_videos


def confused_pairs(counts: np.ndarray, num_videos: np.ndarray, limit: int) -> list[ConfusedPair]:
    """The ``limit`` pairs with the most videos, then with the largest share.

    Args:
        counts: see ``confusion_counts``.
        num_videos: of each class, [K].
    """
    rows, columns = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    pairs = [
        ConfusedPair(i, j, int(counts[i, j]), counts[i, j] / num_videos[i], int(counts[j, i]))
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))[:limit]


def most_confused(counts: np.ndarray) -> list[int]:
    """All classes [K], by the most videos that one of them and another exchange; such two mostly stand side by side."""
    mistakes = counts - np.diag(counts.diagonal())
    pairs = np.triu(mistakes + mistakes.T)
    order = np.argsort(-pairs, axis=None, kind="stable")
    return list(dict.fromkeys(np.stack(np.unravel_index(order, pairs.shape), axis=1).ravel().tolist()))


def worst_mistakes(
    log_probabilities: Tensor, labels: np.ndarray, predicted: np.ndarray, limit: int, per_pair: int = 2
) -> list[int]:
    """Videos by how much more probable the model found the wrong class than the true one, the worst first.

    Args:
        log_probabilities: [N, K].
        limit: videos at most.
        per_pair: videos at most of one true and one predicted class, lest a single pair fill the list.
    """
    wrong = np.flatnonzero((predicted != labels) & (predicted != FAILED))
    table = log_probabilities.double().numpy()
    margins = table[wrong, predicted[wrong]] - table[wrong, labels[wrong]]
    chosen: list[int] = []
    seen: dict[tuple[int, int], int] = {}
    for index in wrong[np.argsort(-margins, kind="stable")].tolist():
        pair = int(labels[index]), int(predicted[index])
        seen[pair] = seen.get(pair, 0) + 1
        if seen[pair] <= per_pair:
            chosen.append(index)
    return chosen[:limit]
