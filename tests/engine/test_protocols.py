"""From view logits to figures: equal to the published reports, and to counts by hand."""

import math
import re

import numpy as np
import pytest
import torch

from engine.protocols.accuracy import accuracy
from engine.protocols.base import Protocol
from engine.protocols.close_set import CloseSet
from engine.protocols.fusion import FUSIONS, fusion_of
from engine.protocols.zero_shot import ZeroShot, half_class
from utils.config import EvalConfig

CLOSE_SET_FILES = ("ref_close_1x1", "ref_close_4x3", "ref_close_2x5", "ref_close_1x10", "ref_dense_3x3")


CLOSE, GENERAL = CloseSet.of(EvalConfig()), ZeroShot.of(EvalConfig())


def fuse(protocol: Protocol, view_scores: torch.Tensor) -> torch.Tensor:
    """[N, V, K] -> [N, K]"""
    return protocol.fusion.fuse({"scores": view_scores}, torch.zeros(view_scores.shape[-1], 1), 1.0)


def load(path) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, list[float]]:
    """View logits, labels, fused scores, and all percentages of the printed report."""
    arrays = np.load(path)
    percentages = [float(number) for line in arrays["report"] for number in re.findall(r"([\d.]+)%", str(line))]
    return torch.from_numpy(arrays["view_logits"]), torch.from_numpy(arrays["labels"]), arrays["fused"], percentages


@pytest.mark.parametrize("name", CLOSE_SET_FILES)
def test_close_set_scores_and_accuracy_equal_the_published_ones(golden, name):
    view_logits, labels, fused, percentages = load(golden / f"{name}.npz")
    scores = fuse(CLOSE, view_logits)
    np.testing.assert_allclose(scores.numpy(), fused, rtol=1e-5, atol=0)
    figures = CLOSE.figures(scores, labels)
    assert [figures["top1"], figures["top5"]] == pytest.approx(percentages, abs=5e-4)


def test_zero_shot_accuracy_and_half_class_figures_equal_the_published_ones(golden):
    view_logits, labels, _, percentages = load(golden / "ref_zs_3x1.npz")
    figures = GENERAL.figures(fuse(GENERAL, view_logits), labels)
    half = figures["half_class"]
    found = [figures["top1"], figures["top5"]]
    found += [half["top1_mean"], half["top1_std"], half["top5_mean"], half["top5_std"]]
    assert found == pytest.approx(percentages, abs=5e-4)
    assert found[2:] == pytest.approx([54.148, 14.154, 97.738, 4.716], abs=5e-4)


def test_a_protocol_has_its_settings():
    views, labels = torch.rand(3, 2, 4), torch.tensor([0, 1, 2])
    sharper = CloseSet.of(EvalConfig(softmax_scale=2.0))
    assert torch.equal(fuse(sharper, views), fuse(CLOSE, 2 * views))
    assert "half_class" not in ZeroShot(GENERAL.fusion).figures(views[:, 0], labels)
    three = ZeroShot.of(EvalConfig(half_class_trials=3))
    assert three.figures(views[:, 0], labels)["half_class"] == half_class(views[:, 0], labels, 3)


def test_close_set_fusion_of_two_views_by_hand():
    views = [[1.0, 0.0], [0.0, 3.0]]
    shares = [[math.exp(2 * x) / sum(math.exp(2 * y) for y in view) for x in view] for view in views]
    means = [(shares[0][k] + shares[1][k]) / 2 for k in range(2)]
    expected = [math.exp(mean) / sum(math.exp(m) for m in means) for mean in means]
    found = fuse(CloseSet.of(EvalConfig(softmax_scale=2.0)), torch.tensor([views]))
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-6)


def test_zero_shot_fusion_is_a_hundred_times_the_mean_cosine():
    views = torch.tensor([[[0.1, 0.4], [0.3, 0.0]]])
    np.testing.assert_allclose(fuse(GENERAL, views).numpy(), [[20.0, 20.0]], rtol=1e-6)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_failed_video_stays_nan_and_counts_as_wrong(name):
    views = torch.tensor([[[0.9, 0.1]], [[0.9, 0.1]]])
    views[1] = math.nan
    scores = fusion_of(EvalConfig(fusion=name), "").fuse({"scores": views, "features": views}, torch.eye(2), 1.0)
    assert scores.isnan().tolist() == [[False, False], [True, True]]
    assert accuracy(scores, torch.tensor([0, 0])) == {"top1": 50.0, "top5": 50.0}
    assert half_class(torch.cat([scores] * 2), torch.tensor([0, 0, 1, 1]), 1)["top1_mean"] == 50.0


def test_features_are_fused_as_long_as_they_are():
    features = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])  # two views, the first three times as long
    unit = torch.nn.functional.normalize(features, dim=-1)
    scores = FUSIONS["features"](EvalConfig()).fuse({"scores": unit, "features": features}, torch.eye(2), 1.0)
    np.testing.assert_allclose(scores.numpy(), [[3 / math.sqrt(10), 1 / math.sqrt(10)]], rtol=1e-6)


@pytest.mark.parametrize("name", FUSIONS)
def test_probabilities_of_scores_sum_to_one_and_keep_their_order(name):
    fusion, unit = FUSIONS[name](EvalConfig()), torch.nn.functional.normalize(torch.rand(5, 2, 4), dim=-1)
    scores = fusion.fuse({"scores": unit, "features": unit}, torch.eye(4), 1.0)
    probabilities = fusion.probabilities(scores)
    np.testing.assert_allclose(probabilities.sum(dim=1).numpy(), np.ones(5), rtol=1e-6)
    in_order = probabilities.gather(1, scores.argsort(dim=1))
    assert (in_order.diff(dim=1) >= 0).all()


def test_an_unknown_fusion_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match=r"eval\.fusion: .* cosines, features, softmax, found 'sum'"):
        fusion_of(EvalConfig(fusion="sum"), "cosines")


# First classes of trial 0 (numpy's legacy stream, seed 0), from the reference of Text4Vis.
FIRST_CLASSES = {51: (29, 11, 10, 22, 2, 28), 101: (26, 86, 2, 55, 75, 94), 200: (18, 170, 107, 98, 177, 182)}


def published_half(num_classes: int, trial: int) -> list[int]:
    np.random.seed(trial)  # noqa: NPY002 - the published call
    return np.random.permutation(num_classes)[: num_classes // 2].tolist()  # noqa: NPY002


def top1_with_wrong_videos(num_classes: int, wrong: list[int], num_trials: int) -> float:
    """Half-class top-1 of one video a class, those of ``wrong`` misclassified."""
    scores = torch.eye(num_classes)
    scores[wrong] *= -1
    return half_class(scores, torch.arange(num_classes), num_trials)["top1_mean"]


@pytest.mark.parametrize("num_classes", FIRST_CLASSES)
def test_trial_0_takes_the_published_half_of_the_classes(num_classes):
    first, half = FIRST_CLASSES[num_classes], num_classes // 2
    assert top1_with_wrong_videos(num_classes, list(first), 1) == pytest.approx(100 * (1 - len(first) / half))
    chosen = published_half(num_classes, 0)
    assert tuple(chosen[:6]) == first
    others = sorted(set(range(num_classes)) - set(chosen))
    assert top1_with_wrong_videos(num_classes, chosen, 1) == 0.0
    assert top1_with_wrong_videos(num_classes, others, 1) == 100.0


def test_trial_t_is_seeded_by_t():
    wrong = list(range(0, 51, 3))
    accuracies = [100 * (1 - len(set(published_half(51, trial)) & set(wrong)) / 25) for trial in range(10)]
    scores = torch.eye(51)
    scores[wrong] *= -1
    found = half_class(scores, torch.arange(51), 10)
    assert found["top1_mean"] == pytest.approx(np.mean(accuracies))
    assert found["top1_std"] == pytest.approx(np.std(accuracies))


def test_half_class_scores_among_the_classes_that_have_a_video():
    chosen = published_half(10, 0)
    present, absent = chosen[:2], chosen[2]
    scores = torch.zeros(2, 10)
    scores[0, present[0]] = scores[1, present[1]] = 1.0
    scores[:, absent] = 2.0  # the best class has no video, so it is not among the candidates
    labels = torch.tensor(present)
    assert accuracy(scores, labels)["top1"] == 0.0
    assert half_class(scores, labels, 1) == {"top1_mean": 100.0, "top1_std": 0.0, "top5_mean": 100.0, "top5_std": 0.0}


def test_half_class_leaves_out_trials_without_a_video():
    unchosen = sorted(set(range(10)) - set(published_half(10, 0)))
    assert half_class(torch.zeros(1, 10), torch.tensor(unchosen[:1]), 1) == {}


def test_close_set_fusion_keeps_the_order_of_close_calls_among_many_classes():
    cosines = torch.full((1, 1, 400), 0.2)
    cosines[0, 0, 7], cosines[0, 0, 3] = 0.3, 0.3 - 1e-5
    scores = fuse(CLOSE, cosines)
    assert scores[0, 7] > scores[0, 3]
