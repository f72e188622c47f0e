"""Which classes a model takes for which: counts, groups of classes that look alike, the surest mistakes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FAILED = -1  # the prediction for a video that could not be read
MIN_LINK = 0.03  # share of videos, both ways together, that two groups exchange on average over their classes


class ConfusedPair(NamedTuple):
    """Videos of one class that were taken for another."""

    true: int
    predicted: int
    count: int
    share: float  # of the true class's videos
    reverse_count: int  # videos of ``predicted`` that were taken for ``true``


def predictions(scores: Tensor) -> np.ndarray:
    """The best class of each row of scores [N, K], int64 [N]; ``FAILED`` where the row holds NaN."""
    best = scores.nan_to_num().topk(1, dim=1).indices[:, 0]  # as engine.protocols.accuracy breaks ties
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


def class_groups(counts: np.ndarray, max_size: int) -> list[list[int]]:
    """All classes in groups of at most ``max_size`` that are taken for each other: average linkage of their shares.

    Groups come by the number of mistakes within them, the most first; classes that are alone come last.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    alike = shares + shares.T
    np.fill_diagonal(alike, 0.0)
    groups = [[label] for label in range(len(counts))]
    sizes = np.ones(len(counts), dtype=np.int64)
    while alike.max() >= MIN_LINK:
        kept, gone = sorted(np.unravel_index(alike.argmax(), alike.shape))
        alike[kept] = (sizes[kept] * alike[kept] + sizes[gone] * alike[gone]) / (sizes[kept] + sizes[gone])
        groups[kept], groups[gone] = groups[kept] + groups[gone], []
        sizes[kept], sizes[gone] = sizes[kept] + sizes[gone], 0
        alike[kept, sizes + sizes[kept] > max_size] = alike[kept, kept] = 0.0
        alike[gone], alike[:, gone] = 0.0, 0.0
        alike[kept, gone] = 0.0
        alike[:, kept] = alike[kept]
    return sorted(filter(None, groups), key=lambda group: (-mistakes_within(counts, group), group[0]))


def mistakes_within(counts: np.ndarray, group: list[int]) -> int:
    """Videos of a group of classes that were taken for another class of it."""
    block = counts[np.ix_(group, group)]
    return int(block.sum() - block.trace())


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
