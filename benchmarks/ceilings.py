"""What a machine reaches at the shapes of a tower's blocks: plain products, attention, a copy of the residual stream.

Nothing that a model computes can be faster than these; a benchmark's share of them is what is left to gain.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.harness import Ceiling, device
from clip.model import CLIPConfig
from utils.precision import resolve_precision

Run = Callable[[], object]


def tokens_of(config: CLIPConfig) -> int:
    """Of a frame."""
    return 1 + (config.image_size // config.patch_size) ** 2


def product_shapes(config: CLIPConfig) -> dict[str, tuple[int, int]]:
    """Columns in and out of a block's linear layers."""
    width = config.vision_width
    return {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}


def product_operations(config: CLIPConfig, frames: int) -> dict[str, float]:
    """Of the product of each of these layers with the tokens of so many frames."""
    rows = frames * tokens_of(config)
    return {name: 2.0 * rows * depth * width for name, (depth, width) in product_shapes(config).items()}


def attention_operations(config: CLIPConfig, frames: int) -> float:
    """Of one of the two products of attention in a block."""
    return 2.0 * frames * tokens_of(config) ** 2 * config.vision_width


def attention_share(config: CLIPConfig, frames: int, operations: float, num_products: int) -> float:
    """The share of attention in the operations of a model.

    Args:
        num_products: of attention in a block: 2 forward, 6 with backward.
    """
    return config.vision_layers * num_products * attention_operations(config, frames) / operations


def product(rows: int, depth: int, width: int, dtype: torch.dtype = torch.bfloat16) -> Run:
    """[rows, depth] times [depth, width], weights as linear layers have them."""
    left, right = (torch.randn(*shape, device=device(), dtype=dtype) for shape in ((rows, depth), (width, depth)))
    return lambda: F.linear(left, right)


def all_products(config: CLIPConfig, frames: int, dtype: torch.dtype) -> Run:
    """Those of a block's linear layers, one after the other."""
    rows = frames * tokens_of(config)
    runs = [product(rows, *shape, dtype) for shape in product_shapes(config).values()]
    return torch.inference_mode()(lambda: [run() for run in runs])


def attention(config: CLIPConfig, frames: int, is_training: bool) -> Run:
    """Of a block, in bf16; with its backward pass."""
    shape = (frames, config.vision_heads, tokens_of(config), config.vision_width // config.vision_heads)
    parts = [torch.randn(shape, device=device(), dtype=torch.bfloat16, requires_grad=is_training) for _ in range(3)]
    if not is_training:
        return lambda: F.scaled_dot_product_attention(*parts)
    gradient = torch.randn(shape, device=device(), dtype=torch.bfloat16)
    return lambda: torch.autograd.grad(F.scaled_dot_product_attention(*parts), parts, gradient)


def copy(config: CLIPConfig, frames: int) -> Run:
    """Of all tokens of a block, in bf16."""
    source = torch.randn(frames * tokens_of(config), config.vision_width, device=device(), dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def copied_bytes(config: CLIPConfig, frames: int) -> float:
    """Read and written by ``copy``."""
    return 2.0 * 2 * frames * tokens_of(config) * config.vision_width


def of_products(config: CLIPConfig, frames: int) -> dict[str, Ceiling]:
    """The products of a block in fp32 and, where the device has units for it, in bf16."""
    dtypes = {"fp32 products": torch.float32}
    if resolve_precision("auto", device()).name == "bf16":
        dtypes["bf16 products"] = torch.bfloat16
    operations = sum(product_operations(config, frames).values())
    return {name: Ceiling(partial(all_products, config, frames, dtype), operations) for name, dtype in dtypes.items()}
