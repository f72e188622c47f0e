"""Which number format a run computes in, and the autocast context for it."""

import contextlib
from dataclasses import dataclass

import torch

CHOICES = ("auto", "fp32", "bf16", "fp16", "amp")  # amp: the published name of auto


@dataclass(frozen=True)
class Precision:
    """A resolved precision: ``fp32``, ``bf16`` or ``fp16``, on a device."""

    name: str
    device: torch.device

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context for forward passes."""
        if not self.half:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)

    @property
    def half(self) -> torch.dtype | None:
        """The half precision that autocast computes in; None for fp32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, active only where fp16 gradients would underflow."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def copy_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` on ``device``; a GPU copies it when its turn comes, and nobody waits."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def resolve_precision(choice: str, device: torch.device) -> Precision:
    """``auto``: bf16 where the device computes it well, fp16 on older CUDA, else fp32.

    Raises:
        ValueError: fp16 was asked for on a CPU.
    """
    if choice in ("auto", "amp"):
        if device.type == "cuda":
            choice = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
        else:
            choice = "bf16" if _cpu_has_bf16_units() else "fp32"
    if choice == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16 needs a CUDA device; use auto, bf16 or fp32 on a CPU")
    if device.type == "cuda":
        # TF32 has the accuracy of fp16: welcome beside it, but fp32 is asked for to compare.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = choice != "fp32"
    return Precision(choice, device)


def _cpu_has_bf16_units() -> bool:
    # AVX512-BF16 or AMX; elsewhere bf16 is emulated and slower than fp32.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def without_autocast(tensor: torch.Tensor) -> contextlib.AbstractContextManager:
    """Context in which operations on the tensor's device keep its precision, whatever autocast says outside."""
    if tensor.is_meta:  # only shapes are computed there, and torch knows no autocast for it
        return contextlib.nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
