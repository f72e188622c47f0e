"""Parameter groups, optimizers, and the learning rate as a pure function of the epoch."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from modules.systems.base import Group
from utils.config import SolverConfig, check_choice
from utils.weights.epoch_average import EPOCH_WEIGHTS

# Values of solver.optim. Epsilon 1e-8 is torch's default and the published value. Fused: one kernel for all tensors.
OPTIMIZERS: dict[str, Callable[[SolverConfig], Callable[..., torch.optim.Optimizer]]] = {
    "adamw": lambda solver: partial(torch.optim.AdamW, betas=solver.betas, fused=True),
    "adamw_transformers": lambda solver: partial(TransformersAdamW, betas=solver.betas),
    "adam": lambda solver: partial(torch.optim.Adam, betas=solver.betas, fused=True),
    "sgd": lambda solver: partial(torch.optim.SGD, momentum=solver.momentum),
}
LR_FLOOR = 0.01  # of the rate: where timm's cosine ends in OST and ViFi-CLIP


def check_solver(solver: SolverConfig) -> None:
    """See that optimizer, schedule and average are known.

    Raises:
        ValueError: names the key and what is known.
    """
    check_choice("solver.optim", solver.optim, OPTIMIZERS)
    check_choice("solver.type", solver.type, SCHEDULES)
    if solver.epoch_average:
        check_choice("solver.epoch_average", solver.epoch_average, EPOCH_WEIGHTS)


def build_optimizer(groups: list[Group], solver: SolverConfig) -> torch.optim.Optimizer:
    """An optimizer of the parameters that train; each group's ``lr_ratio`` is what ``set_lr`` multiplies.

    Weight decay applies to every parameter, as published, but in groups that have one of their own.

    Raises:
        ValueError: nothing is trainable.
    """
    divided = [
        {
            "name": group.name,
            "lr_ratio": group.lr_ratio,
            "weight_decay": solver.weight_decay if group.weight_decay is None else group.weight_decay,
            "params": [p for p in group.parameters if p.requires_grad and (p.ndim == 0) == is_scalar],
        }
        # Scalars apart, since a sharded model keeps them whole, and a fused optimizer takes one kind at a time; last,
        # since the loss scaler looks at the first gradient to see whether the model is sharded.
        for is_scalar in (False, True)
        for group in groups
    ]
    divided = [group for group in divided if group["params"]]
    if not divided:
        raise ValueError("nothing to train: the towers are fixed and the head has no parameters")
    return OPTIMIZERS[solver.optim](solver)(divided, lr=solver.lr)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> dict[str, float]:
    """Give every group its share of ``lr``; returns the rates by group name."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_ratio"]
    return {f"lr_{group['name']}": group["lr"] for group in optimizer.param_groups}


def lr_schedule(solver: SolverConfig) -> Callable[[float], float]:
    """The lr of the head as a function of the epoch, which counts fractions."""
    return SCHEDULES[solver.type](solver)


def cosine_lr(epoch: float, lr: float, epochs: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero; ``epoch`` counts fractions (published schedule)."""
    if epoch < warmup:
        return lr * epoch / warmup
    return lr / 2 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-9)))


def multistep_lr(epoch: float, lr: float, warmup: float, steps: tuple[float, ...], factor: float) -> float:
    """Linear warm-up, then a constant rate times ``factor`` after each of ``steps`` (epochs)."""
    if epoch < warmup:
        return lr * epoch / warmup
    return lr * factor ** sum(epoch >= step for step in steps)


def timm_cosine_lr(epoch: float, lr: float, epochs: float, warmup: float) -> float:
    """Half a cosine over all epochs, to a hundredth of ``lr``, and in the place of its start a linear warm-up.

    timm's schedule without ``warmup_prefix``, with which OST and ViFi-CLIP train: the cosine falls from the first step
    on, so the rate drops where the warm-up ends (with 5 of 10 epochs from the full rate to half of it).
    """
    if epoch < warmup:
        return lr * epoch / warmup
    return lr * (LR_FLOOR + (1 - LR_FLOOR) / 2 * (1 + math.cos(math.pi * epoch / epochs)))


def _cosine(solver: SolverConfig) -> Callable[[float], float]:
    return partial(cosine_lr, lr=solver.lr, epochs=solver.epochs, warmup=solver.lr_warmup_step)


def _timm_cosine(solver: SolverConfig) -> Callable[[float], float]:
    return partial(timm_cosine_lr, lr=solver.lr, epochs=solver.epochs, warmup=solver.lr_warmup_step)


def _multistep(solver: SolverConfig) -> Callable[[float], float]:
    steps, factor = solver.lr_decay_step, solver.lr_decay_factor
    return partial(multistep_lr, lr=solver.lr, warmup=solver.lr_warmup_step, steps=steps, factor=factor)


# Values of solver.type: settings -> the lr at an epoch with its fraction.
SCHEDULES: dict[str, Callable[[SolverConfig], Callable[[float], float]]] = {
    "cosine": _cosine,
    "multistep": _multistep,
    "timm_cosine": _timm_cosine,
}


class TransformersAdamW(torch.optim.Optimizer):
    """AdamW as the library transformers had it up to version 4, with which TVTSv2 was trained.

    torch's divides the root of the mean square by its bias correction and adds epsilon then. Here epsilon is added to
    the root as it is, so it weighs more in the first updates (at the first as much as 3.2e-5 there), and weights decay
    after the step, in proportion to what they have become.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change the parameters that have gradients; ``closure`` as of torch's optimizers."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._change(parameters, group)
        return loss

    def _change(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        """One update of some parameters of a group, all together."""
        states = [self._state_of(parameter) for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        first, second = group["betas"]
        torch._foreach_mul_(means, first)
        torch._foreach_add_(means, gradients, alpha=1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        steps = []
        for state in states:
            state["step"] += 1
            count = state["step"].item()  # on the CPU, so nobody waits
            steps.append(-group["lr"] * math.sqrt(1 - second**count) / (1 - first**count))
        torch._foreach_addcdiv_(parameters, means, roots, steps)
        if group["weight_decay"]:
            torch._foreach_add_(parameters, parameters, alpha=-group["lr"] * group["weight_decay"])

    def _state_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """Under the names, and in the types, of torch's AdamW, so that checkpoints are checked alike."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state
