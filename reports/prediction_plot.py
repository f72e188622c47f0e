"""Pictures of predictions."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reports.style import new_figure, open_frame, plain_text

SHOWN_FRAMES = 8
LABEL_WIDTH, LABEL_LINES = 26, 2  # characters and lines of a class name beside its bar
TITLE_WIDTH = 90


def plot_prediction(
    path: Path, title: str, frames: np.ndarray, seconds: np.ndarray, scores: dict[str, float], frame_scores: np.ndarray
) -> None:
    """Draw frames, the most probable classes and their course over the video into a PNG.

    Args:
        frames: uint8 [T, S, S, 3], in the order of time; at most 8 are shown, evenly spread.
        seconds: [T], when they are shown.
        scores: k classes and their probabilities, the most probable first; none: only frames are drawn.
        frame_scores: [T, k], probabilities of these classes in each frame.
    """
    # One line of a class name takes 0.2 inches, and a name up to two.
    lower = 1.1 + 0.42 * max(len(scores), 3) if scores else 0.0
    figure = new_figure(11, 2.0 + lower)
    with plain_text():
        parts = np.atleast_1d(figure.subfigures(2, 1, height_ratios=[1.8, lower])) if scores else [figure]
        _draw_frames(parts[0], shorten(title, TITLE_WIDTH), frames, seconds)
        if scores:
            bars, course = parts[1].subplots(1, 2, width_ratios=[1.0, 1.25])
            colours = [f"C{place % 10}" for place in range(len(scores))]
            _draw_bars(bars, scores, colours)
            draw_course(course, seconds, frame_scores, colours)
        figure.savefig(path)


def _draw_frames(figure: Figure | SubFigure, title: str, frames: np.ndarray, seconds: np.ndarray) -> None:
    shown = np.linspace(0, len(frames) - 1, min(SHOWN_FRAMES, len(frames))).round().astype(int)
    figure.suptitle(title, fontsize=11, weight="bold")
    for axes, place in zip(figure.subplots(1, SHOWN_FRAMES), [*shown, *[-1] * SHOWN_FRAMES], strict=False):
        axes.axis("off")
        if place >= 0:
            axes.imshow(frames[place])
            axes.set_title(clock(seconds[place]), fontsize=9)


def _draw_bars(axes: Axes, scores: dict[str, float], colours: list[str]) -> None:
    percent = 100 * np.array(list(scores.values()))
    # The rest of a long class name is cut with an ellipsis.
    lines = [textwrap.wrap(label, LABEL_WIDTH, max_lines=LABEL_LINES, placeholder="…") for label in scores]
    bars = axes.barh(range(len(lines)), percent, color=colours)
    axes.bar_label(bars, [f"{value:.1f}" for value in percent], padding=3, fontsize=9)
    axes.set_yticks(range(len(lines)), map("\n".join, lines), fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="probability, %")
    axes.set_title("whole video", fontsize=10)
    open_frame(axes)


def draw_course(axes: Axes, seconds: np.ndarray, frame_scores: np.ndarray, colours: list[str]) -> None:
    """Draw the course of k classes over a video, the most probable first: seconds [T], frame_scores [T, k]."""
    # The least probable first, so that the winner lies on top.
    for scores, colour in reversed(list(zip(100 * frame_scores.T, colours, strict=True))):
        axes.plot(seconds, scores, color=colour, marker="o", markersize=3, linewidth=1.5)
    axes.set(ylim=(-3, 103), xlabel="time, s", ylabel="probability, %")
    axes.set_title("each frame (same colours)", fontsize=10)
    axes.grid(color="0.9")
    open_frame(axes)


def clock(seconds: float) -> str:
    """``7.25 s``, from a minute on ``2:05.3``."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    return f"{int(minutes)}:{rest:04.1f}" if minutes else f"{seconds:.2f} s"


def shorten(text: str, width: int) -> str:
    """Text cut in the middle, where file names differ least."""
    half = width // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"
