"""Fully sharded training (FSDP2): each process holds a part of every parameter, its gradient and optimizer state.

Checkpoints are whole all the same: ``whole`` gathers what is saved, ``cut_like`` cuts what is loaded. Without a
process group, and for models that are not sharded, all of this changes nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from utils.distributed import device_mesh, is_distributed, is_main, sum_over_processes, world_size


def shard(model: nn.Module, blocks: Iterable[nn.Module]) -> None:
    """Shard a model in place over all processes; its ``blocks`` are gathered one at a time, when they run."""
    if not is_distributed():
        return
    mesh = device_mesh()
    for block in blocks:
        fully_shard(block, mesh=mesh)
    scalars = {p for p in model.parameters() if p.ndim == 0}  # cannot be cut: every process keeps them
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    for scalar in filter(lambda scalar: scalar.requires_grad, scalars):
        scalar.register_post_accumulate_grad_hook(_average_gradient)
    # Now, or the first block that runs alone, in a test before any training, would take itself for the whole.
    model._get_fsdp_state()._lazy_init()


def is_sharded(model: nn.Module) -> bool:
    """Whether ``shard`` has cut a model."""
    return isinstance(model, FSDPModule)


def _average_gradient(parameter: Tensor) -> None:
    # Over accumulated steps too: the mean of (what was averaged before + the new part) averages the new part.
    parameter.grad = sum_over_processes(parameter.grad) / world_size()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Context in which every process holds all parameters of a sharded model, for evaluation.

    Without it each forward pass is a collective call, and the processes evaluate different numbers of batches.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)  # as it was: the whole keeps its own


def gradients_shared(ddp: nn.Module, is_shared: bool) -> AbstractContextManager:
    """Context of one step whose gradients are averaged over processes, or for accumulation stay on each."""
    if isinstance(ddp, FSDPModule):
        ddp.set_requires_gradient_sync(is_shared)  # which every step says anew
    return nullcontext() if is_shared or not hasattr(ddp, "no_sync") else ddp.no_sync()


def clip_gradients(parameters: list[Tensor], max_norm: float) -> Tensor:
    """Scale gradients so that their common norm is at most ``max_norm``; returns the norm before, a scalar."""
    kinds = [[p for p in parameters if isinstance(p, DTensor) == is_sharded] for is_sharded in (False, True)]
    norms = [torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds if kind]
    norm = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
    for kind in kinds:
        if kind and max_norm < torch.inf:
            torch.nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm


def whole(value: Any) -> Any:
    """A state dict, or any tree of dicts and lists, with its sharded tensors made whole.

    Every process must call it; the main process gets them on the CPU, the others None in their places.
    """
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if is_main() else None
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def cut_like(tensor: Any, parameter: Tensor) -> Any:
    """This process's part of a whole optimizer tensor that belongs to ``parameter``, cut as that is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
