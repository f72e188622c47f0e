"""Average precision: equal to the published figures, to counts by hand, and never better for a video that failed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from engine.protocols.fusion import FUSIONS
from engine.protocols.multilabel import average_precisions
from utils.config import EvalConfig


def one_class(scores: list[float], shown: list[int]) -> float:
    """Average precision of videos by their scores of a single class."""
    return average_precisions(torch.tensor(scores)[:, None], torch.tensor(shown).bool()[:, None]).item()


def test_the_figures_of_activitynet_equal_the_published_ones(text4vis_golden):
    with np.load(text4vis_golden / "map.npz") as file:
        arrays = dict(file)
    scores, targets = torch.from_numpy(arrays["scores"]), one_hot(torch.from_numpy(arrays["labels"]), 9).bool()
    precisions = average_precisions(scores, targets, with_softmax=True)
    np.testing.assert_allclose(precisions, arrays["AP"], rtol=1e-5)
    assert precisions.mean() == pytest.approx(float(arrays["mAP"]), rel=1e-5)
    np.testing.assert_allclose(average_precisions(scores, targets), arrays["AP_without_second_softmax"], rtol=1e-5)
    assert np.abs(arrays["AP"] - arrays["AP_without_second_softmax"]).max() > 1e-2  # so that the softmax is seen


def test_the_figures_of_several_labels_equal_the_published_ones(text4vis_golden):
    with np.load(text4vis_golden / "map.npz") as file:
        arrays = dict(file)
    scores, targets = torch.from_numpy(arrays["multi/scores"]), torch.from_numpy(arrays["multi/targets"]).bool()
    precisions = average_precisions(scores, targets)
    np.testing.assert_allclose(precisions, arrays["multi/AP"], rtol=1e-5)
    assert precisions.mean() == pytest.approx(float(arrays["multi/mAP"]), rel=1e-5)
    assert precisions[10] == 0.0  # of the class without a video


def test_precision_is_averaged_at_the_rank_of_each_video_by_hand():
    # Ranks 1, 3 and 4 of 5: (1/1 + 2/3 + 3/4) / 3.
    assert one_class([0.9, 0.1, 0.8, 0.7, 0.6], [1, 0, 0, 1, 1]) == pytest.approx(100 * (1 + 2 / 3 + 3 / 4) / 3)


def test_a_class_without_a_video_has_zero_and_counts():
    precisions = average_precisions(torch.rand(4, 3), torch.tensor([[1, 0, 0]] * 4).bool())
    assert precisions.tolist() == [100.0, 0.0, 0.0]


def test_videos_of_equal_score_are_taken_together_whatever_their_order():
    assert one_class([0.5, 0.5], [1, 0]) == one_class([0.5, 0.5], [0, 1]) == 50.0
    assert one_class([0.9, 0.5, 0.5, 0.5], [1, 0, 1, 0]) == pytest.approx(100 * (1 + 2 / 4) / 2)


def test_one_more_softmax_ranks_videos_anew():
    rows = torch.tensor([[0.50, 0.50, 0.00], [0.48, 0.26, 0.26]])
    targets = torch.tensor([[0, 0, 0], [1, 0, 0]]).bool()
    assert average_precisions(rows, targets)[0] == 50.0
    assert average_precisions(rows, targets, with_softmax=True)[0] == 100.0


@given(data=st.data(), num_videos=st.integers(1, 8), num_classes=st.integers(1, 3), with_softmax=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_video_that_fails_never_raises_the_precision_of_a_class_that_it_shows(
    data, num_videos, num_classes, with_softmax
):
    table = st.lists(st.integers(0, 5), min_size=num_videos * num_classes, max_size=num_videos * num_classes)
    scores = torch.tensor(data.draw(table)).view(num_videos, num_classes) / 5
    targets = torch.tensor(data.draw(table)).view(num_videos, num_classes) > 2
    failed = data.draw(st.integers(0, num_videos - 1))
    others = [index for index in range(num_videos) if index != failed]
    found = average_precisions(_fail(scores, failed), targets, with_softmax)
    without = average_precisions(scores[others], targets[others], with_softmax)
    assert (found <= without + 1e-9).all()
    assert (found[targets[failed].numpy() & (without > 0)] < without[targets[failed].numpy() & (without > 0)]).all()
    assert found[~targets[failed].numpy()] == pytest.approx(without[~targets[failed].numpy()])


def test_a_failed_video_is_never_found_even_where_it_is_the_only_one():
    assert one_class([0.9, math.nan, 0.1], [1, 1, 0]) == 50.0
    assert one_class([0.9, math.nan], [0, 1]) == 0.0
    assert average_precisions(torch.full((3, 2), math.nan), torch.ones(3, 2).bool()).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_scores_of_a_fusion_as_probabilities_keep_order_and_failures(fusion):
    torch.manual_seed(0)
    tables = {"scores": torch.rand(3, 2, 4), "features": torch.randn(3, 2, 5)}
    for table in tables.values():
        table[1] = math.nan
    rule = FUSIONS[fusion](EvalConfig())
    scores = rule.fuse(tables, normalize(torch.randn(4, 5), dim=1), 3.0)
    probabilities = rule.probabilities(scores)
    assert probabilities[0].sum().item() == pytest.approx(1.0, abs=1e-6)
    assert probabilities[0].argsort().tolist() == scores[0].argsort().tolist()
    assert probabilities.isnan().all(dim=1).tolist() == [False, True, False]


def _fail(scores: Tensor, index: int) -> Tensor:
    scores = scores.clone()
    scores[index] = math.nan
    return scores
