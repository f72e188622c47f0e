"""What probe.py does: vectors of training and test videos from a frozen model, and a linear classifier between them."""

import argparse
import logging
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from commands.arguments import build_parser, create_output_folder, read_configs
from commands.extraction import check_features
from commands.testing import check_strict, paths_of, result_of, save_npz
from commands.vectors import TABLE, list_vectors
from commands.weights import Weights
from datasets.lists.records import VideoList
from datasets.read import read_data
from engine.collect import Tables
from engine.protocols.accuracy import accuracy
from engine.protocols.probe import Examples, Fitted, check_probe, fit_probe
from engine.results import ProbeFacts, Results, over_splits, write_results
from modules.systems.base import System
from reports.tables import table
from utils.cli import count
from utils.config import Config
from utils.distributed import from_main, is_main, process_group
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.text import shown

logger = logging.getLogger(__name__)

PARTS = ("train", "val")
FUSION = "mean of vectors over views, linear classifier"


class Split(NamedTuple):
    """A configuration with the lists that its classifier learns from and is tested on."""

    config: Config
    class_names: list[str]
    train: VideoList  # in the order of its paths, so that nothing depends on the list's
    test: VideoList

    @classmethod
    def read(cls, config: Config) -> "Split":
        """See ``read_data``.

        Raises:
            ValueError: also where videos have several labels, or nothing can be learned (see ``check_probe``).
        """
        class_names, lists, *_ = read_data(config.data, PARTS)
        for part, videos in lists.items():
            videos.check_one_label(f"data.{part}_list", "a linear probe")
        check_probe(torch.from_numpy(lists["train"].labels), config.probe)
        train = lists["train"].take(np.argsort(lists["train"].paths, kind="stable"))
        return cls(config, class_names, train, lists["val"])


def parse_args(description: str, argv: list[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = build_parser(description, many_configs=True)
    parser.add_argument("--shots", type=count, metavar="K", help="learn from K videos of each class (data.shot)")
    parser.add_argument("--solver", help="logistic or linear (probe.solver)")
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="folder of kept vectors (default: OUTPUT/vectors)")
    args = parser.parse_intermixed_args(argv)
    if args.report:
        parser.error("--report: a linear probe has no page")
    given = {"data.shot": args.shots, "probe.solver": args.solver}
    args.overrides = [*args.overrides, *(f"{key}={value}" for key, value in given.items() if value)]
    return args


def run_probe(args: argparse.Namespace) -> dict:
    """Probe one model on the data of every configuration; write and print the results, and return them.

    Raises:
        ValueError, FileNotFoundError: anything wrong with the input, before the first video; a list of which no video
            could be read; after the results are written, with ``--strict``, any unreadable video of a test.
    """
    setup_logging()
    weights = Weights(args.weights)
    configs = read_configs(args, weights)
    with process_group(max(config.solver.collective_timeout_s for config in configs.values())) as device:
        precision = resolve_precision(args.precision, device)
        splits = {name: Split.read(config) for name, config in configs.items()}
        model = build_frozen(weights, next(iter(configs.values())), device)
        for config in configs.values():
            check_features(config, model)
        shot = next(iter(configs.values())).data.shot
        folder = create_output_folder(args, f"probe_{shot}shot" if shot else "probe", configs)
        if args.vectors:  # what cannot be written is known before the first video
            from_main(lambda: args.vectors.mkdir(parents=True, exist_ok=True))
        results = {name: _probe_split(args, name, split, model, precision, folder) for name, split in splits.items()}
        whole = over_splits(results) if len(results) > 1 else next(iter(results.values()))
        if is_main():
            write_results(folder / "results.json", whole)
            logger.info("wrote %s", folder / "results.json")
            sys.stdout.write(table(results, mean=whole if len(results) > 1 else None))
    check_strict(args, whole.failed_videos)
    return whole.to_dict()


def build_frozen(weights: Weights, config: Config, device: torch.device) -> System:
    """The model as tests see it; of classes it knows what the checkpoint brings."""
    towers = weights.towers(config, config.data.input_size).to(device)
    return weights.build(config, towers).eval().requires_grad_(False)


def _probe_split(
    args: argparse.Namespace, name: str, split: Split, model: System, precision: Precision, folder: Path
) -> Results:
    """Learn from one training list and test on its test list."""
    config, vectors = split.config, args.vectors or folder / "vectors"
    train, test = (list_vectors(config, model, part, args, precision, vectors) for part in (split.train, split.test))
    for part, found in zip(PARTS, (train, test), strict=True):
        found.check_some_read(f"{name}: data.{part}_list")
    examples, fitted = _learn(split, train, precision.device)
    scores = fitted.classifier.scores(_inputs(test, config))
    if args.save_logits and is_main():
        paths = np.array(paths_of(split.test))
        save_npz(args, name, {"scores": scores.numpy(), "labels": split.test.labels, "paths": paths})
    facts = ProbeFacts(
        solver=config.probe.solver,
        value=fitted.value,
        held_out_top1=fitted.held_out_top1,
        normalized=config.probe.normalize,
        num_train=len(examples.labels),
        train_fingerprint=split.train.fingerprint(),
        shot=config.data.shot,
    )
    figures = accuracy(scores, torch.from_numpy(split.test.labels))
    how = {"fusion": FUSION, "precision": precision.name}
    return result_of(args, config.data, split.test, test, **how, **figures, probe=facts)


def _learn(split: Split, train: Tables, device: torch.device) -> tuple[Examples, Fitted]:
    """What could be read of the training videos, and the classifier fitted on it."""
    config = split.config
    vectors, labels = _inputs(train, config), torch.from_numpy(split.train.labels)
    was_read = ~vectors.isnan().any(dim=1)
    if num_failed := int((~was_read).sum()):
        logger.warning("%d of %d training videos could not be read and are left out", num_failed, len(labels))
        lost = sorted(set(labels.tolist()) - set(labels[was_read].tolist()))
        if lost:
            few = ", ".join(shown(split.class_names[label]) for label in lost[:5]) + ", ..." * (len(lost) > 5)
            logger.warning("no training video of %d classes could be read, which no video is given: %s", len(lost), few)
    examples = Examples(vectors, labels, len(split.class_names)).take(was_read)
    return examples, fit_probe(examples, config.probe, config.seed, device)


def _inputs(found: Tables, config: Config) -> Tensor:
    """Vectors [N, D] as the classifier takes them: unit ones, or as long as they are."""
    vectors = found.tables[TABLE]
    return F.normalize(vectors, dim=-1) if config.probe.normalize else vectors
