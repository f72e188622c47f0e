"""Pictures of a test's report, as PNG files in memory."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from reports.confusion import class_groups, mistakes_within

MAX_NAMED = 40  # classes whose names fit beside a matrix
MAX_BARS = 60  # classes that are all drawn as named bars; above it the worst and the best
NUM_WORST, NUM_BEST = 30, 15
MAX_BLOCK, NUM_BLOCKS = 12, 6  # classes of a detail of a large matrix, details
NAME_LENGTH = 38  # characters of a class name in a picture
COLOUR = "#2c6fbb"


def draw_confusion(counts: np.ndarray, class_names: list[str]) -> bytes:
    """Confusion matrix [K, K] in percent of each class's videos, classes that are confused side by side.

    Up to ``MAX_NAMED`` classes have their names. Above, the picture is the whole matrix beside details: the
    groups of classes with the most mistakes. Classes without videos that no video was taken for are left out.
    """
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, class_names = counts[np.ix_(used, used)], [class_names[label] for label in used]
    groups = class_groups(counts, MAX_BLOCK)
    rates = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = [label for group in groups for label in group]
    ordered = rates[np.ix_(order, order)]
    with _pyplot() as pyplot:
        if len(order) <= MAX_NAMED:
            size = 4.0 + 0.22 * len(order)
            figure, axis = pyplot.subplots(figsize=(size + 1.0, size), layout="constrained")
            _named_matrix(axis, ordered, [class_names[label] for label in order])
            axis.set(xlabel="predicted (numbers of the rows)", ylabel="true")
            axis.xaxis.set_label_position("top")
            figure.colorbar(axis.images[0], ax=axis, shrink=0.6, label="% of the true class's videos")
        else:
            blocks = [group for group in groups if mistakes_within(counts, group)][:NUM_BLOCKS]
            figure = _large_matrix(pyplot, ordered, [(b, rates[np.ix_(b, b)]) for b in blocks], class_names)
        return _png(pyplot, figure)


def draw_class_accuracy(accuracy: np.ndarray, class_names: list[str]) -> bytes:
    """Top-1 of each class in percent [K], sorted; classes without videos (NaN) are left out.

    Up to ``MAX_BARS`` classes are named bars. Above, a curve of all beside bars of the worst and the best.
    """
    order = [int(label) for label in np.argsort(accuracy, kind="stable") if not np.isnan(accuracy[label])]
    with _pyplot() as pyplot:
        if len(order) <= MAX_BARS:
            figure, axis = pyplot.subplots(figsize=(9, 1.2 + 0.21 * len(order)), layout="constrained")
            _bars(axis, accuracy[order], [class_names[label] for label in order])
            axis.set_title(f"top-1 of {len(order)} classes")
        else:
            figure = _large_accuracy(pyplot, accuracy, order, class_names)
        return _png(pyplot, figure)


@contextmanager
def _pyplot() -> Iterator:
    """pyplot without a display, set so that any text is drawn as it is."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    # DejaVu has no Chinese, Japanese or Korean; where a font of the system has, it helps out.
    families = ["DejaVu Sans", *sorted({font.name for font in font_manager.fontManager.ttflist if "CJK" in font.name})]
    with pyplot.rc_context({"text.parse_math": False, "font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the page's tables have all names
        yield pyplot


def _png(pyplot, figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    pyplot.close(figure)
    return buffer.getvalue()


def _short(name: str) -> str:
    name = name.encode(errors="replace").decode()  # of a folder whose name is not UTF-8
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def _matrix(axis, rates: np.ndarray) -> None:
    from matplotlib.colors import PowerNorm

    # The root lifts single mistakes out of the white.
    axis.imshow(rates, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    axis.tick_params(length=0)


def _named_matrix(axis, rates: np.ndarray, names: list[str]) -> None:
    """Matrix whose rows have names and numbers, columns the same numbers; figures in all cells that hold something."""
    _matrix(axis, rates)
    numbers = range(1, len(names) + 1)
    axis.set_xticks(range(len(names)), numbers, fontsize=8)
    axis.set_yticks(range(len(names)), [f"{_short(name)}  {n}" for n, name in zip(numbers, names, strict=True)])
    axis.tick_params(axis="y", labelsize=8)
    axis.xaxis.tick_top()
    for row, column in zip(*np.nonzero(rates), strict=True):
        value = rates[row, column]
        colour = "white" if value > 40 else "black"
        axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)


def _large_matrix(pyplot, ordered: np.ndarray, blocks: list[tuple[list[int], np.ndarray]], class_names: list[str]):
    """The whole matrix above its details, which letters mark in both."""
    num_rows = math.ceil(len(blocks) / 2)
    figure = pyplot.figure(figsize=(13, 12 + 4.4 * num_rows), layout="constrained")
    whole, *details = figure.subfigures(1 + num_rows, 1, height_ratios=[12] + [4.4] * num_rows, squeeze=False)[:, 0]
    axis = whole.subplots()
    _matrix(axis, ordered)
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{len(ordered)} classes, those that are confused side by side")
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    whole.colorbar(axis.images[0], ax=axis, shrink=0.6, label="% of the true class's videos")
    start = 0
    for number, (group, rates) in enumerate(blocks):
        letter = chr(ord("A") + number)
        corner = (start - 0.5, start - 0.5)
        axis.add_patch(pyplot.Rectangle(corner, len(group), len(group), fill=False, edgecolor="tab:red", linewidth=0.8))
        axis.annotate(letter, (start + len(group), start), color="tab:red", fontsize=9, va="center")
        start += len(group)
        if number % 2 == 0:
            axes = details[number // 2].subplots(1, 2, squeeze=False)[0]
        detail = axes[number % 2]
        _named_matrix(detail, rates, [class_names[label] for label in group])
        detail.set_title(letter, color="tab:red")
    if len(blocks) % 2:
        axes[1].set_axis_off()
    return figure


def _bars(axis, accuracy: np.ndarray, names: list[str]) -> None:
    """Named horizontal bars, the first at the top."""
    places = np.arange(len(names))
    axis.barh(places, accuracy, color=COLOUR, height=0.75)
    axis.set_yticks(places, map(_short, names), fontsize=8)
    axis.set(xlim=(0, 108), ylim=(len(names) - 0.4, -0.6), xticks=range(0, 101, 20), xlabel="top-1, %")
    axis.spines[["top", "right"]].set_visible(False)
    for place, value in zip(places, accuracy, strict=True):
        axis.text(value + 1, place, f"{value:.0f}", va="center", fontsize=7, color="0.3")


def _large_accuracy(pyplot, accuracy: np.ndarray, order: list[int], class_names: list[str]):
    """A curve of all classes, the worst and the best as bars."""
    figure = pyplot.figure(figsize=(13, 8.5), layout="constrained")
    axes = figure.subplot_mosaic(
        [["all", "worst"], ["all", "best"]], height_ratios=[NUM_WORST, NUM_BEST], width_ratios=[1.0, 1.1]
    )
    ranks = np.arange(1, len(order) + 1)
    axes["all"].fill_between(ranks, accuracy[order], step="mid", color=COLOUR, alpha=0.25)
    axes["all"].step(ranks, accuracy[order], where="mid", color=COLOUR)
    mean = accuracy[order].mean()
    axes["all"].axhline(mean, color="0.4", linestyle="--", linewidth=1)
    axes["all"].annotate(f"mean of classes {mean:.1f}", (1, mean), xytext=(4, 4), textcoords="offset points")
    axes["all"].set(xlim=(1, len(order)), ylim=(0, 101), xlabel="classes, worst first", ylabel="top-1, %")
    axes["all"].set_title(f"{len(order)} classes")
    axes["all"].grid(alpha=0.3)
    for name, labels in (("worst", order[:NUM_WORST]), ("best", order[-NUM_BEST:])):
        _bars(axes[name], accuracy[labels], [class_names[label] for label in labels])
        axes[name].set_title(f"the {len(labels)} {name}")
    axes["worst"].set_xlabel("")
    return figure
