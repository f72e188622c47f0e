"""Pictures of why a video has its class: which of the class's texts take which frames."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from reports.prediction_plot import SHOWN_FRAMES, TITLE_WIDTH, clock, shorten
from reports.style import COLOUR, new_figure, plain_text

TEXT_WIDTH, TEXT_LINES = 40, 2  # characters and lines of a text beside its row
# All in inches: frames stand exactly over their columns, which no layout engine promises.
LEFT, WIDTH, RIGHT = 3.2, 6.4, 1.1  # texts, maps, and the bar of colours
TOP, STRIP, BOTTOM = 0.4, 1.05, 0.5  # title; frames with their times; the label of the axis
HEADING, ROW = 0.4, 0.36  # of a set; of a text
MARK = "#e8590c"


def plot_explanations(
    path: Path,
    title: str,
    frames: np.ndarray,
    seconds: np.ndarray,
    sets: Mapping[str, tuple[Sequence[str], np.ndarray]],
) -> None:
    """Draw frames, and below them a map of frames x texts for each set, into a PNG.

    Args:
        frames: uint8 [T, S, S, 3], in the order of time; at most 8 are shown, each over the middle of its part.
        seconds: [T], when they are shown.
        sets: N texts and their shares of the frames, [T, N] in 0 to 1, by the name of the set.
    """
    height = TOP + STRIP + sum(HEADING + ROW * len(texts) for texts, _ in sets.values()) + BOTTOM
    figure = new_figure(LEFT + WIDTH + RIGHT, height)
    figure.set_layout_engine("none")
    shares = np.concatenate([100 * each.ravel() for _, each in sets.values()])
    with plain_text():
        figure.text(0.5, 1 - 0.5 * TOP / height, shorten(title, TITLE_WIDTH), ha="center", va="center",
                    fontsize=11, weight="bold")  # fmt: skip
        _draw_strip(figure, height - TOP - STRIP, frames, seconds)
        below = height - TOP - STRIP
        for name, (texts, each) in sets.items():
            below -= HEADING + ROW * len(texts)
            axes = _axes(figure, LEFT, below, WIDTH, ROW * len(texts))
            image = _draw_map(axes, name, texts, 100 * each, (shares.min(), shares.max()))
        axes.set_xlabel("frames in the order of time; a dot: the text that takes most of a frame", fontsize=9)
        bar = _axes(figure, LEFT + WIDTH + 0.2, below, 0.15, height - TOP - STRIP - HEADING - below)
        figure.colorbar(image, cax=bar).set_label("share of a frame, %", fontsize=9)
        bar.tick_params(labelsize=8)
        figure.savefig(path)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    size_x, size_y = figure.get_size_inches()
    return figure.add_axes((left / size_x, bottom / size_y, width / size_x, height / size_y))


def _draw_strip(figure: Figure, bottom: float, frames: np.ndarray, seconds: np.ndarray) -> None:
    """Frames, each in the middle of an equal part of the width."""
    count = min(SHOWN_FRAMES, len(frames))
    part = WIDTH / count
    side = min(part, WIDTH / SHOWN_FRAMES) - 0.04
    for number in range(count):
        place = int((number + 0.5) * len(frames) / count)
        axes = _axes(figure, LEFT + (number + 0.5) * part - 0.5 * side, bottom, side, side)
        axes.imshow(frames[place])
        axes.axis("off")
        axes.set_title(clock(seconds[place]), fontsize=8, pad=3)


def _draw_map(
    axes: Axes, name: str, texts: Sequence[str], percent: np.ndarray, limits: tuple[float, float]
) -> AxesImage:
    """One set: percent [T, N], colours from the lower to the upper limit."""
    image = axes.imshow(percent.T, aspect="auto", cmap="Blues", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.plot(range(len(percent)), percent.argmax(axis=1), linestyle="", marker="o", markersize=3, color=MARK)
    lines = [textwrap.wrap(text, TEXT_WIDTH, max_lines=TEXT_LINES, placeholder="…") for text in texts]
    axes.set_yticks(range(len(texts)), map("\n".join, lines), fontsize=8, linespacing=1.05)
    axes.set_yticks(np.arange(len(texts) - 1) + 0.5, minor=True)
    axes.grid(which="minor", axis="y", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.set_xticks([])
    axes.set_title(name, fontsize=10, weight="bold", loc="left", color=COLOUR, pad=4)
    return image
