"""Parameter groups, optimizers, and the learning rate as a pure function of the epoch."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from utils.config import SolverConfig

# Betas (0.9, 0.999) and epsilon 1e-8 are torch's defaults and the published values. Fused: one kernel for all tensors.
OPTIMIZERS: dict[str, Callable[[list, SolverConfig], torch.optim.Optimizer]] = {
    "adamw": lambda groups, solver: torch.optim.AdamW(
        groups, lr=solver.lr, weight_decay=solver.weight_decay, fused=True
    ),
    "adam": lambda groups, solver: torch.optim.Adam(groups, lr=solver.lr, weight_decay=solver.weight_decay, fused=True),
    "sgd": lambda groups, solver: torch.optim.SGD(
        groups, lr=solver.lr, momentum=solver.momentum, weight_decay=solver.weight_decay
    ),
}


def build_optimizer(model: nn.Module, solver: SolverConfig) -> torch.optim.Optimizer:
    """As published CLIP's parameters learn at ``clip_ratio`` times the lr, the head's at the lr.

    Weight decay applies to every parameter. Each group's ``lr_ratio`` is what ``set_lr`` multiplies.

    Raises:
        ValueError: nothing is trainable.
    """
    groups = [
        {
            "name": name,
            "lr_ratio": ratio,
            "params": [p for p in part.parameters() if p.requires_grad and (p.ndim == 0) == is_scalar],
        }
        # Scalars apart, since a sharded model keeps them whole, and a fused optimizer takes one kind at a time; last,
        # since the loss scaler looks at the first gradient to see whether the model is sharded.
        for is_scalar in (False, True)
        for name, part, ratio in (("clip", model.clip, solver.clip_ratio), ("head", model.head, 1.0))
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("nothing to train: the towers are fixed and the head has no parameters")
    return OPTIMIZERS[solver.optim](groups, solver)


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
