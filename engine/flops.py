"""How much of a GPU training uses: operations of a step against what the device can do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.sharding import without_memory

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


def peak_flops(device: torch.device) -> float | None:
    """Operations a second of a CUDA device in bf16; None for a CPU or an unknown name."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * rate for part, rate in PEAK_BF16.items() if part in name), None)


def count_flops(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> float:
    """Operations of a forward and backward pass, recomputation (checkpointing, fused attention) not counted.

    Only shapes are computed, on the meta device, so that no size of model or batch needs any memory.

    Args:
        loss: runs the copy of the model that it is given, on inputs of the meta device. Tokens may be on the CPU, since
            the lengths of texts are values.
    """
    shapes = without_memory(model)
    for module in shapes.modules():
        if hasattr(module, "grad_checkpointing"):
            module.grad_checkpointing = False
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        loss(shapes).backward()
    return float(counter.get_total_flops())
