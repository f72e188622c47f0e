"""Pictures of a test's page, as PNG files in memory."""

import io
from typing import TYPE_CHECKING

import numpy as np

from reports.confusion import most_confused
from reports.style import COLOUR, new_figure, open_frame, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 40  # classes whose names fit beside a matrix
MAX_BARS = 60  # classes that are all drawn as named bars; above it the worst and the best
NUM_WORST, NUM_BEST = 30, 15
NAME_LENGTH = 38  # characters of a class name in a picture


def draw_confusion(counts: np.ndarray, class_names: list[str]) -> bytes:
    """Confusion matrix [K, K] in percent of each class's videos, the most confused classes first.

    Up to ``MAX_NAMED`` classes have their names. Above, the picture is the whole matrix, classes by label, and below it
    the ``MAX_NAMED`` most confused ones. Classes without videos that no video was taken for are left out.
    """
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, class_names = counts[np.ix_(used, used)], [class_names[label] for label in used]
    rates = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = most_confused(counts)[:MAX_NAMED]
    names, size = [class_names[label] for label in shown], 4.0 + 0.22 * len(shown)
    with plain_text():
        if len(shown) == len(counts):
            figure = new_figure(size + 1.0, size)
            axes = figure.subplots()
        else:
            figure = new_figure(size + 1.0, 2 * size - 2.0)
            whole, axes = figure.subplots(2, 1)
            _draw_matrix(whole, rates)
            whole.set(xticks=[], yticks=[], xlabel="predicted", ylabel="true", title=f"{len(counts)} classes")
            axes.set_title(f"the {len(shown)} most confused")
        _draw_named_matrix(axes, rates[np.ix_(shown, shown)], names)
        axes.set(xlabel="predicted (numbers of the rows)", ylabel="true")
        axes.xaxis.set_label_position("top")
        figure.colorbar(axes.images[0], ax=figure.axes, shrink=0.6, label="% of the true class's videos")
        return _png(figure)


def draw_class_accuracy(accuracy: np.ndarray, class_names: list[str], figure_name: str = "top-1") -> bytes:
    """A figure of each class in percent [K], sorted; classes without videos (NaN) are left out.

    Up to ``MAX_BARS`` classes are named bars. Above, a curve of all beside bars of the worst and the best.
    """
    order = [int(label) for label in np.argsort(accuracy, kind="stable") if not np.isnan(accuracy[label])]
    with plain_text():
        if len(order) <= MAX_BARS:
            figure = new_figure(9, 1.2 + 0.21 * len(order))
            axes = figure.subplots()
            _draw_bars(axes, accuracy[order], [class_names[label] for label in order], figure_name)
            axes.set_title(f"{figure_name} of {len(order)} classes")
        else:
            figure = _large_accuracy(accuracy, order, class_names, figure_name)
        return _png(figure)


def draw_recall(curves: dict[str, np.ndarray]) -> bytes:
    """Which share of the queries is found within the first places.

    Args:
        curves: by title, the place from 1 of what each query looks for.
    """
    with plain_text():
        figure = new_figure(8, 4)
        axes = figure.subplots()
        for number, (title, places) in enumerate(curves.items()):
            shares = 100.0 * np.arange(len(places) + 1) / len(places)
            style = "-" if number < 2 else "--"
            steps = np.append(1.0, np.sort(places))
            axes.step(steps, shares, style, where="post", color=("C0", "C1")[number % 2], label=title)
        axes.set_xscale("log")
        most = max(float(places.max()) for places in curves.values())
        axes.set_xticks(
            [tick for power in range(7) for tick in (10**power, 2 * 10**power, 5 * 10**power) if tick <= most]
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set(xlim=(1, None), ylim=(0, 101), xlabel="places", ylabel="found, %")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        open_frame(axes)
        return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def _short(name: str) -> str:
    name = name.encode(errors="replace").decode()  # of a folder whose name is not UTF-8
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def _draw_matrix(axes: "Axes", rates: np.ndarray) -> None:
    from matplotlib.colors import PowerNorm

    # The root lifts single mistakes out of the white.
    axes.imshow(rates, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    axes.tick_params(length=0)


def _draw_named_matrix(axes: "Axes", rates: np.ndarray, names: list[str]) -> None:
    """Matrix whose rows have names and numbers, columns the same numbers; figures in all cells that hold something."""
    _draw_matrix(axes, rates)
    numbers = range(1, len(names) + 1)
    axes.set_xticks(range(len(names)), numbers, fontsize=8)
    axes.set_yticks(range(len(names)), [f"{_short(name)}  {n}" for n, name in zip(numbers, names, strict=True)])
    axes.tick_params(axis="y", labelsize=8)
    axes.xaxis.tick_top()
    for row, column in zip(*np.nonzero(rates), strict=True):
        value = rates[row, column]
        colour = "white" if value > 40 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)


def _draw_bars(axes: "Axes", accuracy: np.ndarray, names: list[str], figure_name: str) -> None:
    """Named horizontal bars, the first at the top."""
    places = np.arange(len(names))
    axes.barh(places, accuracy, color=COLOUR, height=0.75)
    axes.set_yticks(places, map(_short, names), fontsize=8)
    axes.set(xlim=(0, 108), ylim=(len(names) - 0.4, -0.6), xticks=range(0, 101, 20), xlabel=f"{figure_name}, %")
    open_frame(axes)
    for place, value in zip(places, accuracy, strict=True):
        axes.text(value + 1, place, f"{value:.0f}", va="center", fontsize=7, color="0.3")


def _large_accuracy(accuracy: np.ndarray, order: list[int], class_names: list[str], figure_name: str) -> "Figure":
    """A curve of all classes, the worst and the best as bars."""
    figure = new_figure(13, 8.5)
    axes = figure.subplot_mosaic(
        [["all", "worst"], ["all", "best"]], height_ratios=[NUM_WORST, NUM_BEST], width_ratios=[1.0, 1.1]
    )
    ranks = np.arange(1, len(order) + 1)
    axes["all"].fill_between(ranks, accuracy[order], step="mid", color=COLOUR, alpha=0.25)
    axes["all"].step(ranks, accuracy[order], where="mid", color=COLOUR)
    mean = accuracy[order].mean()
    axes["all"].axhline(mean, color="0.4", linestyle="--", linewidth=1)
    axes["all"].annotate(f"mean of classes {mean:.1f}", (1, mean), xytext=(4, 4), textcoords="offset points")
    axes["all"].set(xlim=(1, len(order)), ylim=(0, 101), xlabel="classes, worst first", ylabel=f"{figure_name}, %")
    axes["all"].set_title(f"{len(order)} classes")
    axes["all"].grid(alpha=0.3)
    for name, labels in (("worst", order[:NUM_WORST]), ("best", order[-NUM_BEST:])):
        _draw_bars(axes[name], accuracy[labels], [class_names[label] for label in labels], figure_name)
        axes[name].set_title(f"the {len(labels)} {name}")
    axes["worst"].set_xlabel("")
    return figure
