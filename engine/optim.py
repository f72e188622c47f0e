"""Parameter groups, optimizers, and the learning rate as a pure function of the epoch."""

import math
from collections.abc import Callable
from functools import partial

import torch

from modules.systems.base import Group
from utils.config import SolverConfig

# Betas (0.9, 0.999) and epsilon 1e-8 are torch's defaults and the published values. Fused: one kernel for all tensors.
OPTIMIZERS: dict[str, Callable[[SolverConfig], Callable[..., torch.optim.Optimizer]]] = {
    "adamw": lambda solver: partial(torch.optim.AdamW, fused=True),
    "adam": lambda solver: partial(torch.optim.Adam, fused=True),
    "sgd": lambda solver: partial(torch.optim.SGD, momentum=solver.momentum),
}


def build_optimizer(groups: list[Group], solver: SolverConfig) -> torch.optim.Optimizer:
    """An optimizer of the parameters that train; each group's ``lr_ratio`` is what ``set_lr`` multiplies.

    Weight decay applies to every parameter, as published.

    Raises:
        ValueError: nothing is trainable.
    """
    divided = [
        {
            "name": group.name,
            "lr_ratio": group.lr_ratio,
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
    return OPTIMIZERS[solver.optim](solver)(divided, lr=solver.lr, weight_decay=solver.weight_decay)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> dict[str, float]:
    """Give every group its share of ``lr``; returns the rates by group name."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_ratio"]
    return {f"lr_{group['name']}": group["lr"] for group in optimizer.param_groups}


def lr_schedule(solver: SolverConfig) -> Callable[[float], float]:
    """The lr of the head as a function of the epoch, which counts fractions."""
    warmup = solver.lr_warmup_step
    if solver.type == "cosine":
        return partial(cosine_lr, lr=solver.lr, epochs=solver.epochs, warmup=warmup)
    steps, factor = solver.lr_decay_step, solver.lr_decay_factor
    return partial(multistep_lr, lr=solver.lr, warmup=warmup, steps=steps, factor=factor)


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
