"""Weights in half precision for tests, cast once; autocast by itself casts all of them again in each forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clip.blocks import MLP, QUICK_GELU, Attention, QuickGELU


@contextmanager
def weights_cast(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within this context attention and feed-forward layers have their weights in half precision; nothing may train.

    Those layers have nearly all weights, and autocast would compute with the same rounded values. All else stays in
    fp32: norms, position and class embeddings, the first convolution, the last projection, logit scale and buffers.
    OpenAI's GELU needs its factor once, in the weights (see ``clip.blocks.MLP``), not in each pass.

    Args:
        dtype: bfloat16 or float16, that of the autocast around forward passes; None: nothing changes.
    """
    swapped = [
        (owner, name, getattr(owner, name), value)
        for module in model.modules() if dtype
        for owner, name, value in _in_half(module, dtype)
    ]  # fmt: skip
    for owner, name, _, value in swapped:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, before, _ in swapped:
            setattr(owner, name, before)


@torch.no_grad()
def _in_half(module: nn.Module, dtype: torch.dtype) -> Iterator[tuple[nn.Module, str, Any]]:
    """What a module has in half precision: the owner, its attribute, and the value."""
    if isinstance(module, Attention):
        for owner, names in {module: ("in_proj_weight", "in_proj_bias"), module.out_proj: ("weight", "bias")}.items():
            yield from ((owner, name, _rounded(getattr(owner, name), dtype)) for name in names)
    elif isinstance(module, MLP):
        factor = QUICK_GELU if isinstance(module.act, QuickGELU) else 1.0
        if factor != 1.0:
            yield module, "act", nn.SiLU()
        up, down = module.c_fc, module.c_proj
        yield from ((up, name, _rounded(factor * getattr(up, name), dtype)) for name in ("weight", "bias"))
        yield down, "weight", _rounded(down.weight / factor, dtype)
        yield down, "bias", _rounded(down.bias, dtype)


def _rounded(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype), requires_grad=False)
