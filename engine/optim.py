"""Parameter groups, optimizers, and the learning rate as a pure function of the epoch."""

import math
from collections.abc import Callable
from functools import partial

import torch

from modules.systems.base import Group
from utils.config import SolverConfig, check_choice

# Values of solver.optim. Epsilon 1e-8 is torch's default and the published value. Fused: one kernel for all tensors.
OPTIMIZERS: dict[str, Callable[[SolverConfig], Callable[..., torch.optim.Optimizer]]] = {
    "adamw": lambda solver: partial(torch.optim.AdamW, betas=solver.betas, fused=True),
    "adam": lambda solver: partial(torch.optim.Adam, betas=solver.betas, fused=True),
    "sgd": lambda solver: partial(torch.optim.SGD, momentum=solver.momentum),
}
LR_FLOOR = 0.01  # of the rate: where timm's cosine ends in OST and ViFi-CLIP


def check_solver(solver: SolverConfig) -> None:
    """See that optimizer and schedule are known.

    Raises:
        ValueError: names the key and what is known.
    """
    check_choice("solver.optim", solver.optim, OPTIMIZERS)
    check_choice("solver.type", solver.type, SCHEDULES)


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
