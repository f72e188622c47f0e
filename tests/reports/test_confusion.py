"""Confusions and worst mistakes against tables worked out by hand."""

import numpy as np
import pytest
import torch

from engine.protocols.accuracy import topk_hits
from reports.confusion import (
    FAILED,
    class_accuracy,
    confused_pairs,
    confusion_counts,
    most_confused,
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


def test_classes_come_by_the_videos_that_they_exchange_with_another():
    counts = np.diag([9, 9, 9, 9, 9])
    counts[4, 1], counts[1, 4], counts[0, 3], counts[0, 4] = 3, 2, 4, 1
    assert most_confused(counts) == [1, 4, 0, 3, 2]


@pytest.mark.parametrize("num_classes", [1, 3])
def test_without_mistakes_classes_come_by_label(num_classes):
    assert most_confused(np.eye(num_classes, dtype=np.int64)) == list(range(num_classes))


def test_the_worst_mistakes_have_the_largest_margin_and_failed_videos_are_none():
    table = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.01, 0.99], [torch.nan, torch.nan]]).log()
    labels, predicted = np.array([0, 0, 0, 0, 0]), predictions(table)
    assert worst_mistakes(table, labels, predicted, limit=2) == [3, 1]
    assert worst_mistakes(table, labels, predicted, limit=9, per_pair=3) == [3, 1, 2]


def test_one_pair_of_classes_does_not_fill_the_list():
    table = torch.tensor([[0.0, 9.0, 0.0]] * 5 + [[0.0, 0.0, 1.0]]).log_softmax(dim=1)
    labels = np.zeros(6, dtype=np.int64)
    assert worst_mistakes(table, labels, predictions(table), limit=5) == [0, 1, 5]
