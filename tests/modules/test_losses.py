"""The loss: its parts and their weights."""

import math

import pytest
import torch

from modules.objectives.classify import video_loss
from modules.video_clip import VideoOutput

SCALE = 2.0
EXPERT = [[0.5, 0.0, -0.5], [0.1, 0.2, 0.3]]
MERGED = [[0.0, 0.4, 0.0], [1.0, 0.0, -1.0]]
LABELS = [0, 2]


def output(routes: list, feature_gap: float = 0.5) -> VideoOutput:
    frame_features = torch.randn(2, 4, 3)
    features = torch.stack([frame_features + 9, frame_features + feature_gap][: len(routes)])
    return VideoOutput(torch.tensor(routes), features, frame_features, torch.tensor(SCALE))


def cross_entropy(logits: list) -> float:
    losses = []
    for row, label in zip(logits, LABELS, strict=True):
        shares = [math.exp(SCALE * value) for value in row]
        losses.append(-math.log(shares[label] / sum(shares)))
    return sum(losses) / len(losses)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    loss, parts = video_loss(output([EXPERT, MERGED]), torch.tensor(LABELS))
    expected = {"expert_ce": cross_entropy(EXPERT), "merged_ce": cross_entropy(MERGED), "feature_mse": 0.25}
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(expected, rel=1e-5)
    total = expected["expert_ce"] + 0.5 * expected["merged_ce"] + 0.1 * 0.25
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_weights_of_the_parts_can_be_set():
    labels = torch.tensor(LABELS)
    loss, _ = video_loss(output([EXPERT, MERGED]), labels, expert=3.0, merged=0.0, feature_mse=2.0)
    assert float(loss) == pytest.approx(3 * cross_entropy(EXPERT) + 2 * 0.25, rel=1e-5)


def test_one_route_has_one_part():
    loss, parts = video_loss(output([EXPERT]), torch.tensor(LABELS))
    assert list(parts) == ["expert_ce"]
    assert float(loss) == pytest.approx(cross_entropy(EXPERT), rel=1e-5)


def test_parts_carry_no_graph():
    example = output([EXPERT, MERGED])
    example.logits.requires_grad_()
    loss, parts = video_loss(example, torch.tensor(LABELS))
    assert loss.requires_grad
    assert not any(part.requires_grad for part in parts.values())
