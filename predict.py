"""Classify videos: python predict.py my_videos --labels "juggling, riding a bike" --weights MoTE_B16.pt

In Python: ``from predict import VideoClassifier; VideoClassifier.load(W).predict(paths, labels)``.
"""

import argparse
import csv
import io
import itertools
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from commands.arguments import add_model_arguments, add_view_arguments
from commands.classifier import VideoClassifier
from datasets.features.embeddings import Embeddings, check_embeddings_path, write_embeddings
from engine.protocols.probabilities import Prediction, printable, unreadable
from utils.cli import add_common_arguments, count, run_main, split_overrides
from utils.files import errors_naming, prepare_output
from utils.logger import setup_logging

__all__ = ["Prediction", "VideoClassifier", "main"]

logger = logging.getLogger(__name__)

EXPLAINED = "_frames"  # at the end of the name of a second picture: which text of the class takes which frame


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", help="video files, folders of them, patterns")
    parser.add_argument("--labels", help="class names with commas between, or a file (default: the checkpoint's)")
    add_model_arguments(parser)
    parser.add_argument("--top", type=count, default=5, help="classes to show (default: 5)")
    add_view_arguments(parser, num_clips=None)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all probabilities")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="write the top classes, a line a video")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="DIR",
        help="draw frames, top classes and their course",
    )
    parser.add_argument("--embed", type=Path, metavar="OUT", help="write a vector a video: OUT.npz or OUT.parquet")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    args.videos, args.overrides = split_overrides(args.videos + args.overrides)
    if not args.videos:
        parser.error("expected video files, folders or patterns")
    return args


def main(argv: list[str] | None = None) -> list[Prediction]:
    """Classify videos, print a line each, write what was asked for; returns the predictions, without frames.

    Raises:
        SystemExit: with status 1, when all is written, if videos could not be read.
    """
    args = parse_args(argv)
    setup_logging()
    if args.embed:
        check_embeddings_path(args.embed)
    for path in filter(None, (args.json, args.csv, args.embed)):
        prepare_output(path)
    if args.plot:
        args.plot.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    classifier = VideoClassifier.load(args.weights, args.config, args.arch, args.precision, overrides=args.overrides)
    if args.embed and args.labels is None and not classifier.class_names:
        results = classifier.embed(args.videos, args.test_clips, args.test_crops)
    else:
        is_explained = args.plot is not None
        results = classifier.stream(args.videos, args.labels, args.test_clips, args.test_crops, is_explained)
    load_s = time.perf_counter() - start
    predictions, taken = [], set()
    for prediction in results:
        tqdm.write(line(prediction, args.top), file=sys.stdout)
        if args.plot and prediction.error is None:
            draw(prediction, args.top, args.plot, taken)
        predictions.append(prediction.without_frames())
    write_files(args, classifier, predictions)
    sys.stdout.write(summary(classifier, load_s))
    if failed := [prediction for prediction in predictions if prediction.error]:
        sys.exit(unreadable(failed, len(predictions)))
    return predictions


def line(prediction: Prediction, top: int) -> str:
    """``video.mp4: juggling 93.1 %, riding a bike 6.9 %``"""
    if prediction.error:
        return f"{printable(prediction.path)}: unreadable ({prediction.error})"
    classes = ", ".join(f"{label} {100 * score:.1f} %" for label, score in prediction.top(top))
    return f"{printable(prediction.path)}: {classes or 'embedded'}"


def summary(classifier: VideoClassifier, load_s: float) -> str:
    """Where the time went."""
    timing = classifier.timing
    rate = timing.num_videos / max(timing.total_s, 1e-9)
    return (
        f"{timing.num_videos} videos in {timing.total_s:.1f} s ({rate:.2f} videos/s): "
        f"computing {timing.compute_s:.1f} s, waiting for decoded videos {timing.wait_s:.1f} s, "
        f"writing {timing.caller_s:.1f} s; before that, loading the model and encoding the classes {load_s:.1f} s\n"
    )


def draw(prediction: Prediction, top: int, folder: Path, taken: set[str]) -> None:
    """Write the pictures of a video, named like it, or numbered where a video before ``taken`` the name."""
    from reports.explanation_plot import plot_explanations
    from reports.prediction_plot import plot_prediction  # matplotlib takes a while to import

    video, scores = Path(prediction.path), dict(prediction.top(top))
    names = itertools.chain([video.stem], (f"{video.stem}_{number}" for number in itertools.count(2)))
    name = next(name for name in names if not {name, f"{name}{EXPLAINED}"} & taken)
    taken |= {name, f"{name}{EXPLAINED}"} if prediction.explanations else {name}
    path = folder / f"{name}.png"
    plot_prediction(path, video.name, prediction.frames, prediction.seconds, scores, prediction.course(top))
    if prediction.explanations:
        sets = {each.name: (each.texts, each.shares.numpy()) for each in prediction.explanations}
        title = f"{video.name}: {next(iter(scores))}"
        plot_explanations(folder / f"{name}{EXPLAINED}.png", title, prediction.frames, prediction.seconds, sets)


def write_files(args: argparse.Namespace, classifier: VideoClassifier, predictions: list[Prediction]) -> None:
    """``--json``, ``--csv`` and ``--embed``."""
    if args.json:
        videos = [{"path": p.path, "scores": p.scores, "error": p.error} for p in predictions]
        content = facts(args, classifier) | {"videos": videos}
        with errors_naming(args.json):
            args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if args.csv:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(csv_rows(predictions, args.top))
        with errors_naming(args.csv):
            args.csv.write_bytes(text.getvalue().encode(errors="surrogateescape"))
    if args.embed:
        good = [prediction for prediction in predictions if prediction.error is None]
        if not good:
            raise ValueError(f"--embed {args.embed}: not written, no video could be read")
        metadata = facts(args, classifier) | {"model": classifier.fingerprint()}
        vectors = np.stack([prediction.embedding for prediction in good])
        norms = np.array([prediction.norm for prediction in good], dtype=np.float32)
        write_embeddings(args.embed, Embeddings([prediction.path for prediction in good], vectors, metadata, norms))


def csv_rows(predictions: list[Prediction], top: int) -> list[list]:
    """``path,error,label_1,score_1,...``, a row a video."""
    num_classes = min(top, max(len(prediction.labels) for prediction in predictions))
    names = [f"{column}_{rank}" for rank in range(1, num_classes + 1) for column in ("label", "score")]
    rows = [["path", "error", *names]]
    for prediction in predictions:
        cells = [cell for label, score in prediction.top(num_classes) for cell in (label, f"{score:.6f}")]
        rows.append([prediction.path, prediction.error or "", *cells])
    return rows


def facts(args: argparse.Namespace, classifier: VideoClassifier) -> dict:
    """What the figures depend on beside the videos."""
    return {
        "weights": args.weights,
        "arch": classifier.config.network.arch,
        "num_frames": classifier.num_frames,
        "num_clips": args.test_clips or classifier.num_clips,
        "num_crops": args.test_crops,
        "precision": classifier.precision.name,
    }


if __name__ == "__main__":
    run_main(main)
