"""A weight-average sweep as points, a table and a picture."""

from pathlib import Path

from engine.protocols.accuracy import harmonic_mean
from reports.style import harmonic_lines, new_figure

PLAIN = "clip"  # key of plain CLIP among the averages
COLOURS = {"on": "tab:red", "off": "tab:blue"}


def summarise(tests: dict[str, dict], close: str, zero_shot: list[str]) -> dict:
    """``points`` (averages that every list was tested with), ``best`` of them, and ``plain_clip``.

    Args:
        tests: list -> average -> modulation -> top1, top5; list -> ``PLAIN`` -> top1, top5.
    """
    keys = sorted((key for key in tests[close] if key != PLAIN), key=float)
    points = [
        {"weight_average": float(key), "modulation": modulation}
        | _figures({name: tests[name][key][modulation]["top1"] for name in (close, *zero_shot)}, close)
        for key in keys
        if all(key in tests[name] for name in zero_shot)
        for modulation in tests[close][key]
    ]
    plain = _figures({name: tests[name][PLAIN]["top1"] for name in (close, *zero_shot)}, close)
    return {"plain_clip": plain, "points": points, "best": max(points, key=lambda point: point["harmonic_mean"])}


def _figures(top1: dict[str, float], close: str) -> dict:
    zero_shot = {name: value for name, value in top1.items() if name != close}
    mean = sum(zero_shot.values()) / len(zero_shot)
    return {
        "close_set": top1[close],
        "zero_shot": zero_shot,
        "zero_shot_mean": mean,
        "harmonic_mean": harmonic_mean(top1[close], mean),
    }


def table(results: dict) -> str:
    """All points, plain CLIP first; a star marks the best."""
    settings, names = results["settings"], list(results["plain_clip"]["zero_shot"])
    views = f"{settings['num_clips']} clips x {settings['num_crops']} crops{', dense' * settings['dense']}"
    heads = ["average", "modulation", "close-set", *names, "zero-shot mean", "harmonic mean"]
    rows = [["plain CLIP", "", *_cells(results["plain_clip"])]]
    for point in results["points"]:
        star = " *" * (point == results["best"])
        rows.append([f"{point['weight_average']:g}{star}", point["modulation"], *_cells(point)])
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    title = f"{settings['weights']}  ({views}, {settings['precision']}); top-1, %; * best harmonic mean"
    return "\n".join([title, *lines]) + "\n"


def _cells(figures: dict) -> list[str]:
    values = [figures["close_set"], *figures["zero_shot"].values(), figures["zero_shot_mean"], figures["harmonic_mean"]]
    return [f"{value:.2f}" for value in values]


def draw(results: dict, picture: Path) -> None:
    """Close-set against zero-shot accuracy, a curve for modulation on and off, the best point: near, and beside plain
    CLIP."""
    figure = new_figure(13, 6)
    near, far = figure.subplots(1, 2, width_ratios=[1.25, 1])
    for axis in (near, far):
        _draw_curves(axis, results, with_labels=axis is near)
        axis.set_xlabel("close-set top-1, %")
    plain = results["plain_clip"]
    far.plot(*_place(plain), "D", color="0.4", markersize=8, label=f"plain CLIP, H {plain['harmonic_mean']:.1f}")
    far.set_title("beside plain CLIP", fontsize=11)
    near.set_title("share of the tuned weights, from 0 (CLIP's) to 1; grey: equal harmonic mean H", fontsize=11)
    num_lists = len(plain["zero_shot"])
    near.set_ylabel("zero-shot top-1, %" + f" (mean of {num_lists} lists)" * (num_lists > 1))
    for axis in (near, far):
        axis.margins(0.12)
        limits = axis.get_xlim(), axis.get_ylim()
        harmonic_lines(axis, levels=10, fmt="%.4g")
        axis.set(xlim=limits[0], ylim=limits[1])
        axis.legend(fontsize=9, loc="best" if axis is near else "upper left")
    _hide_overlapping(figure, near.texts)
    figure.savefig(picture)


def _draw_curves(axis, results: dict, with_labels: bool) -> None:
    """A curve over the averages for each modulation, and a star at the best point."""
    best = results["best"]
    label = f"best: {best['weight_average']:g}, modulation {best['modulation']}, H {best['harmonic_mean']:.1f}"
    star = {"markersize": 20, "markerfacecolor": "gold", "markeredgecolor": "none", "zorder": 1}
    axis.plot(*_place(best), "*", label=label, **star)
    for modulation, colour in COLOURS.items():
        points = [point for point in results["points"] if point["modulation"] == modulation]
        if not points:
            continue
        places = [_place(point) for point in points]
        axis.plot(*zip(*places, strict=True), "o-", color=colour, markersize=4, label=f"modulation {modulation}")
        for number, (point, place) in enumerate(zip(points, places, strict=True)):
            if with_labels:
                above = (0, 7) if number % 2 else (0, -14)  # neighbours may be close
                text = f"{point['weight_average']:g}"
                axis.annotate(text, place, above, textcoords="offset points", fontsize=8, color=colour, ha="center")


def _hide_overlapping(figure, texts: list) -> None:
    """Of texts that overlap the first stays; those of the ends go before those between."""
    figure.draw_without_rendering()
    shown = []
    for text in sorted(texts, key=lambda text: text.get_text() not in ("0", "1")):
        box = text.get_window_extent()
        text.set_visible(not any(box.overlaps(other) for other in shown))
        shown += [box] * text.get_visible()


def _place(figures: dict) -> tuple[float, float]:
    return figures["close_set"], figures["zero_shot_mean"]
