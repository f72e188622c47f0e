"""In which number format the sum of what the blocks of an image tower make runs through them."""

from torch import nn

from clip.blocks import Transformer

FP32, BF16 = "fp32", "bf16"
RESIDUAL = (FP32, BF16)  # values of network.residual


def apply_residual(system: nn.Module, name: str) -> None:
    """Set ``network.residual`` in the image tower; ``bf16`` means something where a run computes in bf16.

    Args:
        system: with ``towers``, see ``modules.systems.base``.
        name: of ``RESIDUAL``.

    Raises:
        ValueError: the image tower has no such option.
    """
    stacks = [module for module in system.towers.image_tower.modules() if isinstance(module, Transformer)]
    if name == BF16 and not stacks:
        raise ValueError(
            "network.residual bf16: expected fp32 for this image tower (a ResNet, or one of another library)"
        )
    for stack in stacks:
        stack.has_bf16_stream = name == BF16
