"""Rank videos by a text: python -m tools.search "a moon growing" FOLDER|EMBEDDINGS --weights W

Searching one folder often, store its vectors once: python predict.py FOLDER --embed EMBEDDINGS --weights W
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from commands.arguments import add_model_arguments
from commands.classifier import VideoClassifier
from datasets.features.embeddings import EMBEDDING_SUFFIXES, Embeddings, read_embeddings
from engine.protocols.probabilities import printable, unreadable
from utils.cli import add_common_arguments, count, run_main
from utils.logger import setup_logging


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", help="what the videos should show")
    parser.add_argument("videos", help="folder of videos (or a file, or a pattern), or what predict.py --embed wrote")
    add_model_arguments(parser)
    parser.add_argument("--top", type=count, default=10, help="videos to list (default: 10)")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    if not args.query.strip():
        parser.error("query: expected a text, found none")
    return args


def main(argv: list[str] | None = None) -> list[tuple[str, float]]:
    """Print the best videos; returns their paths and cosines, the best first.

    Raises:
        ValueError: the embeddings are those of another model, or no video could be read.
        SystemExit: with status 1, when all is printed, if videos could not be read.
    """
    args = parse_args(argv)
    setup_logging()
    classifier = VideoClassifier.load(args.weights, args.config, args.arch, args.precision, overrides=args.overrides)
    query = classifier.query_feature(args.query).cpu().numpy()
    message = ""
    if args.videos.endswith(EMBEDDING_SUFFIXES):
        embeddings = read_embeddings(Path(args.videos))
        check_model(embeddings, args.videos, classifier)
    else:
        embeddings, message = embed(classifier, args.videos)
    ranking = rank(embeddings, query)[: args.top]
    sys.stdout.write("".join(f"{cosine:.3f}  {printable(path)}\n" for path, cosine in ranking))
    if message:
        sys.exit(message)
    return ranking


def rank(embeddings: Embeddings, query: np.ndarray) -> list[tuple[str, float]]:
    """All videos with their cosine with a unit vector [D], the most similar first."""
    cosines = embeddings.vectors @ query
    order = np.argsort(-cosines, kind="stable")
    return [(embeddings.paths[place], float(cosines[place])) for place in order]


def embed(classifier: VideoClassifier, videos: str) -> tuple[Embeddings, str]:
    """Vectors of the videos that can be read, and the error that names the others, if there are any."""
    predictions = [prediction.without_frames() for prediction in classifier.embed(videos)]
    good = [prediction for prediction in predictions if prediction.error is None]
    failed = [prediction for prediction in predictions if prediction.error is not None]
    if not good:
        shown = "; ".join(f"{printable(prediction.path)}: {prediction.error}" for prediction in failed[:3])
        raise ValueError(f"no video could be read: {shown}")
    message = unreadable(failed, len(predictions)) if failed else ""
    return Embeddings([p.path for p in good], np.stack([p.embedding for p in good]), {}), message


def check_model(embeddings: Embeddings, source: str, classifier: VideoClassifier) -> None:
    """See that embeddings come from the model that reads the query.

    Raises:
        ValueError: they do not.
    """
    found, expected = embeddings.metadata.get("model"), classifier.fingerprint()
    if found != expected:
        weights = embeddings.metadata.get("weights") or "plain CLIP"
        raise ValueError(
            f"{source} was made with other weights ({weights}, model {found}; those given here are model {expected}); "
            "search with the same --weights, --config and --arch"
        )
    if (width := embeddings.vectors.shape[1]) != classifier.text.spec.embed_dim:
        raise ValueError(f"{source}: damaged, its vectors are {width} wide, not {classifier.text.spec.embed_dim}")


if __name__ == "__main__":
    run_main(main)
