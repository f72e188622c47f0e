"""State dicts of others: names without what wrappers added, values that can be weights, and a hash of them."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

WRAPPER = "module."  # DataParallel and DistributedDataParallel, which may be nested, put it in front
# Parts of names that other wrappers add anywhere: torch.compile, FSDP, activation checkpointing.
INNER_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COUNTER = "num_batches_tracked"  # of a BatchNorm, the one integer among weights
COUNTER_TYPES = (torch.int64, *WEIGHT_TYPES)  # the latter in files whose tensors were all halved
# Tensors may be views that repeat a shorter storage, unless they would take more bytes than this: then a small file
# would fill the memory.
MOST_REPEATED = 2**28


def plain_names(state: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """The state dict without the prefixes of wrappers.

    Args:
        source: how errors begin, such as ``checkpoint PATH``.

    Raises:
        ValueError: a name is no text, or two become one.
    """
    plain: dict[str, Any] = {}
    first: dict[str, str] = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f"{source}: expected names of tensors, found the key {name!r}")
        short = name
        for wrapper in INNER_WRAPPERS:
            short = short.replace(wrapper, "")
        while short.startswith(WRAPPER):
            short = short.removeprefix(WRAPPER)
        if short in plain:
            raise ValueError(f"{source}: {first[short]} and {name} are both {short}, expected one of them")
        plain[short], first[short] = value, name
    return plain


def check_weights(state: Mapping[str, Any], source: str, most_repeated: int = MOST_REPEATED) -> None:
    """See that every value is a tensor that can be a weight: floating-point (BatchNorm's counters: int64), plain, and
    finite in fp32.

    Args:
        most_repeated: bytes that views of shorter storages may take in all.

    Raises:
        ValueError: it names the first that is not.
    """
    for name, value in state.items():
        if problem := _problem(value, COUNTER_TYPES if name.endswith(COUNTER) else WEIGHT_TYPES):
            raise ValueError(f"{source}: {name} {problem}")
        most_repeated -= _is_repeated(value) * value.numel() * value.element_size()
        if most_repeated < 0:
            raise ValueError(
                f"{source}: {name} of shape {list(value.shape)} repeats a part of its values, expected as many as its "
                "shape has"
            )
        if not (finite := value.detach().float().isfinite()).all():
            wrong = f"{int((~finite).sum())} of its {value.numel()} values are NaN or infinite in float32"
            raise ValueError(f"{source}: {name} is not finite: {wrong}")


def laid_out(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values; those that repeat a shorter storage get one of their own, which safetensors ask for."""
    return {name: value.clone() if _is_repeated(value) else value for name, value in state.items()}


def _is_repeated(value: Tensor) -> bool:
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], problem: str) -> None:
    """See that two state dicts have the same names and shapes.

    Args:
        problem: how the error begins, which lists what is missing, too much, or of another shape.

    Raises:
        ValueError: they differ.
    """
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name].shape)}, the configured model has {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(f"{problem} {'; '.join(problems[:4])}{more}")


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and fp32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.numpy())
    return digest.hexdigest()


def _problem(value: Any, types: tuple[torch.dtype, ...]) -> str:
    """What keeps a value from being a weight of one of the types; empty if nothing does."""
    if not isinstance(value, Tensor):
        return f"is of type {type(value).__name__}, expected a tensor"
    if type(value) not in (Tensor, nn.Parameter):
        return f"is a {type(value).__name__}, expected a plain tensor"
    if value.layout is not torch.strided or value.is_quantized or value.is_nested:
        return f"is a tensor of another kind ({value.layout}, {value.dtype}), expected a plain one"
    if value.dtype not in types:
        *most, last = (str(dtype).removeprefix("torch.") for dtype in types)
        return f"is {str(value.dtype).removeprefix('torch.')}, expected {', '.join(most)} or {last}"
    if value.device.type != "cpu":
        return "holds no values (device meta)"
    return ""
