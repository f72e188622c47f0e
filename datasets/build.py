"""DataConfig to loaders, and the samplers that share videos out among processes."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from datasets import sampling, transforms
from datasets.class_folders import ClassFolders, read_class_folders
from datasets.few_shot import few_shot_indices
from datasets.records import VideoList, read_class_names, read_video_list
from datasets.shards import ShardPack
from datasets.video import EvalVideos, TrainVideos, VideoSource, collate
from utils.config import DataConfig


class TrainBatches(Sampler):
    """Batches of (epoch, index) keys: a seeded permutation an epoch, the same for any number of processes.

    A global batch is ``batch_size * world_size`` consecutive videos of the permutation; process r takes its r-th
    part. The incomplete global batch at the end is dropped.

    Args:
        num_passes: permutations, one after the other, that make an epoch. Their keys count as epochs of their own,
            so that a video is augmented differently each time.

    Raises:
        ValueError: fewer videos than one global batch.
    """

    def __init__(self, num_videos: int, batch_size: int, rank: int, world_size: int, seed: int, num_passes: int = 1):
        self.num_videos, self.batch_size, self.rank, self.world_size = (
            num_videos,
            batch_size,
            rank,
            world_size,
        )
        self.seed, self.num_passes, self.epoch, self.first_batch = seed, num_passes, 0, 0
        if len(self) == 0:
            passes = f" x {num_passes} passes" if num_passes > 1 else ""
            raise ValueError(
                f"the train list has {num_videos} videos{passes}, fewer than one batch of {batch_size} x {world_size} "
                "processes; lower data.batch_size"
            )

    def __len__(self) -> int:
        return self.num_passes * self.num_videos // (self.batch_size * self.world_size)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the permutation of the next iteration, and how many of its batches to skip."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.concatenate([rng.permutation(self.num_videos) for _ in range(self.num_passes)])
        epochs = self.epoch * self.num_passes + np.repeat(np.arange(self.num_passes), self.num_videos)
        keys = np.stack([epochs, order], axis=1)
        global_batches = keys[: len(self) * self.batch_size * self.world_size].reshape(len(self), -1, 2)
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for batch in global_batches[self.first_batch :, mine]:
            yield [(epoch, index) for epoch, index in batch.tolist()]


class EveryNth(Sampler):
    """Process r's share of an evaluation: r, r + W, r + 2W, ...; no padding, every video exactly once."""

    def __init__(self, num_videos: int, rank: int, world_size: int):
        self.indices = range(rank, num_videos, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class LabelledVideos(NamedTuple):
    """What a configuration trains and tests on."""

    class_names: list[str]
    parts: dict[str, VideoList]
    split: ClassFolders | None  # where the lists were made from ``data.folder``


def read_data(config: DataConfig, parts: tuple[str, ...]) -> LabelledVideos:
    """Classes and the video lists of ``parts`` (``train``, ``val``), from files or from ``data.folder``.

    With ``data.shot`` the training list is ``shot`` videos of each class, see ``datasets.few_shot``.

    Raises:
        ValueError, FileNotFoundError: see ``read_class_names``, ``read_lists`` and ``read_class_folders``; lists
            and ``data.folder`` are both given.
    """
    split = _read_folder(config) if config.folder else None
    if split:
        class_names = split.class_names
        videos = {part: split.videos(part) for part in parts}
    else:
        class_names = read_class_names(config.label_list, config.num_classes)
        videos = {part: read_lists(config, part, len(class_names)) for part in parts}
    if config.shot and "train" in parts:
        chosen = few_shot_indices(videos["train"], config.shot, config.shot_seed, class_names)
        videos["train"] = videos["train"].take(chosen)
    return LabelledVideos(class_names, videos, split)


def _read_folder(config: DataConfig) -> ClassFolders:
    given = [
        f"data.{key}"
        for key in ("train_root", "train_list", "val_root", "val_list", "label_list")
        if getattr(config, key)
    ]
    if given:
        raise ValueError(f"data.folder takes the place of {', '.join(given)}; set only one of them")
    if config.modality != "video":
        raise ValueError(f"data.folder holds video files, but data.modality is {config.modality}")
    split = read_class_folders(config.folder, config.val_share)
    if config.num_classes not in (0, len(split.folders)):
        raise ValueError(
            f"data.num_classes is {config.num_classes}, but {config.folder} holds {len(split.folders)} classes"
        )
    return split


def read_lists(config: DataConfig, part: str, num_classes: int) -> VideoList:
    """The video list of ``train`` or ``val``, see ``datasets.records.read_video_list``.

    Raises:
        ValueError: also if ``image_tmpl`` gives all frames one name, and if a pack does not fit (see ``ShardPack``).
    """
    if config.modality == "RGB" and config.image_tmpl.format(1) == config.image_tmpl.format(2):
        expected = "a name with a number like img_{:05d}.jpg"
        raise ValueError(f"data.image_tmpl: expected {expected}, found {config.image_tmpl!r}")
    path, root = getattr(config, f"{part}_list"), getattr(config, f"{part}_root")
    videos = read_video_list(path, root, config.modality, num_classes, key=part)
    if config.modality == "shards":
        pack = ShardPack.open(root)
        pack.check(videos)
        if config.dense and pack.settings["frames"]:
            kept = pack.settings["frames"]
            raise ValueError(f"data.dense needs every frame; {root} was packed with --frames {kept}")
    return videos


def build_source(config: DataConfig, videos: VideoList) -> VideoSource:
    """What opens the videos of a list as ``data.modality`` says."""
    pack = ShardPack.open(videos.root) if config.modality == "shards" else None
    return VideoSource(videos, config.image_tmpl, config.index_bias, pack)


def build_train_loader(
    config: DataConfig, videos: VideoList, class_names: list[str], seed: int, rank: int, world_size: int
) -> DataLoader:
    """Loader of augmented training clips; its ``batch_sampler`` is a ``TrainBatches``."""
    indices_of = sampling.dense_train_indices if config.dense else sampling.train_indices
    if not config.random_shift:
        indices_of = partial(_first_eval_clip, dense=config.dense)
    transform = transforms.TrainTransform(
        config.input_size,
        transforms.mirror_labels(class_names),
        config.crop_area,
        (config.randaug.N, config.randaug.M) if config.randaug else None,
    )
    dataset = TrainVideos(
        build_source(config, videos),
        partial(indices_of, num_segments=config.num_segments),
        transform,
        seed,
    )
    batches = TrainBatches(len(dataset), config.batch_size, rank, world_size, seed, config.shot_repeat)
    return DataLoader(dataset, batch_sampler=batches, **_loader_options(config))


def build_eval_loader(
    config: DataConfig, videos: VideoList, rank: int, world_size: int, num_clips: int = 1, num_crops: int = 1
) -> DataLoader:
    """Loader of all views of every video, for validation (1 x 1) and every test protocol."""
    indices_of = sampling.dense_eval_indices if config.dense else sampling.eval_indices
    dataset = EvalVideos(
        build_source(config, videos),
        partial(indices_of, num_segments=config.num_segments, num_clips=num_clips),
        partial(transforms.eval_views, input_size=config.input_size, num_crops=num_crops),
    )
    share = EveryNth(len(dataset), rank, world_size)
    # About as many clips as a training batch: with 12 views, whole videos of a batch would fill the shared memory.
    num_videos = max(1, config.batch_size // (num_clips * num_crops))
    return DataLoader(dataset, sampler=share, batch_size=num_videos, **_loader_options(config))


def _first_eval_clip(num_frames: int, num_segments: int, rng: np.random.Generator, dense: bool) -> np.ndarray:
    """The frames of validation (``random_shift: False``)."""
    rule = sampling.dense_eval_indices if dense else sampling.eval_indices
    return rule(num_frames, num_segments)[0]


def _loader_options(config: DataConfig) -> dict:
    return {
        "num_workers": config.workers,
        "collate_fn": collate,
        "pin_memory": torch.cuda.is_available(),
        "persistent_workers": config.workers > 0,
        "prefetch_factor": config.prefetch if config.workers else None,
        "timeout": config.loader_timeout_s if config.workers else 0,
    }
