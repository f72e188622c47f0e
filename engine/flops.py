"""How much of a GPU training uses: operations of a step against what the device can do."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modules.systems.base import Batch, Draws, System
from utils.precision import Precision

# Dense bf16 tensor-core rates, TFLOP/s, by a part of the device's name; the first match counts. From the data sheets.
PEAK_BF16 = {
    "B200": 2250.0,
    "H200 NVL": 836.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}

# What blocks say that they recompute, and its value for not doing so.
RECOMPUTE, NONE = "recompute", "none"


def peak_flops(device: torch.device) -> float | None:
    """Operations a second of a CUDA device in bf16; None for a CPU or an unknown name."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * rate for model, rate in PEAK_BF16.items() if model in name), None)


def utilisation(system: System, example: Batch, precision: Precision) -> tuple[float | None, float | None]:
    """Operations of one video, and of the device a second in half precision; None where unknown, see ``count_flops``.

    Args:
        example: a training batch on the meta device.
    """
    peak = peak_flops(precision.device)
    if peak is None or precision.name == "fp32":
        return None, None
    # Of a whole batch: a text tower that trains runs once for all its videos.
    any_draws = Draws(torch.Generator().manual_seed(0))
    num_videos = len(example.features if example.clips is None else example.clips)
    return count_flops(system, example, any_draws) / num_videos, peak


def count_flops(system: System, batch: Batch, draws: Draws) -> float:
    """Operations of a forward and backward pass, recomputation (checkpointing, fused attention) not counted.

    Only shapes are computed, on the meta device, so that no size of model or batch needs any memory.

    Args:
        system: neither compiled nor sharded yet.
        batch: on the meta device.
    """
    shapes = copy.deepcopy(
        system, {id(tensor): _shape_of(tensor) for tensor in (*system.parameters(), *system.buffers())}
    )
    for module in shapes.modules():
        if hasattr(module, RECOMPUTE):
            setattr(module, RECOMPUTE, NONE)
    with FlopCounterMode(display=False) as counter:
        shapes.loss(batch, draws).total.backward()
    return float(counter.get_total_flops())


def _shape_of(tensor: Tensor) -> Tensor:
    shape = torch.empty_like(tensor, device="meta")
    return nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape
