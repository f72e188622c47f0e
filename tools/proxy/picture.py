"""Close-set against zero-shot accuracy on the proxy world: from frozen CLIP to plain tuning to MoTE."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.style import COLOUR, new_figure, open_frame
from tools.proxy.measured import Hits
from tools.proxy.paired import Difference, difference
from tools.proxy.rows import FROZEN, MOTE, PLAIN

X, PANELS = "close-set", {"appearance": "new objects, scenes, colours, styles", "motion": "new motions"}  # of the means
# The way that is drawn: row, form, name, colour, and whether the name stands above the point.
WAY = (
    (FROZEN, "raw", "frozen CLIP", "0.4", True),
    (PLAIN, "raw", "plain tuning", "tab:red", False),
    (MOTE, "both", "MoTE + average + modulation", COLOUR, True),
)
BESIDE = ((PLAIN, "both", "plain + average + modulation", "s"), (MOTE, "raw", "MoTE, its tuned weights alone", "D"))
MARGIN = 0.3  # of the span of the points, on every side


def draw(forms: Mapping[str, Mapping[str, Hits]], means: Mapping[str, Sequence[str]], path: Path) -> None:
    """Write the picture.

    Args:
        forms: row -> form -> hits, of the rows of ``WAY``.
        means: names of ``X`` and ``PANELS`` -> the lists that they are the means of.
    """
    figure = new_figure(10.5, 4.9, dpi=150)
    for number, (axes, (panel, title)) in enumerate(zip(figure.subplots(1, 2), PANELS.items(), strict=True)):
        place = {
            (row, form): tuple(difference(forms[row][form], None, means[name]) for name in (X, panel))
            for row, form, *_ in (*WAY, *BESIDE)
        }
        _draw_panel(axes, place)
        axes.set_title(f"{panel}: {title}", fontsize=11)
        axes.set_xlabel("close-set top-1, % (classes that were tuned on)")
        if not number:
            axes.set_ylabel("zero-shot top-1, %")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(BESIDE), frameon=False)
    figure.savefig(path)


def _draw_panel(axes, place: Mapping[tuple[str, str], tuple[Difference, Difference]]) -> None:
    """Points with their standard errors, and arrows along the way."""
    style = {"fmt": "o", "capsize": 2, "elinewidth": 1}
    points = [tuple(each.mean for each in place[row, form]) for row, form, *_ in WAY]
    arrow = {"arrowstyle": "-|>", "color": "0.55", "linewidth": 1.6, "shrinkA": 9, "shrinkB": 9}
    for start, end in itertools.pairwise(points):
        axes.annotate("", end, start, arrowprops=arrow, zorder=1)
    for row, form, name, colour, is_above in WAY:
        x, y = place[row, form]
        axes.errorbar(x.mean, y.mean, y.error, x.error, color=colour, markersize=9, zorder=3, **style)
        end, offset, align = (y.error, 6, "bottom") if is_above else (-y.error, -6, "top")
        axes.annotate(
            f"{name}\n{y.mean:.0f}", (x.mean, y.mean + end), (0, offset), textcoords="offset points", ha="center",
            va=align, weight="bold", color=colour,
        )  # fmt: skip
    for row, form, name, marker in BESIDE:
        x, y = place[row, form]
        axes.plot(x.mean, y.mean, marker, color="0.45", markerfacecolor="white", markersize=6, zorder=2, label=name)
    for axis, limits in enumerate((axes.set_xlim, axes.set_ylim)):
        ends = [pair[axis].mean + sign * pair[axis].error for pair in place.values() for sign in (-1, 1)]
        pad = MARGIN * max(max(ends) - min(ends), 1.0)
        limits(max(min(ends) - pad, 0.0), max(ends) + pad)
    open_frame(axes)
    axes.grid(color="0.93", zorder=0)
