"""Store CLIP's frame features: python extract_features.py --config configs/k400/vitb16_8f.yaml --out features/k400

The folders OUT/train and OUT/val are what `data.modality: features` trains and tests from.
"""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from commands.testing import PLAIN_CLIP, build_tested_model
from datasets.build import augmented_views_of, build_chunk_loader, decoder_of, eval_views_of, read_data, sampling_rule
from datasets.clips.samplers import EveryNth
from datasets.clips.transforms import CROPS
from datasets.features.writer import FeatureWriter
from datasets.lists.records import VideoList
from engine.extract import extract
from modules.build import check_network, image_tower
from modules.video_clip import VideoCLIP
from utils.cli import MOST, add_common_arguments, add_view_arguments, run_main
from utils.config import Config, DataConfig, load_config
from utils.distributed import broadcast, gather, is_main, process_group, rank, world_size
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.run_folder import environment

logger = logging.getLogger(__name__)

PARTS = ("train", "val")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument(
        "--weights",
        default=PLAIN_CLIP,
        help="checkpoint whose image tower encodes, averaged with CLIP's as in a test (default: CLIP's own tower)",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the caches, one a part")
    parser.add_argument("--part", choices=(*PARTS, "both"), default="both", help="which lists (default: both)")
    add_view_arguments(parser, CROPS)
    parser.add_argument(
        "--augmented_views", type=int, default=0, metavar="N", help="N augmented training clips a video of train"
    )
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    if not 0 <= args.augmented_views <= MOST:
        parser.error(f"--augmented_views: expected 0 to {MOST}, found {args.augmented_views}")
    if args.augmented_views and (args.test_clips, args.test_crops) != (1, 1):
        parser.error("--augmented_views and the views of a test exclude each other: write two caches")
    if args.augmented_views and args.part == "val":
        parser.error("--augmented_views: only the train part is augmented")
    return args


def main(argv: list[str] | None = None) -> dict[str, dict]:
    """Write the caches; returns the metadata of each part.

    Raises:
        SystemExit: with status 1, when all is written, if videos could not be read.
    """
    args = parse_args(argv)
    setup_logging()
    config = _read_config(args)
    with process_group(config.solver.collective_timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        # Whole lists: few-shot runs find their videos in the cache of all.
        whole = replace(config.data, shot=0)
        class_names, lists, _ = read_data(whole, PARTS if args.part == "both" else (args.part,))
        some_list = next(iter(lists.values()))
        model, classes = build_tested_model(args.weights, {"": config}, {"": (some_list, class_names)}, precision)
        with torch.no_grad():
            class_features = model.eval().class_features(classes[""])
        caches = {}
        failed: list[Path] = []
        for part, videos in lists.items():
            num_augmented = args.augmented_views if part == "train" else 0
            views = _views(config, videos, class_names, args, num_augmented)
            caches[part] = describe(config, model, videos, args, num_augmented) | {"precision": precision.name}
            num_videos = max(1, config.data.batch_size // caches[part]["shape"][1])
            writer = FeatureWriter(args.out / part, videos, caches[part], num_videos)
            write_cache(writer, config.data, views, model, class_features, precision)
            failed += [writer.folder / path for path in writer.failed()]
    if failed:
        message = f"error: {len(failed)} videos could not be read and are not in the cache; failed.txt names them: "
        sys.exit(message + ", ".join(map(str, failed[:3])) if is_main() else 1)
    return caches


def write_cache(
    writer: FeatureWriter,
    config: DataConfig,
    views: Dataset,
    model: VideoCLIP,
    class_features: Tensor,
    precision: Precision,
) -> None:
    """Write what is missing of one cache; every process takes every W-th chunk."""
    missing = broadcast(writer.begin() if is_main() else None)
    mine = [missing[place] for place in EveryNth(len(missing), rank(), world_size())]
    logger.info("%s: %d of %d chunks to write", writer.folder, len(missing), len(writer.chunks))
    loader = build_chunk_loader(config, views, [writer.chunks[number] for number in mine], writer.shape[1])
    extract(model, loader, mine, writer, precision, config.batch_size, writer.folder.name)
    gather(None)  # all chunks are on disk
    if is_main():
        writer.finish(class_features.cpu().numpy())
    broadcast(None)


def describe(config: Config, model: VideoCLIP, videos: VideoList, args: argparse.Namespace, num_augmented: int) -> dict:
    """Metadata: everything that the bytes of a cache depend on, apart from the precision."""
    num_frames = 1 if config.network.joint_st else config.data.num_segments
    num_views = num_augmented or args.test_clips * args.test_crops
    is_tuned = args.weights != PLAIN_CLIP
    return {
        "shape": [len(videos), num_views, num_frames, model.clip.config.embed_dim],
        **image_tower(config, model),
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


def _views(
    config: Config, videos: VideoList, class_names: list[str], args: argparse.Namespace, num_augmented: int
) -> Dataset:
    if num_augmented:
        return augmented_views_of(config.data, videos, class_names, config.seed, num_augmented)
    return eval_views_of(config.data, videos, args.test_clips, args.test_crops)


def _read_config(args: argparse.Namespace) -> Config:
    config = load_config(args.config, args.overrides)
    if config.data.modality == "features":
        raise ValueError("data.modality: expected video or RGB, what features are made from, found 'features'")
    if args.weights == PLAIN_CLIP:
        config = replace(config, network=replace(config.network, sim_header="None"))
    check_network(config)
    return config


if __name__ == "__main__":
    run_main(main)
