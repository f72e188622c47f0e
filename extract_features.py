"""Store CLIP's frame features: python extract_features.py --config configs/k400/vitb16_8f.yaml --out features/k400

The folders OUT/train and OUT/val are what `data.modality: features` trains and tests from.
"""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch

from commands.arguments import add_view_arguments
from commands.extraction import describe, views_of, write_cache
from commands.testing import ListToTest, build_tested_model
from commands.weights import Weights
from datasets.features.writer import FeatureWriter
from datasets.read import read_videos
from modules.build import PLAIN_CLIP
from modules.systems.base import System
from utils.cli import MOST, add_common_arguments, run_main
from utils.distributed import is_main, process_group
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision

logger = logging.getLogger(__name__)

PARTS = ("train", "val")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="YAML file (default: the configuration of the checkpoint)")
    parser.add_argument(
        "--weights",
        default=PLAIN_CLIP,
        help="checkpoint whose image tower encodes, averaged with CLIP's as in a test (default: CLIP's own tower)",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the caches, one a part")
    parser.add_argument("--part", choices=(*PARTS, "both"), default="both", help="which lists (default: both)")
    add_view_arguments(parser)
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
    weights = Weights(args.weights)
    config = weights.config(args.config, args.overrides)
    if config.data.modality == "features":
        raise ValueError("data.modality: expected video or RGB, what features are made from, found 'features'")
    with process_group(config.solver.collective_timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        # Whole lists: few-shot runs find their videos in the cache of all.
        whole = replace(config.data, shot=0)
        class_names, lists = read_videos(whole, PARTS if args.part == "both" else (args.part,))
        some_list = ListToTest(config, next(iter(lists.values())), class_names)
        model, class_features = build_encoder(weights, some_list, precision)
        caches = {}
        failed: list[Path] = []
        for part, videos in lists.items():
            num_augmented = args.augmented_views if part == "train" else 0
            views = views_of(config, videos, class_names, args, num_augmented)
            caches[part] = describe(config, model, videos, args, num_augmented) | {"precision": precision.name}
            num_videos = max(1, config.data.batch_size // caches[part]["shape"][1])
            writer = FeatureWriter(args.out / part, videos, caches[part], num_videos)
            write_cache(writer, config.data, views, model, class_features, precision)
            failed += [writer.folder / path for path in writer.failed()]
    if failed:
        message = f"error: {len(failed)} videos could not be read and are not in the cache; failed.txt names them: "
        sys.exit(message + ", ".join(map(str, failed[:3])) if is_main() else 1)
    return caches


def build_encoder(weights: Weights, some_list: ListToTest, precision: Precision) -> tuple[System, torch.Tensor]:
    """The model whose image tower encodes, and features [K, D] of the classes; a list of texts has none."""
    if some_list.class_names:
        model, classes = build_tested_model(weights, {"": some_list}, precision)
        with torch.no_grad():
            return model, classes[""].encode(model.eval().towers)
    config = some_list.config
    model = weights.build(config, weights.towers(config, config.data.input_size).to(precision.device))
    return model, torch.zeros(0, model.towers.spec.embed_dim)


if __name__ == "__main__":
    run_main(main)
