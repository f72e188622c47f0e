"""Cross-entropy against a computation by hand."""

import math

import numpy as np
import pytest
import torch

from modules.objectives.classify import classification_loss

SCALE = 2.0
SCORES = [[0.5, 0.0, -0.5], [0.1, 0.2, 0.3]]
LABELS = [0, 2]


def test_it_is_the_mean_of_minus_the_logarithm_of_the_label_s_share():
    losses = []
    for row, label in zip(SCORES, LABELS, strict=True):
        shares = [math.exp(SCALE * value) for value in row]
        losses.append(-math.log(shares[label] / sum(shares)))
    found = classification_loss(torch.tensor(SCORES), torch.tensor(SCALE), torch.tensor(LABELS))
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.fixture(scope="module")
def published(ost_golden) -> dict[str, torch.Tensor]:
    """train_vificlip.npz."""
    with np.load(ost_golden / "train_vificlip.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize(("case", "smoothing"), [("cross_entropy", 0.0), ("label_smoothing", 0.1)])
def test_loss_and_gradients_with_smooth_labels_are_those_of_vifi_clip(published, relative_error, case, smoothing):
    scale = published["logit_scale"]
    scores = (published["logits"] / scale).requires_grad_()
    loss = classification_loss(scores, scale, published["labels"], smoothing=smoothing)
    loss.backward()
    assert relative_error(loss, published[f"{case}/loss"]) < 1e-5
    assert relative_error(scores.grad / scale, published[f"{case}/grad_logits"]) < 1e-5


@pytest.mark.parametrize("case", ["mixup", "cutmix"])
def test_shares_of_classes_are_smoothed_into_the_targets_of_vifi_clip(published, relative_error, case):
    targets = published[f"{case}/targets"]
    shares = (targets - 0.1 / 12) / 0.9
    scale = published["logit_scale"]
    scores = (published[f"{case}/logits"] / scale).requires_grad_()
    loss = classification_loss(scores, scale, published["labels"], shares, smoothing=0.1)
    loss.backward()
    assert relative_error(loss, published[f"{case}/loss"]) < 1e-5
    assert relative_error(scores.grad / scale, published[f"{case}/grad_logits"]) < 1e-5


def test_gradients_reach_scores_and_scale():
    scores, scale = torch.tensor(SCORES, requires_grad=True), torch.tensor(SCALE, requires_grad=True)
    classification_loss(scores, scale, torch.tensor(LABELS)).backward()
    assert scores.grad.abs().sum() > 0
    assert scale.grad != 0
