"""What test.py and test_zeroshot.py share: arguments, the model under test, one result per configuration."""

import argparse
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from commands.arguments import add_view_arguments
from commands.extraction import check_features
from commands.weights import Weights
from datasets.build import build_eval_loader, build_source, decoder_of, read_data
from datasets.clips.thumbnails import film_strip
from datasets.decode.decoders import PYAV
from datasets.lists.records import VideoList
from engine.collect import Pass, Tables, score_views
from engine.protocols.base import Protocol
from engine.protocols.multilabel import average_precisions
from engine.results import Results, over_splits, write_results
from modules.build import PLAIN_CLIP
from modules.classes.base import Classes
from modules.systems.base import System
from reports.page import TestedSplit, write_page
from reports.tables import table
from utils.cli import add_common_arguments
from utils.config import Config, DataConfig, EvalConfig
from utils.distributed import is_main, process_group, rank, world_size
from utils.files import whole_file
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.run_folder import folder_name
from utils.weights.model_files import is_hub_id

logger = logging.getLogger(__name__)


class ListToTest(NamedTuple):
    """A configuration with the list and the class names that it is tested on."""

    config: Config
    videos: VideoList
    class_names: list[str]

    @classmethod
    def read(cls, config: Config) -> "ListToTest":
        """See ``read_data``."""
        class_names, videos, *_ = read_data(config.data, ("val",))
        return cls(config, videos["val"], class_names)


def parse_args(description: str, argv: list[str] | None, many_configs: bool) -> argparse.Namespace:
    """Arguments of a test command."""
    return build_parser(description, many_configs).parse_intermixed_args(argv)


def build_parser(description: str, many_configs: bool) -> argparse.ArgumentParser:
    """What parses them; a command may add its own."""
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


def run_test(args: argparse.Namespace, protocol_of: Callable[[EvalConfig], Protocol]) -> dict:
    """Test one model on the data of every configuration; write and print the results, and return them.

    Args:
        protocol_of: section ``eval`` of a configuration -> how views become scores and figures.

    Raises:
        ValueError, FileNotFoundError: anything wrong with the input, before the first video; after the results are
            written, a list of which no video could be read, and with ``--strict`` any unreadable video.
    """
    setup_logging()
    weights = Weights(args.weights)
    configs = read_configs(args, weights)
    with process_group(max(config.solver.collective_timeout_s for config in configs.values())) as device:
        precision = resolve_precision(args.precision, device)
        lists = {name: ListToTest.read(config) for name, config in configs.items()}
        model, classes = build_tested_model(weights, lists, precision)
        for config in configs.values():
            check_features(config, model, ["val_root"])
        protocol = protocol_of(next(iter(configs.values())).eval)  # alike in all
        check_targets(lists, protocol)
        folder = create_output_folder(args, protocol.name, configs)
        splits, tested, views_of = {}, [], {}
        for name, (config, videos, class_names) in lists.items():
            data, num_views = config.data, args.test_clips * args.test_crops
            loader = build_eval_loader(data, videos, rank(), world_size(), args.test_clips, args.test_crops)
            passed = Pass(precision, data.batch_size, data.dataset)
            tables = protocol.fusion.tables
            views = views_of[name] = score_views(model, loader, classes[name], num_views, passed, tables)
            scores = protocol.fusion.fuse(views.tables, views.classes, model.logit_scale.item())
            figures = {} if videos.has_label_sets else protocol.figures(scores, torch.from_numpy(videos.labels))
            targets, precisions = torch.from_numpy(videos.multi_hot(len(class_names))), None
            if config.eval.mean_ap:
                precisions = average_precisions(protocol.fusion.probabilities(scores), targets, config.eval.map_softmax)
                figures["mAP"] = float(precisions.mean())
            how = {"fusion": protocol.fusion.rule, "precision": precision.name}
            texts = classes[name].fingerprint or None
            splits[name] = result_of(args, data, videos, views, class_texts=texts, **how, **figures)
            if args.save_logits and is_main():
                _save_logits(args, name, views, scores, videos)
            if args.report:
                cosines = scores if protocol.fusion.gives_cosines else views.tables["scores"].mean(dim=1)
                log_probabilities = (model.logit_scale.item() * cosines).log_softmax(dim=1)
                what = splits[name], class_names, videos.labels, paths_of(videos), scores, log_probabilities
                tested.append(TestedSplit(name, *what, views.failures, film_strips(data, videos), targets, precisions))
        results = next(iter(splits.values())) if len(splits) == 1 else over_splits(splits)
        if is_main():
            write_results(folder / "results.json", results)
            logger.info("wrote %s", folder / "results.json")
            sys.stdout.write(table(splits, mean=results if len(splits) > 1 else None))
            if args.report:
                logger.info("wrote %s", write_page(args.report, results, tested))
    for name, views in views_of.items():
        views.check_some_read(name)
    if args.strict and (failed := results.failed_videos):
        raise ValueError(f"--strict: {len(failed)} videos could not be read: {', '.join(failed[:5])}")
    return results.to_dict()


def check_targets(lists: dict[str, ListToTest], protocol: Protocol) -> None:
    """See that videos have one label each, where the protocol or a test without ``eval.mean_ap`` needs that."""
    for name, (config, videos, _) in lists.items():
        if videos.has_label_sets and protocol.needs_one_label:
            videos.check_one_label(f"{name}: data.val_list", protocol.needs_one_label)
        if not config.eval.mean_ap:
            videos.check_one_label(f"{name}: data.val_list", "a test without eval.mean_ap=True")


def result_of(args: argparse.Namespace, data: DataConfig, videos: VideoList, views: Tables, **figures: Any) -> Results:
    """Figures of one list, with everything that one must know to compare them."""
    decoder = decoder_of(data)
    return Results(
        dataset=data.dataset,
        num_videos=len(videos),
        num_clips=args.test_clips,
        num_crops=args.test_crops,
        dense=data.dense,
        weights=args.weights,
        list_fingerprint=videos.fingerprint(),
        decoder=decoder or None,
        failed_videos=sorted(views.failures),
        # PyAV is what the others are compared with.
        frame_count_mismatches=None if decoder in (None, PYAV) else sorted(views.mismatches),
        **figures,
    )


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


def read_configs(args: argparse.Namespace, weights: Weights) -> dict[str, Config]:
    """Configurations by file name, with the folder where two files have one name.

    Args:
        args: with ``config`` (paths; None: the configuration of the weights), ``overrides`` and ``dense``.

    Raises:
        ValueError, FileNotFoundError: see ``utils.config.load_config``; or they cannot share one model.
    """
    paths = [Path(path or "checkpoint") for path in args.config]
    stems = [path.stem for path in paths]
    names = [p.stem if stems.count(p.stem) == 1 else f"{p.parent.name}/{p.stem}" for p in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"--config names a file twice: {' '.join(args.config)}")
    overrides = args.overrides + ["data.dense=True"] * args.dense
    configs = {name: weights.config(path, overrides) for name, path in zip(names, args.config, strict=True)}
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


def build_tested_model(
    weights: Weights, lists: dict[str, ListToTest], precision: Precision
) -> tuple[System, dict[str, Classes]]:
    """The model with the weights under test, and each list's classes."""
    config = next(iter(lists.values())).config
    towers = weights.towers(config, config.data.input_size).to(precision.device)
    classes = {name: weights.classes(config, towers, tested.class_names) for name, tested in lists.items()}
    return weights.build(config, towers, next(iter(classes.values()))), classes


def film_strips(data: DataConfig, videos: VideoList) -> Callable[[int], bytes | None]:
    """A video's index -> its picture, read by the configured decoder; a feature cache holds no frames."""
    if data.modality == "features":
        return lambda index: None
    return partial(film_strip, build_source(data, videos))


def paths_of(videos: VideoList) -> list[str]:
    """As the list has them."""
    return [videos.path(index) for index in range(len(videos))]


def _save_logits(args: argparse.Namespace, name: str, views: Tables, scores: Tensor, videos: VideoList) -> None:
    """Write ``--save_logits``; of several configurations each has its name before the suffix."""
    path = args.save_logits
    if len(args.config) > 1:
        path = path.with_name(f"{path.stem}_{name.replace('/', '_')}{path.suffix}")
    is_set = videos.has_label_sets
    tables = {"view_logits": views.tables["scores"].numpy(), "scores": scores.float().numpy()}
    tables |= {"targets": videos.multi_hot(scores.shape[1])} if is_set else {"labels": videos.labels}
    if "features" in views.tables:  # how much each view counts
        tables["view_norms"] = views.tables["features"].norm(dim=-1).numpy()
    save_npz(path, tables | {"paths": np.array(paths_of(videos))})


def save_npz(path: Path, tables: dict[str, np.ndarray]) -> None:
    """Write arrays; the file's name gets ``.npz`` if it has no such end."""
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **tables)
