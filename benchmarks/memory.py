"""What a block of a transformer keeps for its backward pass, in bytes: python -m benchmarks.memory

Counted on the CPU, on real shapes: every storage that an operation of the forward pass made, and that is still there
after it. Hooks on saved tensors would miss what selective recomputation holds by itself. Attention is the fused one,
as on a GPU.
"""

import sys
from collections.abc import Callable, Mapping
from itertools import product
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import models
from clip.blocks import RECOMPUTE, ResidualAttentionBlock, set_recompute
from clip.model import CLIPConfig
from clip.spacetime import SpaceTimeBlock

MIB, GIB = 2**20, 2**30
FRAMES = 8  # of a clip
PRECISIONS = ("fp32", "bf16")
BATCHES = {"ViT-B/16": 64, "ViT-L/14": 48}  # videos, by published recipe
NOTE = """What one block keeps of a clip of 8 frames for the backward pass, by `network.recompute`: its input and what
the forward pass makes of it, without weights. Counted on a CPU by `python -m benchmarks.memory`, with fused attention
as on a GPU. `tower` is computed from it: times the blocks and the videos of the published batch (B/16: 64, L/14: 48);
weights, gradients and optimizer come on top. What it costs in time was not measured on a GPU.
"""


class MadeStorages(TorchDispatchMode):
    """The storages that operations make within this context."""

    def __init__(self):
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def alive(self, *others: Tensor) -> int:
        """Bytes of those that are still there, and of other tensors, each once; a view of weights counts as these."""
        sizes = {key: size for key, (reference, size) in self._made.items() if not reference.expired()}
        storages = [tensor.untyped_storage() for tensor in others]
        return sum((sizes | {storage._cdata: storage.nbytes() for storage in storages}).values())


def kept_bytes(compute: Callable[[Tensor], Tensor], clips: Tensor, is_half: bool) -> int:
    """Bytes that ``compute`` keeps of each clip for the backward pass: its input counts, its result does not.

    Args:
        clips: [2, ...], fp32.
    """
    alive = []
    for x in (clips[:1], clips):  # of one and of two: the difference is without weights
        x = x.clone().requires_grad_()
        half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half)
        fused = mock.patch("clip.blocks._is_slow_in_fused_backward", _always_fused)
        with fused, half, MadeStorages() as made:
            result = compute(x)
        alive.append(made.alive(x) - result.untyped_storage().nbytes())
    return alive[1] - alive[0]


def _always_fused(query: Tensor, key: Tensor) -> bool:  # not a mock, which would keep what it is called with
    return False


def image_block(config: CLIPConfig) -> tuple[nn.Module, Callable[[Tensor], Tensor], Tensor]:
    """A block of an image tower, how it runs, and the tokens of two clips."""
    block = ResidualAttentionBlock(config.vision_width, config.vision_heads, "quick_gelu", 0.0).train()
    tokens = 1 + (config.image_size // config.patch_size) ** 2
    return block, lambda x: block(x.flatten(0, 1)), torch.randn(2, FRAMES, tokens, config.vision_width)


def space_time_block(config: CLIPConfig) -> tuple[nn.Module, Callable[[Tensor], Tensor], Tensor]:
    """The same of a space-time tower."""
    block = SpaceTimeBlock(config.vision_width, config.vision_heads, "quick_gelu", 0.0).train()
    tokens = 1 + FRAMES * (config.image_size // config.patch_size) ** 2
    return block, lambda x: block(x, FRAMES), torch.randn(2, tokens, config.vision_width)


KINDS = {"frames": image_block, "space-time": space_time_block}


def section(configs: Mapping[str, CLIPConfig], decimals: int = 1) -> str:
    """The table of the benchmark page, of towers by name."""
    head = ["block", *(f"{name}, MiB" for name in RECOMPUTE), *(f"tower {name}, GiB" for name in RECOMPUTE)]
    lines = [NOTE, f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (name, config), (kind, build), precision in product(configs.items(), KINDS.items(), PRECISIONS):
        block, compute, clips = build(config)
        kept = []
        for recompute in RECOMPUTE:
            set_recompute(block, recompute)
            kept.append(kept_bytes(compute, clips, precision == "bf16"))
        of_block = [f"{size / MIB:.{decimals}f}" for size in kept]
        of_tower = [f"{config.vision_layers * BATCHES[name] * size / GIB:.{decimals}f}" for size in kept]
        lines.append(f"| {' | '.join([f'{name}, {kind}, {precision}', *of_block, *of_tower])} |")
    return "\n".join(lines) + "\n"


TOWERS = {"ViT-B/16": models.VIT_B16, "ViT-L/14": models.VIT_L14}

if __name__ == "__main__":
    sys.stdout.write(section(TOWERS))
