"""Presets: which frames a clip takes and how its pictures are cut, as one named object (``data.transforms``)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T
from torchvision.transforms.v2 import functional as F

from datasets.clips import sampling
from datasets.clips.augment import FrameJitter, MultiScaleCrop
from datasets.clips.resize import nearest_short_side, resize_short_side, squash
from datasets.clips.transforms import CROPS, TVTS_CROPS, VIFI_CROPS, Crops, TrainTransform
from utils.config import DataConfig, check_choice
from utils.config.pixels import IMAGENET, OWN_RESIZE, RESIZES, TOWER_PRESET

ANY_AREA = (0.08, 1.0)  # the default of data.crop_area
VIFI_SHORT_SIDE = 256 / 224  # of S
TVTS_SHORT_SIDE = 1.2  # of S


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
    resize: Callable[[Tensor, int], Tensor]  # frames, pixels of the short side -> frames; in evaluation
    crops: Mapping[int, Crops]  # by their number; the keys of ``CROPS``
    short_sides: Mapping[int, int] = field(default_factory=dict)  # S -> pixels, where ``short_side`` does not hold
    whole: Callable[[float], int] = round  # pixels of the short side, from the product
    jitter: Callable[[Tensor], Tensor] | None = None  # of training clips' colours, before some lose them
    own_clips: int = 3  # of one's own videos (predict.py), where nobody says a number
    # What it lays over the towers' own rules: fields of ``TowerSpec`` by name, such as the statistics of pixels.
    of_towers: Mapping[str, Any] = field(default_factory=dict)

    def resized_by(self, rule: str) -> "Preset":
        """The same with another way of resizing, a key of ``RESIZES``; in training only crops of any shape take it."""
        interpolation = InterpolationMode(RESIZES[rule]["interpolation"])
        crop = self.train_crop
        return replace(
            self,
            train_crop=partial(crop, interpolation=interpolation) if crop is random_resized_crop else crop,
            resize=partial(RESIZERS[RESIZES[rule]["resize"]], interpolation=interpolation),
            of_towers={**self.of_towers, **RESIZES[rule]},
        )

    def train_transform(
        self,
        input_size: int,
        mirror_labels: list[int],
        crop_area: tuple[float, float] = ANY_AREA,
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
        steps += [self.train_crop(input_size, crop_area), *([self.jitter] if self.jitter else [])]
        steps += [T.RandomGrayscale(p=self.gray_share)]
        return TrainTransform(T.Compose(steps), mirror_labels, self.flip_share)

    def resized_side(self, input_size: int, num_crops: int = 1) -> int:
        """Pixels of the short side of frames in evaluation, before crops of S are cut."""
        usual = input_size if self.crops[num_crops].of_smallest else self.whole(self.short_side * input_size)
        return self.short_sides.get(input_size, usual)

    def eval_views(self, frames: Tensor, input_size: int, num_crops: int) -> Tensor:
        """Resize and cut the crops of a test: uint8 [T, 3, H, W] -> [crops, T, 3, S, S]."""
        frames = self.resize(frames, self.resized_side(input_size, num_crops))
        height, width = frames.shape[-2:]
        crops, views = self.crops[num_crops], []
        for top, left in crops.corners(height - input_size, width - input_size):
            view = frames[..., top : top + input_size, left : left + input_size]
            views += [view, view.flip(-1)] if crops.has_mirrors else [view]
        return torch.stack(views)


def antialiased(frames: Tensor, short_side: int, interpolation: InterpolationMode) -> Tensor:
    """torchvision's resize, which comes within a grey level or two of PIL's."""
    return F.resize(frames, [short_side], interpolation, antialias=True)


def squashed(frames: Tensor, short_side: int, interpolation: InterpolationMode) -> Tensor:
    """As ``antialiased``, but both sides get so many pixels, whatever the shape was; nothing is cut off."""
    return F.resize(frames, [short_side, short_side], interpolation, antialias=True)


# Values of ``RESIZES``, entry ``resize``.
RESIZERS: dict[str, Callable[..., Tensor]] = {"shortest": antialiased, "squash": squashed}


def random_resized_crop(
    input_size: int,
    crop_area: tuple[float, float],
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
) -> T.RandomResizedCrop:
    """A share of the area, drawn evenly, with sides 3:4 to 4:3.

    The published code first resizes the short side to 256; a crop that is a share of the area does not depend on that,
    so here it is cut from the decoded frames and resized once.
    """
    return T.RandomResizedCrop(input_size, scale=crop_area, interpolation=interpolation, antialias=True)


def multi_scale_crop(input_size: int, crop_area: tuple[float, float]) -> MultiScaleCrop:
    """Crops of ViFi-CLIP's training, cut from frames whose short side is 256 for 224 pixels.

    Raises:
        ValueError: ``crop_area`` asks for others.
    """
    _check_own_shapes("vifi", crop_area)
    return MultiScaleCrop(input_size, int(VIFI_SHORT_SIDE * input_size))


def square_crop(input_size: int, crop_area: tuple[float, float]) -> T.Compose:
    """S x S pixels from any place of frames whose short side is 1.2 S, as in TVTSv2's training.

    Raises:
        ValueError: ``crop_area`` asks for others.
    """
    _check_own_shapes("tvts", crop_area)
    enlarge = partial(nearest_short_side, short_side=int(TVTS_SHORT_SIDE * input_size))
    return T.Compose([enlarge, T.RandomCrop(input_size)])


def _check_own_shapes(name: str, crop_area: tuple[float, float]) -> None:
    if tuple(crop_area) != ANY_AREA:
        raise ValueError(
            f"data.crop_area: the crops of data.transforms={name} have shapes of their own, "
            f"expected {list(ANY_AREA)}, found {list(crop_area)}"
        )


MOTE = Preset(
    sampling=Sampling(sampling.train_indices, sampling.eval_indices),
    dense_sampling=Sampling(sampling.dense_train_indices, sampling.dense_eval_indices),
    train_crop=random_resized_crop,
    gray_share=0.2,
    flip_share=0.5,
    short_side=1.0,
    resize=partial(antialiased, interpolation=InterpolationMode.BICUBIC),
    crops=CROPS,
    of_towers=RESIZES[OWN_RESIZE],
)

# Differs from MoTE's in two rules: bins of training frames are disjoint, and 224 pixels are cut from 256.
TEXT4VIS = replace(MOTE, sampling=MOTE.sampling._replace(train=sampling.bin_train_indices), short_sides={224: 256})

# Of ViFi-CLIP and OST, with OpenCV's resize and ImageNet's statistics in the place of CLIP's, which their weights are
# tuned to. Their code has no dense clips: those are MoTE's.
VIFI = Preset(
    sampling=Sampling(sampling.equal_train_indices, sampling.middle_eval_indices),
    dense_sampling=MOTE.dense_sampling,
    train_crop=multi_scale_crop,
    gray_share=0.2,
    flip_share=0.5,
    short_side=VIFI_SHORT_SIDE,
    resize=resize_short_side,
    crops=VIFI_CROPS,
    whole=int,
    jitter=FrameJitter(0.8, T.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)),
    of_towers=IMAGENET | {"resize": "shortest", "interpolation": "bilinear of OpenCV, not antialiased"},
)

# Of TVTSv2, whose frames are resized by Pillow's NEAREST. Zeros behind the frames of a short video are padding, see
# ``sampling.NO_FRAME``. Dense clips, and several crops, are not in its code.
TVTS = Preset(
    sampling=Sampling(sampling.part_train_indices, sampling.part_eval_indices),
    dense_sampling=MOTE.dense_sampling,
    train_crop=square_crop,
    gray_share=0.0,
    flip_share=0.0,
    short_side=TVTS_SHORT_SIDE,
    resize=nearest_short_side,
    crops=TVTS_CROPS,
    whole=int,
    of_towers=IMAGENET | {"resize": "shortest", "interpolation": "nearest of Pillow"},
)

# Of TVTSv2's features of single files, which no training and no benchmark of it has: frames are squashed to squares.
TVTS_FEATURE = replace(
    TVTS,
    sampling=TVTS.sampling._replace(evaluation=sampling.whole_eval_indices),
    short_side=1.0,
    resize=squash,
    own_clips=1,
    of_towers=IMAGENET | {"resize": "squash", "interpolation": "bilinear of Pillow, to a square"},
)

PRESETS: dict[str, Preset] = {
    "mote": MOTE,
    "text4vis": TEXT4VIS,
    "vifi": VIFI,
    "tvts": TVTS,
    "tvts_feature": TVTS_FEATURE,
    # MoTE's frames, and pictures as the tower's own description wants them: ``modules.build.load_config``, which knows
    # the tower, writes that into ``data.resize``. What needs no tower (``datasets.check``) takes MoTE's.
    TOWER_PRESET: MOTE,
}
# Rules of training frames, which ``data.train_sampling`` may put in the place of a preset's.
TRAIN_SAMPLINGS: dict[str, Callable[..., np.ndarray]] = {
    "bins": sampling.bin_train_indices,
    "overlapping": sampling.train_indices,
}
OWN_PRESET = "mote"  # of the system, where ``data.transforms`` is empty


def preset_of(config: DataConfig) -> Preset:
    """The rules of pictures that the configuration names, with what single keys change in them.

    Raises:
        ValueError: there is no such preset or rule of training frames; ``data.scale_size`` is below the input size.
    """
    name = config.transforms or OWN_PRESET
    check_choice("data.transforms", name, PRESETS)
    preset = PRESETS[name]
    if config.train_sampling:
        check_choice("data.train_sampling", config.train_sampling, TRAIN_SAMPLINGS)
        rule = preset.sampling._replace(train=TRAIN_SAMPLINGS[config.train_sampling])
        preset = replace(preset, sampling=rule)
    if config.resize:
        check_choice("data.resize", config.resize, RESIZES)
        preset = preset.resized_by(config.resize)
    if config.scale_size:
        if config.scale_size < config.input_size:
            raise ValueError(
                f"data.scale_size: expected 0 or at least the {config.input_size} pixels of data.input_size, which are "
                f"cut from it, found {config.scale_size}"
            )
        preset = replace(preset, short_sides={config.input_size: config.scale_size})
    return preset
