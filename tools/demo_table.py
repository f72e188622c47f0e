"""The demo's results as a table and a picture: frozen CLIP against MoTE, special against general."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.protocols.accuracy import harmonic_mean, mean_and_std
from engine.results import read_results
from reports.style import harmonic_lines, new_figure
from utils.cli import run_main

PARTS = ("combinations", "objects", "style")
COLUMNS = ("close-set 1x1", "close-set 4x3", *PARTS, "zero-shot mean", "harmonic mean")
# Folders of --results without their seed, in the order of the ablation's table.
VARIANTS = {
    "clip": "frozen CLIP, mean pooling",
    "plain": "plain FFN",
    "no_merged": "MoTE without merged pass",
    "no_modulation": "MoTE without modulation",
    "mote": "MoTE",
}


@dataclass(frozen=True)
class Row:
    """Top-1 figures of one model, in percent, under the names of ``COLUMNS``."""

    name: str
    figures: dict[str, float]


def main(argv: list[str] | None = None) -> list[Row]:
    """Print the table, and write the plot or the ablation's page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder with one folder a model")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--ablation", type=Path, help="Markdown page to write: every variant, mean and std over seeds")
    args = parser.parse_args(argv)
    if args.ablation:
        args.ablation.write_text(ablation_page(args.results))
        sys.stdout.write(args.ablation.read_text())
        return []
    rows = [read_row(args.results / "clip", "frozen CLIP"), read_row(args.results / "mote_1024", "MoTE")]
    sys.stdout.write(text_table(rows))
    if args.plot:
        plot(rows, args.plot)
        sys.stdout.write(f"\npicture: {args.plot}\n")
    return rows


def read_row(folder: Path, name: str) -> Row:
    """Collect the ``results.json`` files of one model.

    Raises:
        FileNotFoundError, ValueError: a test is missing, or damaged.
    """
    close_1x1, close_4x3, zero_shot = (
        read_results(folder / test / "results.json") for test in ("close_1x1", "close_4x3", "zero_shot")
    )
    figures = {"close-set 1x1": close_1x1.top1, "close-set 4x3": close_4x3.top1}
    figures |= {part: zero_shot.splits[part].top1 for part in PARTS}
    figures["zero-shot mean"] = zero_shot.top1
    figures["harmonic mean"] = harmonic_mean(close_4x3.top1, zero_shot.top1)
    return Row(name, figures)


def text_table(rows: list[Row]) -> str:
    """Rows under column names, for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = [" " * width + "".join(f"  {column:>14}" for column in COLUMNS)]
    lines += [f"{row.name:{width}}" + "".join(f"  {row.figures[c]:14.1f}" for c in COLUMNS) for row in rows]
    gain = {c: rows[-1].figures[c] - rows[0].figures[c] for c in COLUMNS}
    lines.append(f"{'gain':{width}}" + "".join(f"  {gain[c]:+14.1f}" for c in COLUMNS))
    return "top-1 accuracy, %\n" + "\n".join(lines) + "\n"


def ablation_page(results: Path) -> str:
    """Markdown table of all variants found under ``results``, mean ± population std over their seeds."""
    lines = [
        "# Ablation on the built-in shapes set",
        "",
        "Top-1 in percent, mean ± std over seeds, made by `bash scripts/run_demo.sh --ablation`. The set is small and",
        "synthetic: it shows what each part does, not what it does on Kinetics.",
        "",
        "| model | seeds | " + " | ".join(COLUMNS) + " |",
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    for variant, name in VARIANTS.items():
        # Seeds are digits, so "mote_*" must not match another variant.
        folders = [f for f in sorted(results.iterdir()) if f.name.rstrip("0123456789").rstrip("_") == variant]
        rows = [read_row(folder, name) for folder in folders]
        cells = []
        for column in COLUMNS if rows else ():
            mean, std = mean_and_std([row.figures[column] for row in rows])
            cells.append(f"{mean:.1f} ± {std:.1f}" if len(rows) > 1 else f"{mean:.1f}")
        if cells:
            lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Close-set against zero-shot accuracy, with lines of equal harmonic mean."""
    figure = new_figure(6.4, 5.2, dpi=150)
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    harmonic_lines(axes, levels=range(10, 100, 10), fmt="%d")
    points = [(row.figures["close-set 4x3"], row.figures["zero-shot mean"]) for row in rows]
    axes.annotate(
        "", points[-1], points[0], arrowprops={"arrowstyle": "->", "color": "0.5", "shrinkA": 8, "shrinkB": 8}
    )
    for row, point, colour, above in zip(rows, points, ("tab:gray", "tab:red"), (False, True), strict=True):
        axes.scatter(*point, s=70, color=colour, zorder=3)
        offset, align = ((0, 10), "bottom") if above else ((0, -10), "top")
        axes.annotate(row.name, point, xytext=offset, textcoords="offset points", ha="center", va=align, weight="bold")
    axes.set_xlabel("close-set top-1, % (seen classes, 4 x 3 views)")
    axes.set_ylabel("zero-shot top-1, % (mean of three parts, 3 x 1 views)")
    axes.set_title("Special and general: built-in shapes set\n(grey: equal harmonic mean)", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    run_main(main)
