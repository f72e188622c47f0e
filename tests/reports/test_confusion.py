"""Confusions, groups and worst mistakes against tables worked out by hand."""

import numpy as np
import pytest
import torch

from engine.protocols.accuracy import topk_hits
from reports.confusion import (
    FAILED,
    class_accuracy,
    class_groups,
    confused_pairs,
    confusion_counts,
    predictions,
    worst_mistakes,
)

LABELS = np.array([0, 0, 0, 1, 1, 3])
PREDICTED = np.array([0, 1, 1, 1, 0, FAILED])


def test_a_row_with_nan_has_no_prediction():
    scores = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [3.0, 2.0]])
    assert predictions(scores).tolist() == [1, FAILED, 0]


def test_predictions_break_ties_as_the_accuracy_does():
    scores = torch.randint(0, 3, (200, 7), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.arange(200) % 7
    assert (predictions(scores) == labels.numpy()).tolist() == topk_hits(scores, labels, 1).tolist()


def test_counts_leave_failed_videos_out():
    counts = confusion_counts(LABELS, PREDICTED, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_class_accuracy_counts_failed_videos_as_wrong_and_absent_classes_as_nan():
    accuracy, num_videos = class_accuracy(LABELS, PREDICTED, 4)
    np.testing.assert_allclose(accuracy, [100 / 3, 50.0, np.nan, 0.0])
    assert num_videos.tolist() == [3, 2, 0, 1]


def test_pairs_come_by_videos_then_by_share():
    counts = np.array([[5, 2, 0], [1, 7, 2], [0, 1, 1]])
    pairs = confused_pairs(counts, np.array([10, 10, 2]), limit=4)
    assert [(pair.true, pair.predicted, pair.count, pair.reverse_count) for pair in pairs] == [
        (0, 1, 2, 1),
        (1, 2, 2, 1),
        (2, 1, 1, 2),
        (1, 0, 1, 2),
    ]
    assert pairs[2].share == 0.5


def planted(num_groups: int, size: int, num_alone: int) -> tuple[np.ndarray, list[set[int]]]:
    """Counts in which shuffled groups of classes are taken for each other, the later the more; and the groups."""
    num_classes = num_groups * size + num_alone
    shuffled = np.random.default_rng(0).permutation(num_classes)
    counts = 100 * np.eye(num_classes, dtype=np.int64)
    groups = [shuffled[number * size : (number + 1) * size] for number in range(num_groups)]
    for number, group in enumerate(groups):
        counts[np.ix_(group, group)] += 5 + number
    return counts, [set(group.tolist()) for group in groups]


def test_groups_are_the_classes_that_are_taken_for_each_other_the_worst_first():
    counts, expected = planted(num_groups=5, size=4, num_alone=7)
    groups = class_groups(counts, max_size=12)
    assert [set(group) for group in groups[:5]] == expected[::-1]
    assert [len(group) for group in groups[5:]] == [1] * 7
    assert groups[5:] == sorted(groups[5:])
    assert sorted(label for group in groups for label in group) == list(range(27))


def test_groups_stay_within_their_size():
    counts = np.full((30, 30), 1) + 10 * np.eye(30, dtype=np.int64)  # all are alike
    groups = class_groups(counts, max_size=7)
    assert max(map(len, groups)) <= 7
    assert sorted(label for group in groups for label in group) == list(range(30))


@pytest.mark.parametrize("num_classes", [1, 2])
def test_without_mistakes_every_class_is_alone(num_classes):
    assert class_groups(np.eye(num_classes, dtype=np.int64), 12) == [[label] for label in range(num_classes)]


def test_the_worst_mistakes_have_the_largest_margin_and_failed_videos_are_none():
    table = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.01, 0.99], [torch.nan, torch.nan]]).log()
    labels, predicted = np.array([0, 0, 0, 0, 0]), predictions(table)
    assert worst_mistakes(table, labels, predicted, limit=2) == [3, 1]
    assert worst_mistakes(table, labels, predicted, limit=9, per_pair=3) == [3, 1, 2]


def test_one_pair_of_classes_does_not_fill_the_list():
    table = torch.tensor([[0.0, 9.0, 0.0]] * 5 + [[0.0, 0.0, 1.0]]).log_softmax(dim=1)
    labels = np.zeros(6, dtype=np.int64)
    assert worst_mistakes(table, labels, predictions(table), limit=5) == [0, 1, 5]
