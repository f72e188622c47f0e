"""Steps of training augmentation that torchvision has none of: crops of a few sizes, colours that flicker."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2 as T

from datasets.clips.resize import resize, resize_short_side

SCALES = (1.0, 0.875, 0.75, 0.66)  # sides of a crop, as shares of the short side
MOST_APART = 1  # places in ``SCALES`` that the two sides of a crop may be apart
SNAPS = 3  # a side that differs from the result's by fewer pixels is that one


@dataclass(frozen=True)
class MultiScaleCrop:
    """Frames are resized; a crop of one of 10 shapes, at a corner or in the middle, is resized to S x S.

    Both resizes are OpenCV's. (Temporal Segment Networks, ECCV 2016; scales and steps as ViFi-CLIP has them.)
    """

    input_size: int  # S
    short_side: int  # pixels, of the frames that crops are cut from

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] -> [T, 3, S, S]; draws from torch's global RNG, once for all frames."""
        frames = resize_short_side(frames, self.short_side)
        height, width = frames.shape[-2:]
        shapes = self.shapes()
        crop_height, crop_width = shapes[torch.randint(len(shapes), ())]
        # Multiples of a quarter of the free pixels, rounded down, as published.
        y, x = (height - crop_height) // 4, (width - crop_width) // 4
        corners = [(0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)]
        top, left = corners[torch.randint(len(corners), ())]
        crop = frames[..., top : top + crop_height, left : left + crop_width]
        return resize(crop, (self.input_size, self.input_size))

    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of the crops, each as likely."""
        sides = [int(self.short_side * scale) for scale in SCALES]
        sides = [self.input_size if abs(side - self.input_size) < SNAPS else side for side in sides]
        return [(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= MOST_APART]


@dataclass(frozen=True)
class FrameJitter:
    """Brightness, contrast, saturation and hue of a share of clips change, in each frame by draws of its own.

    So colours flicker over time: the one choice that is not drawn once for all frames, kept as published.
    """

    share: float  # of clips
    jitter: T.ColorJitter

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] -> the same shape; draws from torch's global RNG."""
        if torch.rand(()) >= self.share:
            return frames
        return torch.stack([self.jitter(frame) for frame in frames])
