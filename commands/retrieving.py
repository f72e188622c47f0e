"""What test_retrieval.py does: every text and every video becomes one vector, and their cosines are all that counts."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from commands.arguments import build_parser, create_output_folder, read_configs
from commands.extraction import check_features
from commands.testing import check_strict, film_strips, paths_of, save_npz
from commands.weights import FOR_ANY_CLASSES, Weights
from datasets.build import build_eval_loader, decoder_of
from datasets.decode.decoders import PYAV
from datasets.lists.captions import TextList
from datasets.read import read_texts
from engine.collect import Pass, Tables, embed_views
from engine.protocols.choice import choice_figures, choice_scores
from engine.protocols.retrieval import check_rules, fused_views, owners_of, ranks_of, report_of
from engine.protocols.similarities import Cosines
from engine.results import Results, RetrievalResults, write_results
from modules.texts import EncodedTexts, encode_texts
from reports.retrieval_page import Search, write_retrieval_page
from reports.tables import retrieval_table, table
from utils.config import Config
from utils.distributed import from_main, is_main, process_group, rank, world_size
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision

logger = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """A list whose M videos and N lines of texts are vectors."""

    config: Config
    tested: TextList
    texts: EncodedTexts  # of captions [N, D]; of choices all options, one line's after the other's
    videos: Tensor  # [M, D] of ``fused_views``; NaN: not read
    views: Tables
    precision: Precision


def parse_args(description: str, argv: list[str] | None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = build_parser(description, many_configs=False)
    parser.add_argument(
        "--dual_softmax", metavar="L", help="report figures of similarities times softmax(L * similarities), too"
    )
    parser.add_argument("--choices", action="store_true", help="the list has options for each video, one of them right")
    args = parser.parse_intermixed_args(argv)
    if args.choices and (args.dual_softmax is not None or args.report):
        parser.error("--choices: there are neither figures of --dual_softmax nor a --report of them")
    if args.dual_softmax is not None:
        args.overrides = [*args.overrides, f"eval.dual_softmax={args.dual_softmax}"]
    return args


def run_retrieval(args: argparse.Namespace) -> dict[str, Any]:
    """Test one model on a list of captions or of choices; write and print the results, and return them.

    Raises:
        ValueError, FileNotFoundError: anything wrong with the input, before the first video; after the results are
            written, a list of which no video could be read, and with ``--strict`` any unreadable video.
    """
    setup_logging()
    weights = Weights(args.weights)
    configs = read_configs(args, weights, FOR_ANY_CLASSES)
    ((name, config),) = configs.items()
    check_rules(config.eval.tie_rule, config.eval.dual_softmax)
    with process_group(config.solver.collective_timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        tested = read_texts(config.data, args.choices)
        folder = create_output_folder(args, "choices" if args.choices else "retrieval", configs)
        found = encode(args, weights, config, tested, precision)
        results = from_main(lambda: _result_of(args, found, folder))
    found.views.check_some_read(name)
    check_strict(args, results.failed_videos)
    return results.to_dict()


def encode(
    args: argparse.Namespace, weights: Weights, config: Config, tested: TextList, precision: Precision
) -> Encoded:
    """Texts and videos as vectors."""
    towers = weights.towers(config, config.data.input_size).to(precision.device)
    text_tower = towers.text_part()  # shares its tensors, so a checkpoint with a text tower is loaded into it, too
    system = weights.build(config, towers)
    check_features(config, system, ["val_root"])
    texts = encode_texts(text_tower, [text for texts in tested.texts for text in texts])
    if texts.num_cut and is_main():
        tokens = text_tower.spec.context_length
        logger.warning(
            "%d of %d texts are longer than %d tokens and were cut", texts.num_cut, len(texts.embeddings), tokens
        )
    num_views, data = args.test_clips * args.test_crops, config.data
    loader = build_eval_loader(data, tested.videos, rank(), world_size(), args.test_clips, args.test_crops)
    views = embed_views(system, loader, num_views, Pass(precision, data.batch_size, data.dataset))
    return Encoded(config, tested, texts, fused_views(views.tables["embeddings"]), views, precision)


def _result_of(args: argparse.Namespace, found: Encoded, folder: Path) -> Results | RetrievalResults:
    """Figures, printed and written."""
    results = (_choose if args.choices else _search)(args, found)
    write_results(folder / "results.json", results)
    logger.info("wrote %s", folder / "results.json")
    return results


def _search(args: argparse.Namespace, found: Encoded) -> RetrievalResults:
    """Texts look for videos and videos for texts."""
    tested, texts, settings = found.tested, found.texts.embeddings, found.config.eval
    owners, cosines = owners_of(tested.video_of_line, len(texts), len(found.videos)), Cosines(texts, found.videos)
    ranks = ranks_of(cosines, owners, settings.tie_rule, settings.dual_softmax)
    results = RetrievalResults(**report_of(ranks, settings.tie_rule), **_facts(args, found))
    sys.stdout.write(retrieval_table(results))
    if args.report:
        paths, strips = paths_of(tested.videos), film_strips(found.config.data, tested.videos)
        vectors = found.texts.embeddings, found.videos
        search = Search(
            results, tested.captions, tested.video_of_line, paths, ranks, *vectors, found.views.failures, strips
        )
        logger.info("wrote %s", write_retrieval_page(args.report, search))
    if args.save_logits:
        tables = {"similarity": cosines.whole().numpy()}
        tables |= {"text_embeddings": texts.numpy(), "video_embeddings": found.videos.numpy()}
        names = {"captions": np.array(tested.captions), "paths": np.array(paths_of(tested.videos))}
        save_npz(args, results.dataset, tables | {"video_of_text": tested.video_of_line} | names)
    return results


def _choose(args: argparse.Namespace, found: Encoded) -> Results:
    """Videos choose among options of their own."""
    tested, lines = found.tested, found.tested.video_of_line
    scores = choice_scores(found.texts.embeddings, found.videos[lines], [len(texts) for texts in tested.texts])
    figures = choice_figures(scores, torch.from_numpy(tested.answers))
    fusion = "mean of unit features over views, cosine"
    results = Results(**figures, **_facts(args, found), num_videos=len(tested.videos), fusion=fusion)
    sys.stdout.write(table({results.dataset: results}))
    if args.save_logits:
        paths = np.array(paths_of(tested.videos))[lines]
        save_npz(args, results.dataset, {"scores": scores.numpy(), "labels": tested.answers, "paths": paths})
    return results


def _facts(args: argparse.Namespace, found: Encoded) -> dict[str, Any]:
    """What must agree before two results compare, and what went wrong."""
    data = found.config.data
    decoder = decoder_of(data)
    return {
        "dataset": data.dataset,
        "num_clips": args.test_clips,
        "num_crops": args.test_crops,
        "dense": data.dense,
        "weights": args.weights,
        "list_fingerprint": found.tested.fingerprint(),
        "precision": found.precision.name,
        "decoder": decoder or None,
        "cut_texts": found.texts.num_cut,
        "failed_videos": sorted(found.views.failures),
        "frame_count_mismatches": None if decoder in (None, PYAV) else sorted(found.views.mismatches),
    }
