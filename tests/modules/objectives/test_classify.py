"""Cross-entropy against a computation by hand."""

import math

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


def test_gradients_reach_scores_and_scale():
    scores, scale = torch.tensor(SCORES, requires_grad=True), torch.tensor(SCALE, requires_grad=True)
    classification_loss(scores, scale, torch.tensor(LABELS)).backward()
    assert scores.grad.abs().sum() > 0
    assert scale.grad != 0
