"""OpenCV's bilinear resize of uint8 pictures, in its integers: what models tested with it saw, to the last bit.

It neither averages over the pixels that a smaller picture leaves out (no antialiasing), nor interpolates in real
numbers. torchvision's resizes differ from it by a grey level in many pixels, or by far more where they antialias.
"""

from functools import lru_cache

import torch
from torch import Tensor

ONE = 2048  # a weight of 1


def resize_short_side(frames: Tensor, short_side: int) -> Tensor:
    """Resize so that the short side has ``short_side`` pixels; the long one follows, rounded: uint8 [..., H, W]."""
    height, width = frames.shape[-2:]
    scale = short_side / min(height, width)
    return resize(frames, (int(height * scale + 0.5), int(width * scale + 0.5)))


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to (height, width): uint8 [..., H, W] -> [..., height, width].

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
