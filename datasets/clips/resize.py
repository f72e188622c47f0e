"""Resizes of uint8 pictures as OpenCV and Pillow have them: what models tested with them saw, to the last bit.

OpenCV's bilinear one neither averages over the pixels that a smaller picture leaves out (no antialiasing), nor
interpolates in real numbers. torchvision's resizes differ from it by a grey level in many pixels, or by far more where
they antialias.
"""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ONE = 2048  # a weight of 1


def resize_short_side(frames: Tensor, short_side: int) -> Tensor:
    """Resize so that the short side has ``short_side`` pixels; the long one follows, rounded: uint8 [..., H, W]."""
    height, width = frames.shape[-2:]
    scale = short_side / min(height, width)
    return resize(frames, (int(height * scale + 0.5), int(width * scale + 0.5)))


def nearest_short_side(frames: Tensor, short_side: int) -> Tensor:
    """Resize by Pillow's NEAREST so that the short side has ``short_side`` pixels: uint8 [..., H, W].

    The long side follows, rounded down. Frames whose short side is right stay as they are.
    """
    height, width = frames.shape[-2:]
    if min(height, width) == short_side:
        return frames
    sides = [int(short_side * side / min(height, width)) for side in (height, width)]
    rows, columns = (_nearest(*pair).to(frames.device) for pair in zip((height, width), sides, strict=True))
    return frames.index_select(-2, rows).index_select(-1, columns)


@lru_cache(maxsize=64)
def _nearest(source: int, target: int) -> Tensor:
    """The pixel of ``source`` that each of ``target`` takes, int64 [target].

    Pillow adds up positions step by step, which floating-point numbers feel.
    """
    scale = source / target
    steps = np.full(target, scale)
    steps[0] = scale * 0.5
    return torch.from_numpy(np.add.accumulate(steps).astype(np.int64)).clamp(max=source - 1)


def squash(frames: Tensor, side: int) -> Tensor:
    """Resize to a square by Pillow's antialiased bilinear rule, whatever the shape: uint8 [T, 3, H, W] on the CPU.

    One side is resized after the other, and rounded between. Pillow 13 begins with the height of tall pictures, those
    before it always with the width, which is another grey level in every seventh pixel or so; here it is Pillow 13's
    order with any of them.
    """
    height, width = frames.shape[-2:]
    is_tall = height > side and height - side > 2 * (width - side)
    sizes = [(width, side) if is_tall else (side, height), (side, side)]  # Pillow has the width first
    pictures = (Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames)
    for size in sizes:
        pictures = [picture.resize(size, Image.Resampling.BILINEAR) for picture in pictures]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """OpenCV's bilinear resize to (height, width): uint8 [..., H, W] -> [..., height, width].

    Positions between two pixels are weighed in 2048ths, first along the width, then along the height; each row loses 4
    bits before it is weighed, each weighed row 16, and the sum is rounded by its last 2.

    Raises:
        ValueError: other numbers than uint8, or a side without pixels.
    """
    if frames.dtype != torch.uint8 or min(*frames.shape[-2:], *size) < 1:
        raise ValueError(
            f"resize: expected uint8 pictures and sizes of at least 1 pixel, found {frames.dtype} "
            f"{list(frames.shape)} and {list(size)}"
        )
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames  # all weights are whole
    pictures = frames.reshape(-1, *frames.shape[-3:]) if frames.ndim > 2 else frames[None, None]
    resized = torch.empty(*pictures.shape[:2], *size, dtype=torch.uint8, device=frames.device)
    across, down = _places(frames.shape[-1], size[1]), _places(frames.shape[-2], size[0])
    across, down = ([part.to(frames.device) for part in places] for places in (across, down))
    # One frame after the other: what is between the two passes then stays in the processor's cache.
    for picture, target in zip(pictures, resized, strict=True):
        target.copy_(_resized(picture, across, down))
    return resized.view(*frames.shape[:-2], *size)


def _resized(picture: Tensor, across: list[Tensor], down: list[Tensor]) -> Tensor:
    """uint8 [C, H, W] -> int32 [C, height, width]; ``across`` and ``down`` as from ``_places``."""
    # The side that is resized comes first, so that whole rows of memory are taken.
    columns = picture.permute(2, 1, 0).int().contiguous()  # [W, H, C]
    left, right, of_left, of_right = across
    sums = (
        columns.index_select(0, left)
        .mul_(of_left[:, None, None])
        .add_(columns.index_select(0, right).mul_(of_right[:, None, None]))
    )
    rows = sums.bitwise_right_shift_(4).transpose(0, 1).contiguous()  # [H, width, C]
    above, below, of_above, of_below = down
    upper = rows.index_select(0, above).mul_(of_above[:, None, None]).bitwise_right_shift_(16)
    lower = rows.index_select(0, below).mul_(of_below[:, None, None]).bitwise_right_shift_(16)
    return upper.add_(lower).add_(2).bitwise_right_shift_(2).permute(2, 0, 1)


@lru_cache(maxsize=64)
def _places(source: int, target: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels of ``source`` between which each of ``target`` lies, and their weights: int32 [target] each.

    Beyond an edge both are its pixel. There OpenCV gives it the whole weight along the width, and both weights along
    the height, where each is rounded on its own; as the two make up ``ONE``, the width needs no rule of its own.
    """
    factor = 1.0 / (target / source)
    positions = ((torch.arange(target, dtype=torch.float64) + 0.5) * factor - 0.5).float()
    first = positions.floor()
    share = positions - first
    of_first, of_second = ((part * ONE).round().int() for part in (1 - share, share))  # halves to even
    first = first.long()
    return first.clamp(0, source - 1), (first + 1).clamp(0, source - 1), of_first, of_second
