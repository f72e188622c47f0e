"""Clip transforms on uint8 tensors [T, 3, H, W]; every random choice is drawn once for all frames.

Normalisation is the model's: frames travel to the device as uint8.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T
from torchvision.transforms.v2 import functional as F

# Words that a horizontal flip exchanges.
MIRRORED = {"left": "right", "clockwise": "counterclockwise"}
MIRRORED |= {b: a for a, b in MIRRORED.items()}
DIRECTIONS = re.compile(r"\b(left|right(?! out)|clockwise|counterclockwise)\b")  # "pulling it right out" is none
NO_MIRROR = -1


class TrainTransform:
    """Published training augmentation: random resized crop, flip, grayscale; optional RandAugment.

    The published code first resizes the short side to 256; a crop that is a share of the area does not
    depend on that, so here it is cut from the decoded frames and resized once.

    Args:
        input_size: S, pixels.
        mirror_labels: see ``mirror_labels``; a flip changes the label accordingly.
        crop_area: smallest and largest crop as a share of the frame.
        randaug: (number of operations, magnitude) of torchvision's RandAugment, or None.
    """

    def __init__(
        self,
        input_size: int,
        mirror_labels: list[int],
        crop_area: tuple[float, float] = (0.08, 1.0),
        randaug: tuple[int, int] | None = None,
    ):
        steps = [T.RandAugment(*randaug)] if randaug else []
        steps.append(T.RandomResizedCrop(input_size, scale=crop_area, antialias=True))
        steps.append(T.RandomGrayscale(p=0.2))
        self.augment = T.Compose(steps)
        self.mirror_labels = mirror_labels

    def __call__(self, frames: Tensor, label: int) -> tuple[Tensor, int]:
        """uint8 [T, 3, H, W] and its label -> uint8 [T, 3, S, S] and its label; uses torch's global RNG."""
        frames = self.augment(frames)
        if torch.rand(()) < 0.5 and self.mirror_labels[label] != NO_MIRROR:
            frames, label = F.horizontal_flip(frames), self.mirror_labels[label]
        return frames, label


def mirror_labels(class_names: list[str]) -> list[int]:
    """The label of each class after a horizontal flip; ``NO_MIRROR`` where no class fits, so no flip.

    "Pushing something from left to right" becomes "... from right to left"; a name without such words stays
    what it is. For Something-Something this gives the published pairs (86, 87), (93, 94), (166, 167).
    """
    labels = {name: label for label, name in enumerate(class_names)}
    mirrored = (DIRECTIONS.sub(lambda match: MIRRORED[match[0]], name) for name in class_names)
    return [
        label if flipped == name else labels.get(flipped, NO_MIRROR)
        for label, (name, flipped) in enumerate(zip(class_names, mirrored, strict=True))
    ]


def eval_views(frames: Tensor, input_size: int, num_crops: int) -> Tensor:
    """Resize the short side to S (bicubic) and cut the published crops: uint8 [T, 3, H, W] -> [crops, T, 3, S, S].

    1: centre. 3: left, right, centre. 5: corners and centre. 10: those five, each
    followed by its mirror image.
    """
    frames = F.resize(frames, [input_size], InterpolationMode.BICUBIC, antialias=True)
    height, width = frames.shape[-2:]
    crops = []
    for top, left in CROPS[num_crops](height - input_size, width - input_size):
        crop = frames[..., top : top + input_size, left : left + input_size]
        crops += [crop, crop.flip(-1)] if num_crops == 10 else [crop]
    return torch.stack(crops)


def _centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    return [(round(free_y / 2.0), round(free_x / 2.0))]


def _left_right_centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    # Published quirk: in portrait videos, where free_x is 0, the three crops are one and the same.
    y, x = free_y // 4, free_x // 4
    return [(2 * y, 0), (2 * y, 4 * x), (2 * y, 2 * x)]


def _corners_and_centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    y, x = free_y // 4, free_x // 4
    return [(0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)]


# Top-left corners (y, x) of the crops, from the pixels that the resized frame has beyond S. Offsets are
# multiples of a quarter of these, rounded down, as published; 4 quarters may fall short of the border.
CROPS: dict[int, Callable[[int, int], list[tuple[int, int]]]] = {
    1: _centre,
    3: _left_right_centre,
    5: _corners_and_centre,
    10: _corners_and_centre,
}

# Where the centre crop, unmirrored, stands among those that ``eval_views`` cuts.
CENTRE_CROP = {1: 0, 3: 2, 5: 4, 10: 8}
