"""What a training step keeps of its blocks for the backward pass, and what it computes again there."""

import torch
from torch import nn

from clip.blocks import FULL, LIGHT, MEDIUM, NONE, RECOMPUTE, set_recompute


def apply_recompute(system: nn.Module, name: str) -> None:
    """Set ``network.recompute`` in all blocks of a system, on the device where it stands.

    Args:
        system: with ``towers``, see ``modules.systems.base``.
        name: of ``clip.blocks.RECOMPUTE``; empty: see ``default_recompute``.

    Raises:
        ValueError: the image tower has no such option.
    """
    towers = system.towers
    towers.checkpoint_activations(name == FULL)  # which towers of one's own may do in their own way
    if not set_recompute(towers.image_tower, name or NONE) and name in (LIGHT, MEDIUM):
        raise ValueError(
            f"network.recompute {name}: expected none for this image tower, "
            "a ResNet or one with BatchNorms in its blocks"
        )
    set_recompute(system, name or default_recompute(towers.logit_scale.device))


def default_recompute(device: torch.device) -> str:
    """Light on a GPU, where memory limits the batch and what is computed again is little; else none."""
    return LIGHT if device.type == "cuda" else NONE


def keeping_less_than(name: str) -> str:
    """What keeps less than a name of ``RECOMPUTE``, as ``network.recompute=...``; empty: nothing does."""
    names = list(RECOMPUTE)
    less = names[names.index(name) + 1 :]
    return f"network.recompute={' or '.join(less)}" if less else ""
