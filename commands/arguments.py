"""Arguments that several commands have, and what those of tests name: configurations, and the folder of results."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands.weights import Weights
from datasets.clips.transforms import CROPS
from modules.build import PLAIN_CLIP
from utils.cli import add_common_arguments, count
from utils.config import Config, NetworkConfig
from utils.distributed import is_main
from utils.run_folder import folder_name
from utils.weights.model_files import is_hub_id


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


def build_parser(description: str, many_configs: bool) -> argparse.ArgumentParser:
    """Parser of what every test command takes; one may add its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--config",
        nargs="+" if many_configs else 1,
        default=[None],
        help=f"YAML file{'s' * many_configs} (default: the configuration of the checkpoint)",
    )
    parser.add_argument(
        "--weights",
        required=True,
        help=f"checkpoint: file, folder or hf://owner/name; or '{PLAIN_CLIP}': the pretrained model, frames averaged",
    )
    add_view_arguments(parser)
    parser.add_argument("--dense", action="store_true", help="clips are windows of 128 frames")
    parser.add_argument("--save_logits", type=Path, metavar="F.npz", help="write view logits, scores and labels")
    parser.add_argument("--output", type=Path, help="folder of results.json (default: beside the weights)")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page on every class and the worst mistakes")
    parser.add_argument("--strict", action="store_true", help="an unreadable video is an error")
    add_common_arguments(parser)
    return parser


def read_configs(args: argparse.Namespace, weights: Weights, settings: Mapping[str, Any] = {}) -> dict[str, Config]:
    """Configurations by file name, with the folder where two files have one name.

    Args:
        args: with ``config`` (paths; None: the configuration of the weights), ``overrides`` and ``dense``.
        settings: keys and values that overrides are laid over.

    Raises:
        ValueError, FileNotFoundError: see ``utils.config.load_config``; or they cannot share one model.
    """
    paths = [Path(path or "checkpoint") for path in args.config]
    stems = [path.stem for path in paths]
    names = [p.stem if stems.count(p.stem) == 1 else f"{p.parent.name}/{p.stem}" for p in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"--config names a file twice: {' '.join(args.config)}")
    overrides = args.overrides + ["data.dense=True"] * args.dense
    configs = {name: weights.config(path, overrides, settings) for name, path in zip(names, args.config, strict=True)}
    _check_same_network(configs)
    return configs


def _check_same_network(configs: dict[str, Config]) -> None:
    """One model is loaded for all configurations."""
    (first, reference), *others = configs.items()
    for name, config in others:
        for section in ("network", "eval", "probe", reference.network.system):
            found, expected = (getattr(each, section, each.sections.get(section)) for each in (config, reference))
            if found != expected:
                raise ValueError(f"configurations {first} and {name} differ in section {section}; test them one by one")
        shape, other = ((data.num_segments, data.input_size) for data in (reference.data, config.data))
        if shape != other:
            raise ValueError(f"configurations {first} and {name} differ in data.num_segments or data.input_size")


def create_output_folder(args: argparse.Namespace, protocol: str, configs: dict[str, Config]) -> Path:
    """``--output``, or a folder beside the weights that names protocol, weights, data and views.

    Made before the first video, like those of ``--save_logits`` and ``--report``: what cannot be written is known
    early.
    """
    first, views = next(iter(configs.values())), f"{args.test_clips}x{args.test_crops}" + "_dense" * args.dense
    weights = Path(args.weights)
    if args.weights == PLAIN_CLIP:
        weights = Path("exps", folder_name(first.network.arch))
    elif is_hub_id(args.weights):  # nothing local to be beside
        weights = Path("exps", weights.name)
    datasets = "+".join(dict.fromkeys(config.data.dataset for config in configs.values()))
    folder = args.output or weights.parent / f"{protocol}_{weights.stem}_{datasets}_{views}"
    for needed in (folder, args.report, args.save_logits and args.save_logits.parent):
        if needed and is_main():
            needed.mkdir(parents=True, exist_ok=True)
    return folder
