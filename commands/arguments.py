"""Arguments that several commands have."""

import argparse

from datasets.clips.transforms import CROPS
from utils.cli import count
from utils.config import NetworkConfig


def add_view_arguments(parser: argparse.ArgumentParser, num_clips: int | None = 1) -> None:
    """``--test_clips`` (default: ``num_clips``; None: what the preset says) and ``--test_crops``."""
    default = "3, or as the preset says" if num_clips is None else num_clips
    parser.add_argument("--test_clips", type=count, default=num_clips, help=f"clips a video (default: {default})")
    parser.add_argument("--test_crops", type=int, default=1, choices=sorted(CROPS), help="crops a clip (default: 1)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose a model, see ``VideoClassifier.load``."""
    parser.add_argument("--weights", help="checkpoint (default: plain CLIP, frames averaged)")
    parser.add_argument("--config", help="YAML file (default: what the checkpoint carries or implies)")
    parser.add_argument(
        "--arch", help=f"CLIP: a name or a file (default: the configuration's, else {NetworkConfig.arch})"
    )
