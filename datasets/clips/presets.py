"""Presets: which frames a clip takes and how its pictures are cut, as one named object (``data.transforms``)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T
from torchvision.transforms.v2 import functional as F

from datasets.clips import sampling
from datasets.clips.transforms import CROPS, Crops, TrainTransform


class Sampling(NamedTuple):
    """Which frames clips of T frames take of a video of F."""

    train: Callable[..., np.ndarray]  # (F, T, rng) -> int64 [T]
    evaluation: Callable[..., np.ndarray]  # (F, T, number of clips C) -> int64 [C, T]


@dataclass(frozen=True)
class Preset:
    """The rules of pictures that belong together; loader workers get a copy, so its functions are those of modules."""

    sampling: Sampling
    dense_sampling: Sampling  # with ``data.dense``
    train_crop: Callable[[int, tuple[float, float]], Callable[[Tensor], Tensor]]  # (S, data.crop_area) -> crop of clips
    gray_share: float  # of training clips that lose their colours
    flip_share: float  # of training clips that are mirrored, where their label allows it
    short_side: float  # of frames in evaluation after resizing, as a multiple of S
    interpolation: InterpolationMode  # of that resizing
    crops: Mapping[int, Crops]  # by their number; the keys of ``CROPS``
    short_sides: Mapping[int, int] = field(default_factory=dict)  # S -> pixels, where ``short_side`` does not hold

    def train_transform(
        self,
        input_size: int,
        mirror_labels: list[int],
        crop_area: tuple[float, float] = (0.08, 1.0),
        randaug: tuple[int, int] | None = None,
    ) -> TrainTransform:
        """The augmentation of training clips.

        Args:
            input_size: S, pixels.
            mirror_labels: see ``datasets.clips.transforms.mirror_labels``.
            crop_area: smallest and largest crop as a share of the frame.
            randaug: (number of operations, magnitude) of torchvision's RandAugment, or None.
        """
        steps = [T.RandAugment(*randaug)] if randaug else []
        steps += [self.train_crop(input_size, crop_area), T.RandomGrayscale(p=self.gray_share)]
        return TrainTransform(T.Compose(steps), mirror_labels, self.flip_share)

    def resized_side(self, input_size: int) -> int:
        """Pixels of the short side of frames in evaluation, before crops of S are cut."""
        return self.short_sides.get(input_size, round(self.short_side * input_size))

    def eval_views(self, frames: Tensor, input_size: int, num_crops: int) -> Tensor:
        """Resize and cut the crops of a test: uint8 [T, 3, H, W] -> [crops, T, 3, S, S]."""
        frames = F.resize(frames, [self.resized_side(input_size)], self.interpolation, antialias=True)
        height, width = frames.shape[-2:]
        crops, views = self.crops[num_crops], []
        for top, left in crops.corners(height - input_size, width - input_size):
            view = frames[..., top : top + input_size, left : left + input_size]
            views += [view, view.flip(-1)] if crops.has_mirrors else [view]
        return torch.stack(views)


def random_resized_crop(input_size: int, crop_area: tuple[float, float]) -> T.RandomResizedCrop:
    """A share of the area, drawn evenly, with sides 3:4 to 4:3.

    The published code first resizes the short side to 256; a crop that is a share of the area does not depend on that,
    so here it is cut from the decoded frames and resized once.
    """
    return T.RandomResizedCrop(input_size, scale=crop_area, antialias=True)


MOTE = Preset(
    sampling=Sampling(sampling.train_indices, sampling.eval_indices),
    dense_sampling=Sampling(sampling.dense_train_indices, sampling.dense_eval_indices),
    train_crop=random_resized_crop,
    gray_share=0.2,
    flip_share=0.5,
    short_side=1.0,
    interpolation=InterpolationMode.BICUBIC,
    crops=CROPS,
)

# Differs from MoTE's in two rules: bins of training frames are disjoint, and 224 pixels are cut from 256.
TEXT4VIS = replace(MOTE, sampling=MOTE.sampling._replace(train=sampling.bin_train_indices), short_sides={224: 256})

PRESETS: dict[str, Preset] = {"mote": MOTE, "text4vis": TEXT4VIS}
# Rules of training frames, which ``data.train_sampling`` may put in the place of a preset's.
TRAIN_SAMPLINGS: dict[str, Callable[..., np.ndarray]] = {
    "bins": sampling.bin_train_indices,
    "overlapping": sampling.train_indices,
}
OWN_PRESET = "mote"  # of the system, where ``data.transforms`` is empty
