"""What test.py and test_zeroshot.py share: arguments, the model under test, one result per configuration."""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.build import build_eval_loader, build_source, decoder_of, read_data
from datasets.clips.thumbnails import film_strip
from datasets.clips.transforms import CROPS
from datasets.decode.decoders import PYAV
from datasets.features import FeatureCache
from datasets.lists.records import VideoList
from engine.collect import ViewLogits, check_some_read, evaluate
from engine.protocols.rules import accuracy
from engine.results import Results, over_splits, write_results
from modules.build import build_classes, build_clip, build_model, check_network, image_tower, load_model
from modules.formats.ours import read_checkpoint
from modules.video_clip import VideoCLIP
from reports.page import TestedSplit, write_page
from reports.tables import table
from utils.cli import add_common_arguments, add_view_arguments
from utils.config import Config, load_config
from utils.distributed import is_main, process_group, rank, world_size
from utils.files import whole_file
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.run_folder import folder_name
from utils.weights.model_files import is_hub_id

logger = logging.getLogger(__name__)

PLAIN_CLIP = "clip"  # in the place of a weights file


@dataclass(frozen=True)
class Protocol:
    """How view logits become scores and figures."""

    name: str  # part of the default output folder's name
    rule: str  # the fusion rule's name in the results
    fuse: Callable[[Tensor, Config], Tensor]  # [N, V, K] -> [N, K]
    extra_figures: Callable[[Tensor, Tensor, Config], dict]  # scores, labels -> more of ``Results``


def parse_args(description: str, argv: list[str] | None, many_configs: bool) -> argparse.Namespace:
    """Arguments of a test command."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--config", required=True, nargs="+" if many_configs else 1, help="YAML file" + "s" * many_configs
    )
    parser.add_argument(
        "--weights",
        required=True,
        help=f"checkpoint: file, folder or hf://owner/name; or '{PLAIN_CLIP}': the pretrained model, frames averaged",
    )
    add_view_arguments(parser, CROPS)
    parser.add_argument("--dense", action="store_true", help="clips are windows of 128 frames")
    parser.add_argument("--save_logits", type=Path, metavar="F.npz", help="write view logits, scores and labels")
    parser.add_argument("--output", type=Path, help="folder of results.json (default: beside the weights)")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page on every class and the worst mistakes")
    parser.add_argument("--strict", action="store_true", help="an unreadable video is an error")
    add_common_arguments(parser)
    return parser.parse_intermixed_args(argv)


def run_test(args: argparse.Namespace, protocol: Protocol) -> dict:
    """Test one model on the data of every configuration; write and print the results, and return them.

    Raises:
        ValueError, FileNotFoundError: anything wrong with the input, before the first video; after the results are
            written, a list of which no video could be read, and with ``--strict`` any unreadable video.
    """
    setup_logging()
    configs = read_configs(args)
    timeout_s = max(config.solver.collective_timeout_s for config in configs.values())
    with process_group(timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        parts = {name: read_part(config) for name, config in configs.items()}
        model, classes = build_tested_model(args.weights, configs, parts, precision)
        _check_features(configs, model)
        folder = _create_output_folder(args, protocol, configs)
        splits, tested, views_of = {}, [], {}
        for name, (videos, _) in parts.items():
            views = views_of[name] = _test_part(model, classes[name], videos, configs[name], args, precision)
            scores = protocol.fuse(views.logits, configs[name])
            splits[name] = _result(args, protocol, configs[name], videos, views, scores, precision)
            if args.save_logits and is_main():
                _save_logits(_logits_path(args, name, len(configs)), views, scores, videos)
            if args.report:
                scale = model.clip.logit_scale.exp().item()
                tested.append(_tested_split(name, splits[name], parts[name], views, scores, scale, configs[name]))
        results = next(iter(splits.values())) if len(splits) == 1 else over_splits(splits)
        if is_main():
            write_results(folder / "results.json", results)
            logger.info("wrote %s", folder / "results.json")
            sys.stdout.write(table(splits, mean=results if len(splits) > 1 else None))
            if args.report:
                logger.info("wrote %s", write_page(args.report, results, tested))
    for name, views in views_of.items():
        check_some_read(views, name)
    if args.strict and (failed := results.failed_videos):
        raise ValueError(f"--strict: {len(failed)} videos could not be read: {', '.join(failed[:5])}")
    return results.to_dict()


def _result(
    args: argparse.Namespace,
    protocol: Protocol,
    config: Config,
    videos: VideoList,
    views: ViewLogits,
    scores: Tensor,
    precision: Precision,
) -> Results:
    """Figures of one list, with everything that one must know to compare them."""
    labels, decoder = torch.from_numpy(videos.labels), decoder_of(config.data)
    return Results(
        dataset=config.data.dataset,
        **accuracy(scores, labels),
        num_videos=len(videos),
        num_clips=args.test_clips,
        num_crops=args.test_crops,
        dense=config.data.dense,
        fusion=protocol.rule,
        weights=args.weights,
        list_fingerprint=videos.fingerprint(),
        precision=precision.name,
        decoder=decoder or None,
        failed_videos=sorted(views.failures),
        # PyAV is what the others are compared with.
        frame_count_mismatches=None if decoder in (None, PYAV) else sorted(views.mismatches),
        **protocol.extra_figures(scores, labels, config),
    )


def _create_output_folder(args: argparse.Namespace, protocol: Protocol, configs: dict[str, Config]) -> Path:
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
    folder = args.output or weights.parent / f"{protocol.name}_{weights.stem}_{datasets}_{views}"
    for needed in (folder, args.report, args.save_logits and args.save_logits.parent):
        if needed and is_main():
            needed.mkdir(parents=True, exist_ok=True)
    return folder


def read_configs(args: argparse.Namespace) -> dict[str, Config]:
    """Configurations by file name, with the folder where two files have one name.

    Args:
        args: with ``config`` (paths), ``weights``, ``overrides`` and ``dense``.

    Raises:
        ValueError, FileNotFoundError: see ``utils.config.load_config``; or they cannot share one model.
    """
    paths = [Path(path) for path in args.config]
    stems = [path.stem for path in paths]
    names = [p.stem if stems.count(p.stem) == 1 else f"{p.parent.name}/{p.stem}" for p in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"--config names a file twice: {' '.join(args.config)}")
    configs = {name: _read_config(path, args) for name, path in zip(names, args.config, strict=True)}
    _check_same_network(configs)
    return configs


def _read_config(path: str, args: argparse.Namespace) -> Config:
    config = load_config(path, args.overrides)
    config = replace(config, data=replace(config.data, dense=config.data.dense or args.dense))
    if args.weights == PLAIN_CLIP:
        config = replace(config, network=replace(config.network, sim_header="None"))
    check_network(config)
    return config


def _check_same_network(configs: dict[str, Config]) -> None:
    """One model is loaded for all configurations."""
    (first, reference), *others = configs.items()
    for name, config in others:
        for section in ("network", "eval"):
            if getattr(config, section) != getattr(reference, section):
                raise ValueError(f"configurations {first} and {name} differ in section {section}; test them one by one")
        if (config.data.num_segments, config.data.input_size) != (
            reference.data.num_segments,
            reference.data.input_size,
        ):
            raise ValueError(f"configurations {first} and {name} differ in data.num_segments or data.input_size")


def read_part(config: Config) -> tuple[VideoList, list[str]]:
    """The list that a configuration is tested on, and its class names."""
    class_names, videos, _ = read_data(config.data, ("val",))
    return videos["val"], class_names


def build_tested_model(
    weights: str, configs: dict[str, Config], parts: dict[str, tuple[VideoList, list[str]]], precision: Precision
) -> tuple[VideoCLIP, dict[str, Tensor]]:
    """The model with the weights under test, and each part's classes as features or tokens."""
    checkpoint = None if weights == PLAIN_CLIP else read_checkpoint(weights)
    config = next(iter(configs.values()))
    clip = build_clip(config.network, config.data.num_segments, config.data.input_size, config.seed)
    clip = clip.to(precision.device)
    classes = {name: build_classes(config.network, clip, class_names) for name, (_, class_names) in parts.items()}
    reference = next(iter(classes.values()))
    if checkpoint is None:
        return build_model(config, clip, reference), classes
    return load_model(config, clip, reference, checkpoint, weights), classes


def _check_features(configs: dict[str, Config], model: VideoCLIP) -> None:
    """See that cached features are those of the model's image tower."""
    cached = [config for config in configs.values() if config.data.modality == "features"]
    if cached:
        tower = image_tower(cached[0], model)
        for config in cached:
            FeatureCache.open(config.data.val_root, "val_root").check(tower)


def _test_part(
    model: VideoCLIP,
    classes: Tensor,
    videos: VideoList,
    config: Config,
    args: argparse.Namespace,
    precision: Precision,
) -> ViewLogits:
    loader = build_eval_loader(config.data, videos, rank(), world_size(), args.test_clips, args.test_crops)
    num_views = args.test_clips * args.test_crops
    return evaluate(model, loader, classes, num_views, precision, config.data.batch_size, config.data.dataset)


def _tested_split(
    name: str,
    result: Results,
    part: tuple[VideoList, list[str]],
    views: ViewLogits,
    scores: Tensor,
    logit_scale: float,
    config: Config,
) -> TestedSplit:
    """One list's part of the page; pictures come from the videos through the configured decoder."""
    videos, class_names = part
    return TestedSplit(
        name,
        result,
        class_names,
        videos.labels,
        [videos.path(index) for index in range(len(videos))],
        scores,
        (logit_scale * views.logits.mean(dim=1)).log_softmax(dim=1),
        views.failures,
        film_strip=_no_picture
        if config.data.modality == "features"
        else partial(film_strip, build_source(config.data, videos)),
    )


def _no_picture(index: int) -> None:
    """A feature cache holds no frames."""


def _logits_path(args: argparse.Namespace, name: str, num_configs: int) -> Path:
    """``--save_logits`` itself, or with the configuration's name before the suffix if there are several."""
    path = args.save_logits
    return path if num_configs == 1 else path.with_name(f"{path.stem}_{name.replace('/', '_')}{path.suffix}")


def _save_logits(path: Path, views: ViewLogits, scores: Tensor, videos: VideoList) -> None:
    paths = np.array([videos.path(index) for index in range(len(videos))])
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    tables = {"view_logits": views.logits.numpy(), "scores": scores.float().numpy(), "labels": videos.labels}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, **tables, paths=paths)
