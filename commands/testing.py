"""What test.py and test_zeroshot.py share: arguments, the model under test, one result per configuration."""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from commands.arguments import build_parser, create_output_folder, read_configs
from commands.extraction import check_features
from commands.weights import Weights
from datasets.build import build_eval_loader, build_source, decoder_of
from datasets.clips.thumbnails import film_strip
from datasets.decode.decoders import PYAV
from datasets.lists.records import VideoList
from datasets.read import read_data
from engine.collect import Pass, Tables, score_views
from engine.protocols.base import Protocol
from engine.protocols.multilabel import average_precisions
from engine.results import Results, over_splits, write_results
from modules.classes.base import Classes
from modules.systems.base import System
from reports.page import TestedSplit, write_page
from reports.tables import table
from utils.config import Config, DataConfig, EvalConfig
from utils.distributed import is_main, process_group, rank, world_size
from utils.files import whole_file
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision

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


def run_test(
    args: argparse.Namespace, protocol_of: Callable[[EvalConfig], Protocol], settings: Mapping[str, Any] = {}
) -> dict:
    """Test one model on the data of every configuration; write and print the results, and return them.

    Args:
        protocol_of: section ``eval`` of a configuration -> how views become scores and figures.
        settings: keys and values that overrides are laid over.

    Raises:
        ValueError, FileNotFoundError: anything wrong with the input, before the first video; after the results are
            written, a list of which no video could be read, and with ``--strict`` any unreadable video.
    """
    setup_logging()
    weights = Weights(args.weights)
    configs = read_configs(args, weights, settings)
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
    check_strict(args, results.failed_videos)
    return results.to_dict()


def check_strict(args: argparse.Namespace, failed: list[str]) -> None:
    """See that ``--strict`` has nothing against these unreadable videos.

    Raises:
        ValueError: names the first of them.
    """
    if args.strict and failed:
        raise ValueError(f"--strict: {len(failed)} videos could not be read: {', '.join(failed[:5])}")


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
    """Write ``--save_logits`` of one list."""
    is_set = videos.has_label_sets
    tables = {"view_logits": views.tables["scores"].numpy(), "scores": scores.numpy()}
    tables |= {"targets": videos.multi_hot(scores.shape[1])} if is_set else {"labels": videos.labels}
    if "features" in views.tables:  # how much each view counts
        tables["view_norms"] = views.tables["features"].norm(dim=-1).numpy()
    save_npz(args, name, tables | {"paths": np.array(paths_of(videos))})


def save_npz(args: argparse.Namespace, name: str, tables: dict[str, np.ndarray]) -> None:
    """Write arrays as ``--save_logits`` says: with the end ``.npz``, of several configurations with the one's name."""
    path = args.save_logits
    if len(args.config) > 1:
        path = path.with_name(f"{path.stem}_{name.replace('/', '_')}{path.suffix}")
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **tables)
