"""A picture of the demo's searches: queries and the videos that a model found for them.

    python -m tools.demo.search_picture --search exps/demo/results/tvtsv2/search.npz --out docs/images/search.png

The file is one of ``test_retrieval.py --save_logits``.
"""

import argparse
from pathlib import Path

import numpy as np

from datasets.decode.pyav_reader import PyAVReader
from reports.search_plot import Found, plot_searches
from utils.cli import run_main

NUM_FRAMES = 4  # of a video


def main(argv: list[str] | None = None) -> None:
    """Draw some queries, evenly over the list, so that nobody has chosen them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, required=True, help="similarities, captions and paths")
    parser.add_argument("--videos", type=Path, default=Path("exps/demo/data/videos"), help="folder (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--queries", type=int, default=5, help="how many (%(default)s)")
    parser.add_argument("--found", type=int, default=4, help="videos of each (%(default)s)")
    args = parser.parse_args(argv)
    with np.load(args.search) as tables:
        similarity, captions, paths, owners = (
            tables[name] for name in ("similarity", "captions", "paths", "video_of_text")
        )
    texts = ((np.arange(args.queries) + 0.5) * len(captions) / args.queries).astype(int)
    plot_searches(
        args.out, [found(text, similarity, captions, paths, owners, args.videos, args.found) for text in texts]
    )


def found(
    text: int,
    similarity: np.ndarray,
    captions: np.ndarray,
    paths: np.ndarray,
    owners: np.ndarray,
    videos: Path,
    number: int,
) -> Found:
    """The best videos for one text.

    Args:
        similarity: [N texts, M videos].
        captions: [N].
        paths: [M], below ``videos``.
        owners: int [N], the video of each text.
        number: of videos.
    """
    order = np.argsort(-similarity[text], kind="stable")
    right = int(np.flatnonzero(order == owners[text])[0]) + 1
    best = order[:number]
    strips = [frames_of(videos / str(paths[video])) for video in best]
    return Found(str(captions[text]), similarity[text, best].tolist(), strips, right)


def frames_of(path: Path) -> np.ndarray:
    """The middle frames of equal parts of a video, uint8 [T, H, W, 3]."""
    reader = PyAVReader(path)
    places = ((np.arange(NUM_FRAMES) + 0.5) * reader.num_frames / NUM_FRAMES).astype(int)
    return reader.read(places).permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    run_main(main)
