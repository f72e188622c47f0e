"""Accuracy against tables counted by hand."""

import math

import pytest
import torch

from engine.protocols.accuracy import harmonic_mean, mean_and_std, topk_accuracy, topk_hits

SCORES = torch.tensor(
    [
        [0.1, 0.7, 0.2],  # order 1 2 0
        [0.5, 0.3, 0.2],  # order 0 1 2
        [-3.0, -2.0, -1.0],  # order 2 1 0
        [9.0, 8.0, 10.0],  # order 2 0 1
    ]
)
LABELS = torch.tensor([1, 1, 0, 0])  # found at rank 1, 2, 3, 2


@pytest.mark.parametrize(("k", "percent"), [(1, 25.0), (2, 75.0), (3, 100.0), (5, 100.0)])
def test_accuracy_is_the_share_of_labels_among_the_k_best(k, percent):
    assert topk_accuracy(SCORES, LABELS, k) == percent


def test_hits_are_per_video():
    assert topk_hits(SCORES, LABELS, 2).tolist() == [True, True, False, True]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_a_row_with_nan_is_never_a_hit(k):
    scores = SCORES.clone()
    scores[0] = math.nan
    scores[1, 2] = math.nan
    hits = topk_hits(scores, LABELS, k).tolist()
    assert hits[:2] == [False, False]
    assert hits[2:] == topk_hits(SCORES, LABELS, k).tolist()[2:]


def test_failed_videos_stay_in_the_denominator():
    scores = SCORES.clone()
    scores[1:] = math.nan
    assert topk_accuracy(scores, LABELS, 5) == 25.0


@pytest.mark.parametrize("k", [1, 2, 4])
def test_of_tied_classes_k_are_hits_and_no_more(k):
    scores = torch.zeros(6, 6)  # every class ties with every other
    assert int(topk_hits(scores, torch.arange(6), k).sum()) == k


def test_mean_and_std_are_of_the_population():
    mean, std = mean_and_std([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert (mean, std) == (5.0, 2.0)
    assert mean_and_std([3.0]) == (3.0, 0.0)


@pytest.mark.parametrize(("a", "b", "expected"), [(73.8, 53.3, 61.9), (92.9, 67.7, 78.3), (16.2, 12.1, 13.9)])
def test_the_harmonic_mean_is_that_of_published_tables(a, b, expected):
    assert round(harmonic_mean(a, b), 1) == expected


def test_the_harmonic_mean_of_nothing_is_zero():
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert harmonic_mean(0.0, 80.0) == 0.0


@pytest.mark.parametrize("k", [1, 2])
def test_of_tied_classes_the_first_is_the_best_in_every_layout(k):
    scores = torch.zeros(3, 40)
    labels = torch.tensor([0, 1, 39])
    for table in (scores, scores.T.contiguous().T, scores[:, ::1], torch.zeros(3, 80)[:, ::2]):
        assert topk_hits(table, labels, k).tolist() == [True, k > 1, False]
