"""What training keeps in memory, computed without a GPU: python -m benchmarks.memory

Storages that operations make are counted while they are there; hooks on saved tensors would miss what selective
recomputation holds by itself. Tensors are torch's fake ones, which have shapes alone. Attention is the fused one, as on
a GPU.
"""

import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import product
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import models
from clip.blocks import RECOMPUTE, ResidualAttentionBlock, set_recompute
from clip.model import CLIPConfig
from clip.spacetime import SpaceTimeBlock
from modules.running.residual import FP32, RESIDUAL, apply_residual
from modules.systems.base import Batch, Draws

MIB, GIB = 2**20, 2**30
FRAMES = 8  # of a clip
PRECISIONS = ("fp32", "bf16")
BATCHES = {"ViT-B/16": 64, "ViT-L/14": 48}  # videos, by published recipe
MOMENTS = 2  # of AdamW, each as large as the weights
NOTE = """What one block keeps of a clip of 8 frames for the backward pass, by `network.recompute`: its input and what
the forward pass makes of it, without weights. Counted on a CPU by `python -m benchmarks.memory`, with fused attention
as on a GPU. `tower` is computed from it: times the blocks and the videos of the published batch (B/16: 64, L/14: 48).
"""
NOTE_OF_STEP = """
The most that a whole training step of MoTE needs with that batch, in bf16 and not compiled, counted in the same way
without computing anything: weights, AdamW's moments, and whatever forward and backward pass have at a time. What it
costs in speed was not measured.
"""


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of storages that operations make within this context, until they are let go."""

    def __init__(self):
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.now = self.most = 0  # bytes

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.add(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)))
        return result

    def add(self, *tensors: Tensor) -> None:
        """Count the storages of tensors, too, each once; a view of weights counts as these."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def kept_bytes(compute: Callable[[Tensor], Tensor], clips: Tensor, is_half: bool) -> int:
    """Bytes that ``compute`` keeps of each clip for the backward pass: its input counts, its result does not.

    Args:
        clips: [2, ...], fp32.
    """
    alive = []
    for x in (clips[:1], clips):  # of one and of two: the difference is without weights
        x = x.clone().requires_grad_()
        half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half)
        with fused_attention(), half, LiveStorages() as live:
            live.add(x)
            result = compute(x)
        alive.append(live.now - result.untyped_storage().nbytes())
    return alive[1] - alive[0]


def step_bytes(config: CLIPConfig, batch_size: int, recompute: str, residual: str = FP32) -> int:
    """The most that a training step in bf16 has in memory at a time, its model and optimizer included."""
    half = torch.autocast("cpu", dtype=torch.bfloat16)
    with FakeTensorMode(), fused_attention():
        model = models.model_on_cpu(config).train()
        set_recompute(model, recompute)
        apply_residual(model, residual)
        weights = [*model.parameters(), *model.buffers()]
        of_weights = sum(each.nbytes for each in weights)
        clips = torch.empty(batch_size, FRAMES, 3, config.image_size, config.image_size, dtype=torch.uint8)
        batch = Batch(clips, labels=torch.zeros(batch_size, dtype=torch.long))
        with LiveStorages() as live:
            live.add(*weights)
            with half:
                loss = model(batch, Draws(torch.Generator().manual_seed(0))).total
            loss.backward()
    return live.most + MOMENTS * of_weights


def fused_attention() -> AbstractContextManager:
    """Context in which a CPU trains with fused attention, too."""
    return mock.patch("clip.blocks._is_slow_in_fused_backward", _always_fused)


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
    """The tables of the benchmark page, of towers by name."""
    return NOTE + _blocks(configs, decimals) + NOTE_OF_STEP + _steps(configs, decimals)


def _blocks(configs: Mapping[str, CLIPConfig], decimals: int) -> str:
    rows = [["block", *(f"{name}, MiB" for name in RECOMPUTE), *(f"tower {name}, GiB" for name in RECOMPUTE)]]
    for (name, config), (kind, build), precision in product(configs.items(), KINDS.items(), PRECISIONS):
        kept = []
        with FakeTensorMode():
            block, compute, clips = build(config)
            for recompute in RECOMPUTE:
                set_recompute(block, recompute)
                kept.append(kept_bytes(compute, clips, precision == "bf16"))
        of_block = [f"{size / MIB:.{decimals}f}" for size in kept]
        of_tower = [f"{config.vision_layers * BATCHES[name] * size / GIB:.{decimals}f}" for size in kept]
        rows.append([f"{name}, {kind}, {precision}", *of_block, *of_tower])
    return _table(rows)


def _steps(configs: Mapping[str, CLIPConfig], decimals: int) -> str:
    rows = [["training step", *(f"{name}, GiB" for name in RECOMPUTE)]]
    for (name, config), residual in product(configs.items(), RESIDUAL):
        sizes = [step_bytes(config, BATCHES[name], recompute, residual) for recompute in RECOMPUTE]
        rows.append(
            [f"{name}, {BATCHES[name]} videos, residual {residual}", *(f"{size / GIB:.{decimals}f}" for size in sizes)]
        )
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join(["", head, "|" + "---|" * len(rows[0]), *others]) + "\n"


TOWERS = {"ViT-B/16": models.VIT_B16, "ViT-L/14": models.VIT_L14}

if __name__ == "__main__":
    sys.stdout.write(section(TOWERS))
