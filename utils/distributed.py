"""Processes and devices; the only place that calls torch.distributed.

Everything works in one process without a launcher, and under torchrun on any number of processes
(NCCL on CUDA, gloo on the CPU).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

AS_LONG_AS_IT_TAKES = timedelta(days=365)


@contextmanager
def process_group(timeout_s: float) -> Iterator[torch.device]:
    """Join the process group that torchrun announces, if any; yields this process's device.

    Args:
        timeout_s: a process that the others wait for longer than this is taken for dead.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"process {device.index} has no GPU, {torch.cuda.device_count()} are visible; lower NPROC")
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield device
        return
    timeout = timedelta(seconds=timeout_s)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    # torchrun may keep one store over restarts, with the addresses of processes that are gone: do not read those.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"restart_{restart}", store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
    yield device
    # Not after an error: with NCCL this waits for the other processes, which may be waiting for this one.
    dist.destroy_process_group()


def rank() -> int:
    """Index of this process, 0 without a launcher."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without a launcher."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_distributed() -> bool:
    """Whether there is a process group, of any size."""
    return dist.is_initialized()


def device_mesh() -> DeviceMesh:
    """All processes in one row."""
    return init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (world_size(),))


def is_main() -> bool:
    """Whether this process writes files and logs; known before the process group exists."""
    return rank() == 0 if dist.is_initialized() else os.environ.get("RANK", "0") == "0"


def is_restarted() -> bool:
    """Whether torchrun started this process anew after a failure (``--max-restarts``)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def broadcast(value: Any) -> Any:
    """The main process's (picklable) value on every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_main(compute: Callable[[], Any]) -> Any:
    """What the main process computes (picklable), on every process; they wait for it as long as it takes.

    Raises:
        ValueError, OSError: what ``compute`` raised, on every process, so that none waits for one that has given up.
    """
    if not dist.is_initialized():
        return compute()
    # A group of its own, since the timeout of the other one is for exchanges that all are ready for. Should the main
    # process die, its connections close, and the launcher ends the others.
    group, result, problem = dist.new_group(backend="gloo", timeout=AS_LONG_AS_IT_TAKES), None, None
    if is_main():
        try:
            result = compute()
        except (ValueError, OSError) as error:
            problem = error
    box = [(result, problem)]
    dist.broadcast_object_list(box, src=0, group=group)
    dist.destroy_process_group(group)
    result, problem = box[0]
    if problem is not None:
        raise problem
    return result


def gather(value: Any) -> list:
    """Every process's (picklable) value, in rank order, on every process."""
    if not dist.is_initialized():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; returns it."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def average_over_processes(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in place and in one exchange."""
    if not tensors or world_size() == 1:
        return
    means = sum_over_processes(torch.cat([tensor.flatten() for tensor in tensors])) / world_size()
    for tensor, mean in zip(tensors, means.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


GRADIENTS = {"full": True, "published": False}  # values of solver.gather: summed over processes or not


def gather_rows(tensor: Tensor, gradient: str = "full") -> Tensor:
    """The rows of all processes in rank order, a part of the graph: [n, ...] -> [N, ...].

    The number of rows may differ between processes. All processes must call it, and its backward pass, too; it is for
    a loss that each of them computes alike from all rows, and whose gradients DDP averages.

    Args:
        gradient: a key of ``GRADIENTS``. ``full``: a row gets its gradient from the losses of all W processes,
            so that the average is the gradient of one process with all rows. ``published``: a row gets it from the loss
            of its own process alone, as Text4Vis and BIKE train; the average is then 1/W of it for whatever computed
            the rows, but the whole for what each process has besides, such as the scale of logits.
    """
    is_full = GRADIENTS[gradient]
    if world_size() == 1 or tensor.is_meta:
        return tensor
    return _AllRows.apply(tensor, is_full)


class _AllRows(torch.autograd.Function):
    """See ``gather_rows``."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, is_full: bool) -> Tensor:
        sizes = [torch.empty(1, dtype=torch.long, device=tensor.device) for _ in range(world_size())]
        dist.all_gather(sizes, torch.full_like(sizes[0], len(tensor)))
        counts = torch.cat(sizes).tolist()
        # Gathered tensors must be of one shape, so shorter ones are filled up on the way.
        padded = torch.cat([tensor, tensor.new_zeros(max(counts) - len(tensor), *tensor.shape[1:])])
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        start = sum(counts[: rank()])
        ctx.own, ctx.is_full = slice(start, start + len(tensor)), is_full
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.is_full:
            gradient = sum_over_processes(gradient.clone(memory_format=torch.contiguous_format))
        return gradient[ctx.own], None


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process of each machine through before its others: what it downloads, they find."""
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    if dist.is_initialized() and not is_first:
        dist.barrier()
    yield
    if dist.is_initialized() and is_first:
        dist.barrier()


def any_process(flag: bool) -> bool:
    """Whether ``flag`` is set on any process; every process must call it."""
    return any(gather(flag))


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """Average gradients over processes; the model itself in a single process, or if it is sharded."""
    if not dist.is_initialized() or world_size() == 1 or isinstance(model, FSDPModule):
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # alike everywhere, and stay so: see engine.train.update of BatchNorm's
    )
