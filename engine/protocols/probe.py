"""Linear probe: how well a linear classifier of frozen vectors tells classes apart.

A setting (the strength of a regularisation, or a learning rate) is tried on training videos that are held out, and
the classifier then fitted on all, as DINOv2 (Oquab et al., 2023) is evaluated.
"""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from engine.protocols.accuracy import topk_accuracy
from utils.config import ProbeConfig, check_choice
from utils.distributed import broadcast, gather, is_main, rank, world_size

logger = logging.getLogger(__name__)

MOMENTUM = 0.9  # of ``linear``
FLAT = 1e-6  # a dimension that varies less is left as it is


@dataclass(frozen=True)
class Examples:
    """N videos to learn from."""

    vectors: Tensor  # float32 [N, D], on the CPU
    labels: Tensor  # int64 [N]
    num_classes: int  # K

    def take(self, rows: Tensor) -> "Examples":
        """Some of them; bool or int64 ``rows``."""
        return Examples(self.vectors[rows], self.labels[rows], self.num_classes)


class LinearClassifier(NamedTuple):
    """One vector and one number a class."""

    weights: Tensor  # float32 [K, D]
    biases: Tensor  # float32 [K]; -inf: there was no video of this class to learn from

    def scores(self, vectors: Tensor) -> Tensor:
        """[N, D] -> [N, K]; NaN where a vector is."""
        return vectors @ self.weights.T + self.biases


class Fitted(NamedTuple):
    """A classifier and how its setting was chosen."""

    classifier: LinearClassifier
    value: float  # of the setting
    held_out_top1: float | None  # in percent; None: there was nothing to choose from, or by


class Solver(NamedTuple):
    """A way to fit, and the values of its one setting."""

    fit: Callable[..., list[LinearClassifier]]  # (examples, values, settings, seed, device) -> one for each value
    values: Sequence[float]  # that are tried, where the configuration names none
    usual: float  # where no video can be held out


def check_probe(labels: Tensor, settings: ProbeConfig) -> None:
    """See that there is something to fit on videos with these labels, int64 [N].

    Raises:
        ValueError: an unknown solver, or videos of fewer than two classes.
    """
    check_choice("probe.solver", settings.solver, SOLVERS)
    if (num_present := labels.unique().numel()) < 2:
        raise ValueError(f"a linear probe: expected training videos of at least 2 classes, found {num_present}")


def fit_probe(examples: Examples, settings: ProbeConfig, seed: int, device: torch.device) -> Fitted:
    """Choose the setting on held-out videos, then fit on all.

    The processes share the values between them; the main process alone fits the last time.

    Args:
        examples: the same on every process.

    Raises:
        ValueError: see ``check_probe``.
    """
    check_probe(examples.labels, settings)
    solver = SOLVERS[settings.solver]
    values, is_held = list(settings.values or solver.values), held_out(examples.labels, settings.held_out, seed)
    value, top1 = values[0], None
    if len(values) > 1 and is_held.any():
        value, top1 = _chosen(examples, is_held, values, settings, seed, device)
    elif len(values) > 1:
        value = solver.usual
        logger.warning("no class has 2 training videos to choose the setting of the probe by: it is %g", value)
    fitted = solver.fit(examples, [value], settings, seed, device)[0] if is_main() else None
    return Fitted(broadcast(fitted), value, top1)


def held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Which of N videos choose the setting, bool [N]: ``share`` of each class, at least one and never all of it."""
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = np.flatnonzero(labels.numpy() == label)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        is_held[np.random.default_rng((seed, label)).permutation(members)[:count]] = True
    return is_held


def _chosen(
    examples: Examples, is_held: Tensor, values: list[float], settings: ProbeConfig, seed: int, device: torch.device
) -> tuple[float, float]:
    """The value with the best top-1 on the held-out videos, of several with the smallest loss, and its top-1."""
    mine, held = values[rank() :: world_size()], examples.take(is_held)
    fitted = SOLVERS[settings.solver].fit(examples.take(~is_held), mine, settings, seed, device) if mine else []
    found = {value: _goodness(classifier, held) for value, classifier in zip(mine, fitted, strict=True)}
    goodness_of = {value: goodness for part in gather(found) for value, goodness in part.items()}
    listed = ", ".join(f"{value:.3g}: {goodness_of[value][0]:.2f}" for value in values)
    logger.info("top-1 of %d held-out videos by setting: %s", len(held.labels), listed)
    best = max(values, key=goodness_of.get)
    return best, goodness_of[best][0]


def _goodness(classifier: LinearClassifier, held: Examples) -> tuple[float, float]:
    """Top-1 in percent, and the negative loss."""
    scores = classifier.scores(held.vectors)
    return topk_accuracy(scores, held.labels, 1), -F.cross_entropy(scores, held.labels).nan_to_num(torch.inf).item()


# --- solvers


def fit_logistic(
    examples: Examples, values: Sequence[float], settings: ProbeConfig, seed: int, device: torch.device
) -> list[LinearClassifier]:
    """scikit-learn's logistic regression for each C, the inverse strength of its L2 regularisation."""
    return [_logistic(examples, cost, settings.steps) for cost in values]


def _logistic(examples: Examples, cost: float, steps: int) -> LinearClassifier:
    model = LogisticRegression(C=cost, max_iter=steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(examples.vectors.double().numpy(), examples.labels.numpy())
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        logger.info("C=%g: not at its optimum after %d steps (probe.steps)", cost, steps)
    weights, biases = (torch.from_numpy(values).float() for values in (model.coef_, model.intercept_))
    if len(model.classes_) == 2:  # one vector tells the second from the first
        weights, biases = (torch.cat([torch.zeros_like(part), part]) for part in (weights, biases))
    classifier = _nothing_learned(examples)
    classifier.weights[model.classes_], classifier.biases[model.classes_] = weights, biases
    return classifier


def _nothing_learned(examples: Examples) -> LinearClassifier:
    num_classes, width = examples.num_classes, examples.vectors.shape[1]
    return LinearClassifier(torch.zeros(num_classes, width), torch.full((num_classes,), -math.inf))


def fit_linear(
    examples: Examples, values: Sequence[float], settings: ProbeConfig, seed: int, device: torch.device
) -> list[LinearClassifier]:
    """A layer trained by SGD (momentum 0.9, cosine to zero) for each learning rate, all at once.

    Each dimension is first brought to mean 0 and variance 1, which the classifiers undo.
    """
    mean, std = examples.vectors.mean(dim=0), examples.vectors.std(dim=0)
    std = torch.where(std < FLAT, 1.0, std)
    vectors, labels = ((examples.vectors - mean) / std).to(device), examples.labels.to(device)
    layers = [nn.Linear(vectors.shape[1], examples.num_classes, device=device) for _ in values]
    for parameter in (parameter for layer in layers for parameter in layer.parameters()):
        nn.init.zeros_(parameter)
    groups = [{"params": list(layer.parameters()), "lr": rate} for layer, rate in zip(layers, values, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, settings.epochs * math.ceil(len(labels) / settings.batch_size)
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(labels), generator=generator).to(device).split(settings.batch_size):
            sum(F.cross_entropy(layer(vectors[rows]), labels[rows]) for layer in layers).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return [_undone(layer.cpu(), mean, std, examples) for layer in layers]


@torch.no_grad()
def _undone(layer: nn.Linear, mean: Tensor, std: Tensor, examples: Examples) -> LinearClassifier:
    """The layer for vectors as they were before."""
    classifier, present = _nothing_learned(examples), examples.labels.unique()
    weights = layer.weight / std
    classifier.weights[present] = weights[present]
    classifier.biases[present] = (layer.bias - weights @ mean)[present]
    return classifier


# Values of probe.solver. A C is tried at every half of a decade, as is a learning rate.
SOLVERS: dict[str, Solver] = {
    "logistic": Solver(fit_logistic, tuple(10.0 ** (half / 2) for half in range(-12, 11)), usual=1.0),
    "linear": Solver(fit_linear, tuple(10.0 ** (half / 2) for half in range(-8, 1)), usual=0.01),
}
