"""What is added to a loss against forgetting, against NumPy's arithmetic."""

import numpy as np
import pytest
import torch

from modules.objectives.keep import cosine_distance, head_mse, random_anchors, relations_loss, teacher_momentum


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three clips of four frames, and a teacher's, neither of unit length."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(3, 4, 16, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher.requires_grad_()


def arrays(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_the_cosine_distance_is_the_squared_distance_of_unit_vectors_and_the_teacher_does_not_learn(pair):
    student, teacher = arrays(*pair)
    loss = cosine_distance(*pair)
    assert loss.item() == pytest.approx(((unit(student) - unit(teacher)) ** 2).sum(axis=-1).mean(), rel=1e-5)
    loss.backward()
    assert pair[0].grad.abs().max() > 0
    assert pair[1].grad is None


def test_both_sides_of_the_head_learn_from_its_mean_square(pair):
    after, before = arrays(*pair)
    loss = head_mse(*pair)
    assert loss.item() == pytest.approx(((after - before) ** 2).mean(), rel=1e-5)
    loss.backward()
    for tensor, difference in zip(pair, (after - before, before - after), strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), 2 * difference / after.size, rtol=1e-4, atol=1e-7)


def test_relations_are_compared_by_the_teacher_s_shares_and_the_teacher_does_not_learn(pair):
    anchors = random_anchors(torch.Generator().manual_seed(1), 7, pair[0])
    loss = relations_loss(*pair, anchors, 0.1)
    found, expected = (softmax(unit(rows).reshape(-1, 16) @ arrays(anchors)[0].T / 0.1) for rows in arrays(*pair))
    assert loss.item() == pytest.approx((expected * np.log(expected / found)).sum(axis=1).mean(), rel=1e-4)
    assert loss > 0.1
    loss.backward()
    assert pair[0].grad.abs().max() > 0
    assert pair[1].grad is None
    assert relations_loss(pair[0], 5 * pair[0], anchors, 0.1).abs() < 1e-6  # of a length, nothing is asked


def test_anchors_are_unit_vectors_of_the_generator_s_draws():
    like = torch.zeros(2, 3, 512)
    anchors = random_anchors(torch.Generator().manual_seed(5), 200, like)
    assert anchors.shape == (200, 512)
    torch.testing.assert_close(anchors.norm(dim=1), torch.ones(200))
    assert torch.equal(anchors, random_anchors(torch.Generator().manual_seed(5), 200, like))
    assert not torch.equal(anchors, random_anchors(torch.Generator().manual_seed(6), 200, like))
    assert (anchors @ anchors.T).fill_diagonal_(0).abs().max() < 0.3  # in no direction more than in others
    assert anchors.mean(dim=0).norm() < 0.12


def test_a_teacher_keeps_more_and_more_of_itself():
    assert teacher_momentum(0, 0.9) == pytest.approx(0.9)
    assert teacher_momentum(0.25, 0.9) == pytest.approx(1 - 0.1 * (1 + np.cos(np.pi / 4)) / 2)
    assert teacher_momentum(0.5, 0.9) == pytest.approx(0.95)
    assert teacher_momentum(1, 0.9) == pytest.approx(1)
