"""The gate of temporal feature modulation, equal to the paper written out."""

import math

import numpy as np
import pytest
import torch

from modules.modulation import PUBLISHED_TEMPERATURE, fitted_temperature, modulation_gate, nearest_distance


def slow_gate(frames: np.ndarray, classes: np.ndarray, trained: np.ndarray, count: int, temperature: float) -> list:
    """Paper, section 3.4, one clip and one class at a time."""
    gates = []
    for clip in frames:
        query = sum(clip) / len(clip)
        query = query / np.sqrt((query**2).sum())
        candidates = sorted(range(len(classes)), key=lambda k: -float(query @ classes[k]))[:count]
        known = sorted(range(len(trained)), key=lambda k: -float(query @ trained[k]))[:count]
        best = [max(float(classes[k] @ trained[j]) for j in known) for k in candidates]
        gates.append(math.exp(-(1 - sum(best) / len(best)) / temperature))
    return gates


def unit_rows(rng: np.random.Generator, rows: int, width: int = 12) -> np.ndarray:
    # Rows share a direction: unrelated ones would give gates that are all but zero.
    table = rng.normal(size=(rows, width)) * 0.4 + np.linspace(1, 2, width)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


@pytest.mark.parametrize(("num_classes", "num_trained"), [(20, 30), (3, 30), (20, 2), (1, 1), (5, 5)])
def test_the_modulation_gate_equals_a_slow_loop(num_classes, num_trained):
    rng = np.random.default_rng(num_classes * 100 + num_trained)
    frames, classes, trained = rng.normal(size=(6, 4, 12)), unit_rows(rng, num_classes), unit_rows(rng, num_trained)
    found = modulation_gate(*(torch.from_numpy(x) for x in (frames, classes, trained)), 5, 0.3)
    expected = slow_gate(frames, classes, trained, 5, 0.3)
    assert max(expected) > 0.05
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_the_gate_is_one_where_test_and_training_classes_are_the_same():
    rng = np.random.default_rng(0)
    classes = torch.from_numpy(unit_rows(rng, 9)).float()
    gate = modulation_gate(torch.randn(7, 4, 12), classes[torch.randperm(9)], classes)
    torch.testing.assert_close(gate, torch.ones(7), rtol=1e-5, atol=1e-5)


def cone(width: float, count: int, seed: int, dim: int = 32) -> torch.Tensor:
    """Classes around one direction, unit float64 [count, dim]; the wider, the further apart."""
    noise = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(torch.ones(dim) + width * noise, dim=-1)


@pytest.mark.parametrize("width", [0.1, 1.0, 10.0])
def test_the_temperature_is_the_mean_distance_to_the_nearest_other_class(width):
    classes = cone(width, 20, seed=1)
    nearest = [max(float(one @ other) for j, other in enumerate(classes) if j != i) for i, one in enumerate(classes)]
    expected = 1 - sum(nearest) / len(nearest)
    assert float(fitted_temperature(PUBLISHED_TEMPERATURE, classes)) == pytest.approx(expected, rel=1e-9)
    assert float(fitted_temperature(3 * PUBLISHED_TEMPERATURE, classes)) == pytest.approx(3 * expected, rel=1e-9)


def test_one_class_and_equal_classes_leave_the_temperature_as_it_is():
    one = torch.nn.functional.normalize(torch.randn(1, 8), dim=-1)
    assert float(fitted_temperature(0.05, one)) == 0.05
    assert float(fitted_temperature(0.05, one.expand(4, -1))) == pytest.approx(0.05)


@pytest.mark.parametrize("width", [0.1, 0.3, 1.0])
def test_a_class_as_far_away_as_training_classes_are_from_each_other_has_the_gate_1_over_e(width):
    trained = cone(width, 12, seed=2)
    cosine, nearest = 1 - nearest_distance(trained), trained[3]
    # Away from the nearest one by that much, and from all others by more.
    away = cone(width, 500, seed=3)
    across = torch.nn.functional.normalize(away - (away @ nearest)[:, None] * nearest, dim=-1)
    asked = cosine * nearest + (1 - cosine**2).sqrt() * across
    asked = next(row for row in asked if (row @ trained.T).argmax() == 3)[None]
    frames = nearest.expand(1, 4, -1)
    gate = modulation_gate(frames, asked, trained, 12, fitted_temperature(0.05, trained))
    assert float(gate) == pytest.approx(math.exp(-1), rel=1e-6)


def test_the_gate_says_the_same_in_a_cone_of_any_width():
    """Test classes next to training classes are as trusted in a wide space as in a narrow one."""
    frames, gates = torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(2)).double(), {}
    for width in (0.2, 0.5):
        trained, asked = cone(width, 12, seed=4), cone(width, 12, seed=5)
        for name, temperature in (("fitted", fitted_temperature(0.5, trained)), ("fixed", 0.5)):
            gates[name, width] = modulation_gate(frames, asked, trained, 5, temperature).log().mean()
    assert gates["fitted", 0.2] == pytest.approx(float(gates["fitted", 0.5]), rel=0.2)
    assert abs(gates["fixed", 0.5]) > 3 * abs(gates["fixed", 0.2])
