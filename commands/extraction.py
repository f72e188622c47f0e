"""Frame features in caches: written, which may be stopped anywhere and goes on where it was, and checked."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.build import augmented_views_of, build_chunk_loader, decoder_of, eval_views_of, sampling_rule
from datasets.features.cache import FeatureCache
from datasets.features.writer import FeatureWriter
from datasets.lists.records import VideoList
from engine.collect import Pass, batches_of
from engine.failures import report_mismatches
from modules.build import PLAIN_CLIP, describe_towers
from modules.systems.base import System
from utils.config import Config, DataConfig
from utils.distributed import broadcast, from_main, gather, is_main, rank, world_size
from utils.precision import Precision
from utils.run_folder import environment

logger = logging.getLogger(__name__)


def views_of(
    config: Config, videos: VideoList, class_names: list[str], args: argparse.Namespace, num_augmented: int
) -> Dataset:
    """The clips of a cache: augmented ones of training, or the views of a test."""
    if num_augmented:
        return augmented_views_of(config.data, videos, class_names, config.seed, num_augmented)
    return eval_views_of(config.data, videos, args.test_clips, args.test_crops)


def write_cache(
    writer: FeatureWriter,
    config: DataConfig,
    views: Dataset,
    model: System,
    class_features: Tensor,
    precision: Precision,
) -> None:
    """Write what is missing of one cache; every process takes every W-th chunk."""
    missing = from_main(writer.begin)
    mine = missing[rank() :: world_size()]
    logger.info("%s: %d of %d chunks to write", writer.folder, len(missing), len(writer.chunks))
    loader = build_chunk_loader(config, views, [writer.chunks[number] for number in mine], writer.shape[1])
    model.eval()
    how = Pass(precision, config.batch_size, writer.folder.name)
    encoded = batches_of(lambda batch: {"features": model.video_of(batch).frames.half().cpu()}, loader, how)
    for number, (batch, rows) in zip(mine, encoded, strict=True):
        writer.write(number, *chunk_of(batch, rows, writer.chunks[number], writer.shape[1:]))
    gather(None)  # all chunks are on disk
    if is_main():
        writer.finish(class_features.cpu().numpy())
    broadcast(None)


def check_features(config: Config, system: System, roots: Sequence[str] = ("train_root", "val_root")) -> None:
    """See that cached features, where they take the place of videos, are those of the model's image tower.

    Args:
        roots: keys of section ``data`` that name the caches.

    Raises:
        ValueError: they are another tower's.
    """
    if config.data.modality == "features":
        tower = describe_towers(config, system.towers)
        for root in roots:
            FeatureCache.open(getattr(config.data, root), root).check(tower)


def chunk_of(
    batch: Any, rows: dict[str, Tensor], chunk: range, shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """One chunk as the writer takes it: features float16 [n, V, T, D], labels int64 [n, V], path -> reason.

    A chunk depends on nothing but its videos and the number of clips of a pass, so neither restarts nor the number of
    processes change it.

    Args:
        rows: ``features`` of the videos that could be read; those of the others are zero.
        shape: V, T, D.

    Raises:
        FloatingPointError: features that float16 cannot hold.
    """
    features = torch.zeros(len(chunk), *shape, dtype=torch.float16)
    labels = torch.full((len(chunk), shape[0]), -1)
    if rows:
        places = batch.indices - chunk.start
        features[places] = rows["features"]
        labels[places] = batch.labels.view(len(places), -1).expand(-1, shape[0])
    if not features.isfinite().all():
        raise FloatingPointError(f"features of rows {chunk.start} to {chunk.stop - 1} do not fit into float16")
    report_mismatches(dict(batch.mismatches))
    return features.numpy(), labels.numpy(), {failure.path: failure.reason for failure in batch.failures}


def describe(config: Config, model: System, videos: VideoList, args: argparse.Namespace, num_augmented: int) -> dict:
    """Metadata: everything that the bytes of a cache depend on, apart from the precision."""
    num_frames = 1 if model.towers.joins_frames else config.data.num_segments
    num_views = num_augmented or args.test_clips * args.test_crops
    is_tuned = args.weights != PLAIN_CLIP
    return {
        "shape": [len(videos), num_views, num_frames, model.towers.spec.embed_dim],
        **describe_towers(config, model.towers),
        "context_length": model.towers.spec.context_length,  # of the class features
        "weights": args.weights,
        "weight_average": config.eval.weight_average if is_tuned else None,
        "modality": config.data.modality,
        "decoder": decoder_of(config.data),
        **sampling_rule(config.data, is_augmented=num_augmented > 0),
        "augmented": num_augmented > 0,
        "num_clips": None if num_augmented else args.test_clips,
        "num_crops": None if num_augmented else args.test_crops,
        "seed": config.seed if num_augmented else None,
        "dataset": config.data.dataset,
        "list_fingerprint": videos.fingerprint(),
        "list_order": videos.order_fingerprint(),
        "templates": config.network.templates,
        "clips_per_pass": config.data.batch_size,
        "versions": {name: version for name, version in environment().items() if name != "git_sha"},
    }
