"""What goes into a system and comes out of it: named values, which nobody has to tell apart by shape or type."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Video(NamedTuple):
    """B clips as the image tower left them."""

    frames: Tensor  # [B, T', D], not normalised; T' = 1 where the tower makes one vector of a clip


class Batch(NamedTuple):
    """B clips, as pictures or as features of a cache, and what training matches them with."""

    clips: Tensor | None = None  # uint8 [B, T, 3, S, S]; float where they are mixed
    features: Tensor | None = None  # [B, T', D], in the place of clips
    labels: Tensor | None = None  # int64 [B]
    shares: Tensor | None = None  # [B, K] of classes in mixed clips, in the place of labels
    texts: Tensor | None = None  # token ids [B, K, L] of K texts a clip, in their order, in the place of labels
    lengths: Tensor | None = None  # int64 [B]: frames of a clip that are real, the rest is padding; None: all are


class Draws(NamedTuple):
    """Where a training step takes its random choices from."""

    generator: torch.Generator  # on the CPU; seeded for this step
    shared: torch.Generator | None = None  # the same, alike on all processes whatever ``solver.draws`` says


class Losses(NamedTuple):
    """What a training step yields."""

    total: Tensor  # a scalar, to be minimised
    reported: dict[str, Tensor]  # parts of the loss and what else is worth a curve, by name, detached


class Group(NamedTuple):
    """Parameters that learn alike."""

    name: str
    parameters: list[nn.Parameter]
    lr_ratio: float  # of the learning rate
    weight_decay: float | None = None  # None: ``solver.weight_decay``
