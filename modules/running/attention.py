"""Which of torch's kernels of attention is the fastest: measured on the device, at the shapes in use."""

import logging
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from utils.distributed import broadcast, is_main

logger = logging.getLogger(__name__)

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
RUNS = 5  # of a kernel, after one that is not timed


class Call(NamedTuple):
    """What attention is asked for."""

    query: tuple[int, ...]  # [N, heads, L, head_dim]
    key: tuple[int, ...]
    is_causal: bool


class AttentionCalls(TorchFunctionMode):
    """Counts the calls of fused attention within this context, but those with masks and dropout: few kernels can."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[Call] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is F.scaled_dot_product_attention:
            self._count(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _count(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False,
    ) -> None:  # fmt: skip
        if attn_mask is None and not dropout_p:
            self.counts[Call(tuple(query.shape), tuple(key.shape), is_causal)] += 1


@contextmanager
def fastest_attention(
    calls: Mapping[Call, int],
    device: torch.device,
    dtype: torch.dtype,
    backends: Mapping[str, SDPBackend] = BACKENDS,
) -> Iterator[None]:
    """Context in which attention takes the kernel that was the fastest with these calls, where that one can.

    The main process measures for all. Kernels differ in rounding alone, so a restart may choose another one.

    Args:
        calls: how often each is made in a step.
    """
    times = broadcast(seconds_of(calls, device, dtype, backends) if is_main() else None)
    if not times:
        yield
        return
    logger.info(
        "attention, forward and backward of a step: %s; the first is taken",
        ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in times.items()),
    )
    order = [backends[name] for name in (*times, *(name for name in backends if name not in times))]
    with sdpa_kernel(order, set_priority=True):
        yield


def seconds_of(
    calls: Mapping[Call, int], device: torch.device, dtype: torch.dtype, backends: Mapping[str, SDPBackend] = BACKENDS
) -> dict[str, float]:
    """What all calls take, forward and backward, by name of a kernel, the fastest first; without those that cannot."""
    found = {}
    for name, backend in backends.items():
        try:
            with sdpa_kernel(backend), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # each says why it cannot
                found[name] = sum(count * _seconds(call, device, dtype) for call, count in calls.items())
        except RuntimeError:  # there is no such kernel for this, or not enough memory
            continue
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {name: found[name] for name in sorted(found, key=found.__getitem__) if calls}


def _seconds(call: Call, device: torch.device, dtype: torch.dtype) -> float:
    """Median of a few runs."""
    query, key, value = (_random(shape, device, dtype) for shape in (call.query, call.key, call.key))
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    times = []
    for _ in range(1 + RUNS):
        wait()
        start = time.perf_counter()
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=call.is_causal)
        torch.autograd.grad(mixed, (query, key, value), mixed.detach())
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _random(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """[N, heads, L, head_dim], in memory as layers give it: heads beside each other."""
    batch, heads, length, width = shape
    generator = torch.Generator(device).manual_seed(0)  # of its own: a run's random numbers stay what they are
    values = torch.randn(batch, length, heads, width, device=device, dtype=dtype, generator=generator)
    return values.transpose(1, 2).requires_grad_()
