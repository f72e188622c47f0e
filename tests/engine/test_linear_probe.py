"""Linear classifiers on vectors: what they learn, and how the one setting is chosen."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from engine.protocols import probe
from engine.protocols.probe import SOLVERS, Examples, fit_probe, held_out
from utils.config import ProbeConfig

CPU = torch.device("cpu")
FEW = {"epochs": 30, "batch_size": 16}


def blobs(
    num_videos: int = 60, num_classes: int = 3, present: tuple[int, ...] = (0, 1, 2), noise: float = 0.5
) -> Examples:
    """Vectors around one centre a class, far from zero."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(present)[torch.arange(num_videos) % len(present)]
    centres = torch.randn(num_classes, 8, generator=generator)
    return Examples(10 + centres[labels] + noise * torch.randn(num_videos, 8, generator=generator), labels, num_classes)


def top1(classifier, examples: Examples) -> float:
    return (classifier.scores(examples.vectors).argmax(dim=1) == examples.labels).double().mean().item()


def test_logistic_regression_is_that_of_scikit_learn():
    examples = blobs(noise=3.0)
    fitted = fit_probe(examples, ProbeConfig(values=(0.3,)), 0, CPU)
    model = LogisticRegression(C=0.3, max_iter=1000).fit(examples.vectors.double().numpy(), examples.labels.numpy())
    expected = torch.from_numpy(model.decision_function(examples.vectors.double().numpy())).float()
    torch.testing.assert_close(fitted.classifier.scores(examples.vectors), expected, rtol=1e-3, atol=1e-3)
    assert (fitted.value, fitted.held_out_top1) == (0.3, None)


@pytest.mark.parametrize("solver", SOLVERS)
def test_classes_that_are_apart_are_told_apart(solver):
    examples = blobs()
    fitted = fit_probe(examples, ProbeConfig(solver=solver, **FEW), 0, CPU)
    assert top1(fitted.classifier, examples) == 1.0
    assert fitted.held_out_top1 == 100.0
    assert fitted.value in SOLVERS[solver].values


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("present", [(0, 2), (3, 1, 0)])
def test_a_class_without_videos_is_never_the_answer(solver, present):
    examples = blobs(num_classes=4, present=present, noise=0.2)
    classifier = fit_probe(examples, ProbeConfig(solver=solver, **FEW), 0, CPU).classifier
    assert top1(classifier, examples) == 1.0
    for label in set(range(4)) - set(present):
        assert (classifier.scores(examples.vectors)[:, label] == -math.inf).all()


def test_two_classes_have_the_probabilities_of_scikit_learn():
    examples = blobs(num_classes=2, present=(0, 1), noise=3.0)
    classifier = fit_probe(examples, ProbeConfig(values=(1.0,)), 0, CPU).classifier
    model = LogisticRegression(max_iter=1000).fit(examples.vectors.double().numpy(), examples.labels.numpy())
    expected = torch.from_numpy(model.predict_proba(examples.vectors.double().numpy())).float()
    torch.testing.assert_close(classifier.scores(examples.vectors).softmax(dim=1), expected, rtol=1e-3, atol=1e-4)


def test_a_trained_layer_is_one_for_vectors_as_they_were():
    """The layer learns from vectors of mean 0 and variance 1; on these it is trained by hand here."""
    examples, settings = blobs(num_videos=16, noise=2.0), ProbeConfig(solver="linear", values=(0.1,), epochs=5)
    classifier = fit_probe(examples, settings, 0, CPU).classifier
    vectors = (examples.vectors - examples.vectors.mean(dim=0)) / examples.vectors.std(dim=0)
    weights, biases = torch.zeros(3, 8, requires_grad=True), torch.zeros(3, requires_grad=True)
    velocities = [torch.zeros(3, 8), torch.zeros(3)]
    for step in range(5):  # one batch an epoch
        loss = F.cross_entropy(vectors @ weights.T + biases, examples.labels)
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * step / 5))
        for parameter, velocity, gradient in zip(
            (weights, biases), velocities, torch.autograd.grad(loss, (weights, biases)), strict=True
        ):
            velocity.mul_(0.9).add_(gradient)
            parameter.data -= rate * velocity
    expected = (vectors @ weights.T + biases).detach()
    torch.testing.assert_close(classifier.scores(examples.vectors), expected, rtol=1e-4, atol=1e-4)


def test_rates_are_trained_side_by_side_without_a_say_in_each_other():
    examples, settings = blobs(), ProbeConfig(solver="linear", **FEW)
    together = SOLVERS["linear"].fit(examples, [0.001, 0.1], settings, 0, CPU)
    alone = SOLVERS["linear"].fit(examples, [0.1], settings, 0, CPU)
    torch.testing.assert_close(together[1].weights, alone[0].weights)


# --- the choice


def test_a_share_of_each_class_is_held_out_and_never_all_of_it():
    labels = torch.tensor([0] * 40 + [1] * 2 + [2] + [3] * 12)
    is_held = held_out(labels, 0.25, seed=5)
    assert [int(is_held[labels == label].sum()) for label in range(4)] == [10, 1, 0, 3]
    assert torch.equal(is_held, held_out(labels, 0.25, seed=5))
    assert not torch.equal(is_held, held_out(labels, 0.25, seed=6))


def test_the_value_that_is_best_on_held_out_videos_is_chosen_and_all_are_learned_from(monkeypatch):
    asked = []

    def fit(examples, values, settings, seed, device):
        asked.append((len(examples.labels), tuple(values)))
        costs = [1.0 if value == 3.0 else 1e-9 for value in values]
        return SOLVERS["logistic"].fit(examples, costs, settings, seed, device)

    monkeypatch.setitem(SOLVERS, "as told", probe.Solver(fit, (1.0, 2.0, 3.0, 4.0), usual=1.0))
    fitted = fit_probe(blobs(num_videos=300, noise=2.0), ProbeConfig(solver="as told", held_out=0.5), 0, CPU)
    assert fitted.value == 3.0
    assert asked == [(150, (1.0, 2.0, 3.0, 4.0)), (300, (3.0,))]


def test_of_values_with_the_same_top1_the_one_with_the_smallest_loss_is_chosen():
    fitted = fit_probe(blobs(noise=0.1), ProbeConfig(values=(1e-6, 1e-3, 10.0)), 0, CPU)
    assert (fitted.held_out_top1, fitted.value) == (100.0, 10.0)


def test_processes_share_the_values(monkeypatch):
    examples, settings, asked = blobs(noise=3.0), ProbeConfig(values=(1e-4, 1e-2, 1.0)), []
    whole = fit_probe(examples, settings, 0, CPU)
    fit = SOLVERS["logistic"].fit

    def noted(examples, values, *rest):
        asked.append(list(values))
        return fit(examples, values, *rest)

    monkeypatch.setitem(SOLVERS, "logistic", SOLVERS["logistic"]._replace(fit=noted))
    parts = []
    monkeypatch.setattr(probe, "world_size", lambda: 2)
    monkeypatch.setattr(probe, "gather", lambda part: parts.append(part) or [part, {1e-2: (-1.0, 0.0)}])
    monkeypatch.setattr(probe, "rank", lambda: 0)
    fit_probe(examples, settings, 0, CPU)
    monkeypatch.setattr(probe, "rank", lambda: 1)
    monkeypatch.setattr(probe, "gather", lambda part: [parts[0], part])
    assert fit_probe(examples, settings, 0, CPU).value == whole.value
    assert asked[0] == [1e-4, 1.0]
    assert asked[2] == [1e-2]


def test_without_a_held_out_video_the_usual_value_is_taken_with_a_warning(caplog):
    examples = blobs(num_videos=3)
    with caplog.at_level(logging.WARNING):
        fitted = fit_probe(examples, ProbeConfig(), 0, CPU)
    assert (fitted.value, fitted.held_out_top1) == (1.0, None)
    assert "no class has 2 training videos" in caplog.text


def test_videos_of_one_class_and_unknown_solvers_are_errors():
    with pytest.raises(ValueError, match="training videos of at least 2 classes, found 1"):
        fit_probe(blobs(present=(1,)), ProbeConfig(), 0, CPU)
    with pytest.raises(ValueError, match=r"probe\.solver: expected one of logistic, linear, found 'svm'"):
        fit_probe(blobs(), ProbeConfig(solver="svm"), 0, CPU)


def test_a_fit_that_does_not_end_says_so(caplog):
    with caplog.at_level(logging.INFO):
        fit_probe(blobs(noise=3.0), ProbeConfig(values=(1e4,), steps=1), 0, CPU)
    assert "C=10000: not at its optimum after 1 steps" in caplog.text
