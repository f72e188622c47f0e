"""DataConfig to lists, datasets and loaders."""

import dataclasses
import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.clips.presets import OWN_PRESET, PRESETS, TRAIN_SAMPLINGS, Sampling, preset_of
from datasets.clips.samplers import TrainBatches
from datasets.clips.transforms import TrainTransform, mirror_labels
from datasets.clips.video import AugmentedViews, Batch, EvalVideos, TrainVideos, VideoSource, collate
from datasets.decode.decoders import resolve_decoder
from datasets.features.cache import AUGMENTATION, FeatureCache, FeatureVideos, TrainFeatureVideos
from datasets.lists.records import VideoList
from datasets.pack.shards import ShardPack
from utils.config import DataConfig
from utils.workers import WorkerLoader

logger = logging.getLogger(__name__)


def decoder_of(config: DataConfig) -> str | None:
    """Name of the decoder that reads the videos, or read them for a feature cache; None where they are not video files.

    Raises:
        ValueError: see ``datasets.decode.decoders.resolve_decoder``.
    """
    if config.modality == "features":
        return FeatureCache.open(config.val_root, "val_root").entries.decoder
    return resolve_decoder(config.decoder) if config.modality == "video" else None


def build_source(config: DataConfig, videos: VideoList) -> VideoSource:
    """What opens the videos of a list as the configuration says."""
    return VideoSource(
        videos,
        config.image_tmpl,
        config.index_bias,
        decoder=decoder_of(config) or "",
        max_pixels=config.max_pixels,
        timeout_s=config.decode_timeout_s,
        pack=ShardPack.open(videos.root) if config.modality == "shards" else None,
    )


def build_train_loader(
    config: DataConfig, videos: VideoList, class_names: list[str], seed: int, rank: int, world_size: int
) -> WorkerLoader:
    """Loader of augmented training clips; its ``batch_sampler`` is a ``TrainBatches``.

    ``data.shot_repeat`` is a number of passes here; what its 0 stands for is known to ``read_data``.
    """
    if config.modality == "features":
        dataset: Dataset = _train_features(config, videos, class_names, seed)
    else:
        dataset = TrainVideos(*_train_clips(config, videos, class_names), seed)
    batches = TrainBatches(len(dataset), config.batch_size, rank, world_size, seed, config.shot_repeat)
    return WorkerLoader(dataset, batch_sampler=batches, **loader_options(config, config.batch_size))


def _train_clips(config: DataConfig, videos: VideoList, class_names: list[str]) -> tuple:
    """Videos, frame rule and augmentation of training."""
    return build_source(config, videos), train_rule(config), train_transform(config, mirror_labels(class_names))


def train_rule(config: DataConfig) -> Callable[..., np.ndarray]:
    """Frame rule of training: (number of frames, rng=generator) -> int64 [T]."""
    if not config.random_shift:
        return eval_rule(config)
    return partial(_sampling_of(config).train, num_segments=config.num_segments)


def eval_rule(config: DataConfig) -> Callable[..., np.ndarray]:
    """The frames of validation, as a rule of training: nothing is drawn."""
    return partial(_first_eval_clip, rule=_sampling_of(config), num_segments=config.num_segments)


def train_transform(config: DataConfig, mirrored: list[int]) -> TrainTransform:
    """Augmentation of training; ``mirrored``: see ``datasets.clips.transforms.mirror_labels``."""
    randaug = (config.randaug.N, config.randaug.M) if config.randaug else None
    return preset_of(config).train_transform(config.input_size, mirrored, config.crop_area, randaug)


def _train_features(config: DataConfig, videos: VideoList, class_names: list[str], seed: int) -> TrainFeatureVideos:
    """Views of a feature cache for training: augmented ones, or those of an evaluation."""
    cache = FeatureCache.open(videos.root, "train_root")
    cache.check(sampling_rule(config, cache.entries.augmented))
    if cache.entries.num_crops == 10 and mirror_labels(class_names) != list(range(len(class_names))):
        raise ValueError(
            f"data.train_root {cache.folder}: 10 crops hold mirror images under the label of the original, and classes "
            "here mirror each other; use augmented views"
        )
    kind = "augmented" if cache.entries.augmented else "evaluation, not augmented"
    logger.info("training on cached features, %d views a video (%s)", cache.num_views, kind)
    dataset = TrainFeatureVideos(cache, videos, seed)
    cache.check_arrays(dataset.rows, num_classes=len(class_names))
    return dataset


def build_eval_loader(
    config: DataConfig, videos: VideoList, rank: int, world_size: int, num_clips: int = 1, num_crops: int = 1
) -> WorkerLoader:
    """Loader of all views of every video, for validation (1 x 1) and every test protocol."""
    if config.modality == "features":
        cache = FeatureCache.open(videos.root, "val_root")
        views = {"augmented": False, "num_clips": num_clips, "num_crops": num_crops}
        cache.check(views | sampling_rule(config, is_augmented=False))
        _, num_views, num_frames, _ = cache.entries.shape
        if num_views != num_clips * num_crops or num_frames not in (1, config.num_segments):  # 1: joint attention
            expected = f"{num_clips * num_crops} views of {config.num_segments} frames"
            raise ValueError(f"feature cache {cache.folder}: damaged, its shape is not that of {expected}")
        dataset: Dataset = FeatureVideos(cache, videos)
    else:
        dataset = eval_views_of(config, videos, num_clips, num_crops)
    share = range(rank, len(dataset), world_size)  # no padding, every video exactly once
    # About as many clips as a training batch: with 12 views, whole videos of a batch would fill the shared memory.
    num_videos = max(1, config.batch_size // (num_clips * num_crops))
    options = loader_options(config, num_videos * num_clips * num_crops)
    return WorkerLoader(dataset, sampler=share, batch_size=num_videos, **options)


def build_chunk_loader(config: DataConfig, views: Dataset, chunks: list[range], num_views: int) -> WorkerLoader:
    """Loader whose batches are the given rows of a dataset of views, ``num_views`` a video."""
    num_clips = max(map(len, chunks), default=0) * num_views
    return WorkerLoader(views, batch_sampler=chunks, **loader_options(config, num_clips))


def augmented_views_of(
    config: DataConfig, videos: VideoList, class_names: list[str], seed: int, num_views: int
) -> AugmentedViews:
    """V training clips of every video of a list.

    Raises:
        ValueError: videos have several labels.
    """
    videos.check_one_label("data.train_list", "training on augmented views")
    return AugmentedViews(*_train_clips(config, videos, class_names), seed, num_views)


def sampling_rule(config: DataConfig, is_augmented: bool) -> dict:
    """The settings that the pictures of a view depend on, as a feature cache records them.

    A key that says what the preset does anyway counts as empty.
    """
    names = ("num_segments", "input_size", "dense") + AUGMENTATION * is_augmented
    settings = dataclasses.asdict(config)
    rule = {name: settings[name] for name in names} | {"transforms": config.transforms or OWN_PRESET}
    preset = PRESETS[rule["transforms"]]
    if is_augmented:
        is_own = TRAIN_SAMPLINGS.get(config.train_sampling) is preset.sampling.train
        return rule | {"train_sampling": "" if is_own else config.train_sampling}
    own_sides = {preset.resized_side(config.input_size, num_crops) for num_crops in preset.crops}
    is_own = own_sides == {config.scale_size}
    return rule | {"scale_size": 0 if is_own else config.scale_size}


def eval_views_of(config: DataConfig, videos: VideoList, num_clips: int, num_crops: int) -> EvalVideos:
    """All views of every video of a list."""
    return _eval_views(config, build_source(config, videos), num_clips, num_crops)


def _eval_views(config: DataConfig, source: VideoSource, num_clips: int, num_crops: int) -> EvalVideos:
    return EvalVideos(
        source,
        partial(_sampling_of(config).evaluation, num_segments=config.num_segments, num_clips=num_clips),
        partial(preset_of(config).eval_views, input_size=config.input_size, num_crops=num_crops),
    )


def build_own_loader(config: DataConfig, paths: list[str], num_clips: int, num_crops: int) -> WorkerLoader:
    """Loader of all views of video files without labels, in their order.

    Videos are spread over the workers even if all would fit into one batch; a single video needs no worker.
    """
    source = VideoSource(
        VideoList.of_pairs("", [(path, -1) for path in paths]),
        decoder=resolve_decoder(config.decoder),
        max_pixels=config.max_pixels,
        timeout_s=config.decode_timeout_s,
    )
    most = max(1, config.batch_size // (num_clips * num_crops))
    num_videos = min(most, -(-len(paths) // max(config.workers, 1)))
    few = dataclasses.replace(config, workers=min(config.workers, len(paths) - 1))
    options = loader_options(few, num_videos * num_clips * num_crops)
    return WorkerLoader(_eval_views(config, source, num_clips, num_crops), batch_size=num_videos, **options)


def _sampling_of(config: DataConfig) -> Sampling:
    preset = preset_of(config)
    return preset.dense_sampling if config.dense else preset.sampling


def _first_eval_clip(num_frames: int, num_segments: int, rng: np.random.Generator, rule: Sampling) -> np.ndarray:
    """The frames of validation (``random_shift: False``)."""
    return rule.evaluation(num_frames, num_segments, num_clips=1)[0]


def _as_is(batch: Batch) -> Batch:
    return batch


def loader_options(config: DataConfig, num_clips: int) -> dict:
    """Options of a loader whose batches hold ``num_clips`` clips."""
    is_cached = config.modality == "features"  # these come as batches, and are small
    clip_bytes = 0 if is_cached else 3 * config.num_segments * config.input_size**2  # uint8 [T, 3, S, S]
    return {
        "batch_bytes": num_clips * clip_bytes,
        "time_limit_s": config.loader_timeout_s,
        "num_workers": config.workers,
        "collate_fn": _as_is if is_cached else collate,
        "pin_memory": torch.cuda.is_available(),
        "prefetch_factor": config.prefetch if config.workers else None,
    }
