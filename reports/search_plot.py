"""A picture of searches: queries, each with the videos that were found first."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reports.prediction_plot import TITLE_WIDTH, shorten
from reports.style import new_figure, plain_text

CELL_WIDTH, CELL_HEIGHT, HEADING = 2.2, 0.75, 0.35  # inches, of a video and of a query above its videos
RIGHT, WRONG = "#2b8a3e", "0.8"
GAP = 2  # white pixels between two frames


class Found(NamedTuple):
    """A query and the videos found for it, best first."""

    query: str
    scores: Sequence[float]  # of the videos below
    strips: Sequence[np.ndarray]  # some frames of each, uint8 [T, S, S, 3]
    right: int  # place of the video that the query belongs to, from 1; it may be behind those that are shown


def plot_searches(path: Path, searches: Sequence[Found]) -> None:
    """Draw a row of videos for every query, the right one framed in green, into a PNG."""
    columns = max(len(search.strips) for search in searches)
    figure = new_figure(CELL_WIDTH * columns, (CELL_HEIGHT + HEADING) * len(searches), dpi=120)
    rows = figure.subfigures(len(searches), 1, squeeze=False)[:, 0]
    with plain_text():
        for search, row in zip(searches, rows, strict=True):
            place = "" if search.right <= len(search.strips) else f"  (its video is at place {search.right})"
            row.suptitle(shorten(f"“{search.query}”", TITLE_WIDTH) + place, fontsize=9, x=0.01, ha="left")
            cells = row.subplots(1, columns, squeeze=False)[0]
            for axes in cells[len(search.strips) :]:
                axes.axis("off")
            for number, (axes, strip, score) in enumerate(zip(cells, search.strips, search.scores, strict=False), 1):
                axes.imshow(beside_each_other(strip))
                axes.set(xticks=[], yticks=[])
                axes.set_xlabel(f"{number}.  {score:.2f}", fontsize=8)
                is_right = number == search.right
                for spine in axes.spines.values():
                    spine.set(color=RIGHT if is_right else WRONG, linewidth=3 if is_right else 1)
        figure.savefig(path)


def beside_each_other(frames: np.ndarray) -> np.ndarray:
    """Frames [T, H, W, 3] in one row, uint8 [H, W', 3], with white between them."""
    num_frames, height, width, _ = frames.shape
    picture = np.full((height, num_frames * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frames):
        left = number * (width + GAP)
        picture[:, left : left + width] = frame
    return picture
