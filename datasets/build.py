"""DataConfig to loaders, and the samplers that share videos out among processes."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from datasets import sampling, transforms
from datasets.decoders import resolve_decoder
from datasets.records import VideoList, read_video_list
from datasets.video import EvalVideos, TrainVideos, VideoSource, collate
from utils.config import DataConfig


class TrainBatches(Sampler):
    """Batches of (epoch, index) keys: a seeded permutation an epoch, the same for any number of processes.

    A global batch is ``batch_size * world_size`` consecutive videos of the permutation; process r takes its r-th
    part. The incomplete global batch at the end is dropped.

    Raises:
        ValueError: fewer videos than one global batch.
    """

    def __init__(self, num_videos: int, batch_size: int, rank: int, world_size: int, seed: int):
        self.num_videos, self.batch_size, self.rank, self.world_size = (
            num_videos,
            batch_size,
            rank,
            world_size,
        )
        self.seed, self.epoch, self.first_batch = seed, 0, 0
        if len(self) == 0:
            raise ValueError(
                f"the train list has {num_videos} videos, fewer than one batch of {batch_size} x {world_size} "
                "processes; lower data.batch_size"
            )

    def __len__(self) -> int:
        return self.num_videos // (self.batch_size * self.world_size)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the permutation of the next iteration, and how many of its batches to skip."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_videos)
        global_batches = order[: len(self) * self.batch_size * self.world_size].reshape(len(self), -1)
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for batch in global_batches[self.first_batch :, mine]:
            yield [(self.epoch, index) for index in batch.tolist()]


class EveryNth(Sampler):
    """Process r's share of an evaluation: r, r + W, r + 2W, ...; no padding, every video exactly once."""

    def __init__(self, num_videos: int, rank: int, world_size: int):
        self.indices = range(rank, num_videos, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def read_lists(config: DataConfig, part: str, num_classes: int) -> VideoList:
    """The video list of ``train`` or ``val``, see ``datasets.records.read_video_list``.

    Raises:
        ValueError: also if ``image_tmpl`` gives all frames one name.
    """
    if config.modality == "RGB" and config.image_tmpl.format(1) == config.image_tmpl.format(2):
        expected = "a name with a number like img_{:05d}.jpg"
        raise ValueError(f"data.image_tmpl: expected {expected}, found {config.image_tmpl!r}")
    path, root = getattr(config, f"{part}_list"), getattr(config, f"{part}_root")
    return read_video_list(path, root, config.modality, num_classes, key=part)


def decoder_of(config: DataConfig) -> str | None:
    """Name of the decoder that reads the videos; None where they are not video files.

    Raises:
        ValueError: see ``datasets.decoders.resolve_decoder``.
    """
    return resolve_decoder(config.decoder) if config.modality == "video" else None


def build_source(config: DataConfig, videos: VideoList) -> VideoSource:
    """The videos of a list, read as the configuration says."""
    return VideoSource(
        videos,
        config.image_tmpl,
        config.index_bias,
        decoder_of(config) or "",
        config.decode_timeout_s,
    )


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
    batches = TrainBatches(len(dataset), config.batch_size, rank, world_size, seed)
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
    }
