"""One mean of the weights with which a run began and those at the end of each epoch, kept as the run goes on.

Averages over a trajectory forget less than its end: model soups (Wortsman et al., ICML 2022) and WiSE-FT (CVPR 2022)
have the idea, PromptSRC (Khattak et al., ICCV 2023) the bell over epochs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Values of solver.epoch_average: (place in the run, 0 to 1; mean and sigma of a bell over it) -> log of the weight.
EPOCH_WEIGHTS: dict[str, Callable[[float, float, float], float]] = {
    "uniform": lambda place, mean, sigma: 0.0,
    "gaussian": lambda place, mean, sigma: -(((place - mean) / sigma) ** 2) / 2,
}


@dataclass
class EpochAverage:
    """The mean so far, and what it is made of."""

    log_weight_at: Callable[[float], float]  # place in the run, 0 to 1 -> log of a weight, up to a constant
    mean: dict[str, Tensor]  # whole or sharded, as what it is the mean of
    log_weights: list[float]  # of the beginning, and of every finished epoch

    @classmethod
    def begin(cls, tensors: Mapping[str, Tensor], place: float, log_weight_at: Callable[[float], float]) -> Self:
        """The mean of one: the weights with which a run begins.

        Args:
            tensors: floating-point values by name; they are copied.
            place: in the run, 0 to 1.
        """
        return cls(log_weight_at, {name: value.clone() for name, value in tensors.items()}, [log_weight_at(place)])

    @torch.no_grad()
    def add(self, tensors: Mapping[str, Tensor], place: float) -> None:
        """Take in the weights of an epoch's end; what is equal in all of them stays so to the last bit."""
        self.log_weights.append(self.log_weight_at(place))
        share = float(torch.tensor(self.log_weights, dtype=torch.float64).softmax(dim=0)[-1])
        for name, value in self.mean.items():
            value.add_(tensors[name] - value, alpha=share)

    @contextmanager
    def in_place_of(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Context in which ``tensors``, a model's own, have the values of the mean."""
        before = {name: tensors[name].clone() for name in self.mean}
        _set(tensors, self.mean)
        try:
            yield
        finally:
            _set(tensors, before)


@torch.no_grad()
def _set(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        tensors[name].copy_(value)
