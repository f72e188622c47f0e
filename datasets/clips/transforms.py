"""Clip transforms on uint8 tensors [T, 3, H, W]; random choices are drawn once for all frames (see ``FrameJitter``).

Normalisation is the model's: frames travel to the device as uint8.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

# Words that a horizontal flip exchanges.
MIRRORED = {"left": "right", "clockwise": "counterclockwise"}
MIRRORED |= {b: a for a, b in MIRRORED.items()}
DIRECTIONS = re.compile(r"\b(left|right(?! out)|clockwise|counterclockwise)\b")  # "pulling it right out" is none
NO_MIRROR = -1


@dataclass(frozen=True)
class TrainTransform:
    """Training augmentation: what changes the pictures alone, then a flip, which may change the label."""

    augment: Callable[[Tensor], Tensor]  # uint8 [T, 3, H, W] -> [T, 3, S, S]
    mirror_labels: list[int]  # see ``mirror_labels``; a flip changes the label accordingly
    flip_share: float  # of clips that are flipped

    def __call__(self, frames: Tensor, label: int) -> tuple[Tensor, int]:
        """uint8 [T, 3, H, W] and its label -> uint8 [T, 3, S, S] and its label; uses torch's global RNG."""
        frames = self.augment(frames)
        if torch.rand(()) < self.flip_share and self.mirror_labels[label] != NO_MIRROR:
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


class Crops(NamedTuple):
    """A number of crops of a test."""

    # The top-left corner (y, x) of each, from the pixels that the resized frame has beyond S.
    corners: Callable[[int, int], list[tuple[int, int]]]
    centre: int  # place of the centre crop, unmirrored, among them
    has_mirrors: bool = False  # each is followed by its mirror image
    of_smallest: bool = False  # cut from frames whose short side is S, whatever the preset has for other numbers


def _centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    return [(round(free_y / 2.0), round(free_x / 2.0))]


def _left_right_centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    # Published quirk: in portrait videos, where free_x is 0, the three crops are one and the same.
    y, x = free_y // 4, free_x // 4
    return [(2 * y, 0), (2 * y, 4 * x), (2 * y, 2 * x)]


def _corners_and_centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    y, x = free_y // 4, free_x // 4
    return [(0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)]


# As published, corners are multiples of a quarter of the free pixels, rounded down: 4 quarters may fall short of them.
CROPS: dict[int, Crops] = {
    1: Crops(_centre, centre=0),
    3: Crops(_left_right_centre, centre=2),
    5: Crops(_corners_and_centre, centre=4),
    10: Crops(_corners_and_centre, centre=8, has_mirrors=True),
}


def _floor_centre(free_y: int, free_x: int) -> list[tuple[int, int]]:
    return [(free_y // 2, free_x // 2)]


def _ends_and_middle(free_y: int, free_x: int) -> list[tuple[int, int]]:
    """Left, right and middle, in portrait videos top, bottom and middle."""
    y, x = free_y // 2, free_x // 2
    if free_y > free_x:
        return [(0, x), (2 * y, x), (y, x)]
    return [(y, 0), (y, 2 * x), (y, x)]


# Of ViFi-CLIP and OST, whose published code has no other numbers.
VIFI_CROPS = CROPS | {1: Crops(_floor_centre, centre=0), 3: Crops(_ends_and_middle, centre=2, of_smallest=True)}

# Of TVTSv2, whose published code has one crop: in the middle, halves of pixels rounded to even.
TVTS_CROPS = VIFI_CROPS | {1: CROPS[1]}
