"""A weight-average sweep as points, a table and a picture."""

from pathlib import Path

import numpy as np

from utils.metrics import harmonic_mean

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
    return {
        "plain_clip": plain,
        "points": points,
        "best": max(points, key=lambda point: point["harmonic_mean"]),
    }


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
    """Close-set against zero-shot accuracy, a curve for modulation on and off, plain CLIP, the best point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 6.2), layout="constrained")
    for modulation, colour in COLOURS.items():
        points = [point for point in results["points"] if point["modulation"] == modulation]
        if points:
            places = [_place(point) for point in points]
            axis.plot(*zip(*places, strict=True), "o-", color=colour, markersize=5, label=f"modulation {modulation}")
            for point, place in zip(points, places, strict=True):
                label = f"{point['weight_average']:g}"
                axis.annotate(label, place, (5, 4), textcoords="offset points", fontsize=8, color=colour)
    best = results["best"]
    label = f"best: average {best['weight_average']:g}, modulation {best['modulation']}, H {best['harmonic_mean']:.1f}"
    axis.plot(*_place(best), "*", markersize=20, markerfacecolor="gold", markeredgecolor="0.2", zorder=5, label=label)
    plain = results["plain_clip"]
    axis.plot(*_place(plain), "D", color="0.4", markersize=8, label=f"plain CLIP, H {plain['harmonic_mean']:.1f}")
    _harmonic_lines(axis)
    axis.set_xlabel("close-set top-1, %")
    axis.set_ylabel(
        "zero-shot top-1, %" + f" (mean of {len(plain['zero_shot'])} lists)" * (len(plain["zero_shot"]) > 1)
    )
    axis.set_title("Average of CLIP's weights (0) and the tuned ones (1); grey: equal harmonic mean H", fontsize=11)
    axis.legend(fontsize=9)
    figure.savefig(picture, dpi=130)
    pyplot.close(figure)


def _place(figures: dict) -> tuple[float, float]:
    return figures["close_set"], figures["zero_shot_mean"]


def _harmonic_lines(axis) -> None:
    """Lines of equal harmonic mean over what is shown."""
    axis.margins(0.12)
    limits = axis.get_xlim(), axis.get_ylim()
    x, y = np.meshgrid(*(np.linspace(max(low, 0.1), high, 200) for low, high in limits))
    lines = axis.contour(x, y, 2 * x * y / (x + y), levels=10, colors="0.85", linewidths=1, zorder=0)
    axis.clabel(lines, fmt="%.4g", fontsize=8, colors="0.6")
    axis.set(xlim=limits[0], ylim=limits[1])
