"""The demo's results as a table and a picture: frozen CLIP against MoTE, special against general."""

import argparse
import sys
from pathlib import Path

from engine.protocols.accuracy import harmonic_mean, mean_as_text
from engine.results import read_results
from reports.style import harmonic_lines, new_figure
from utils.cli import run_main
from utils.text import render

ABLATION = Path(__file__).with_name("ablation.md.jinja")
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


Figures = dict[str, float]  # top-1 of one model, in percent, under the names of ``COLUMNS``


def main(argv: list[str] | None = None) -> None:
    """Print the table, and write the plot or the ablation's page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder with one folder a model")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--ablation", type=Path, help="Markdown page to write: every variant, mean and std over seeds")
    args = parser.parse_args(argv)
    if args.ablation:
        args.ablation.write_text(ablation_page(args.results))
        sys.stdout.write(args.ablation.read_text())
        return
    rows = {"frozen CLIP": read_figures(args.results / "clip"), "MoTE": read_figures(args.results / "mote_1024")}
    sys.stdout.write(text_table(rows))
    if args.plot:
        plot(rows, args.plot)
        sys.stdout.write(f"\npicture: {args.plot}\n")


def read_figures(folder: Path) -> Figures:
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
    return figures


def text_table(rows: dict[str, Figures]) -> str:
    """Figures by model under column names, and the gain of the last model over the first, for a terminal."""
    width, (first, *_, last) = max(map(len, rows)), rows.values()
    lines = [" " * width + "".join(f"  {column:>14}" for column in COLUMNS)]
    lines += [f"{name:{width}}" + "".join(f"  {row[c]:14.1f}" for c in COLUMNS) for name, row in rows.items()]
    gain = {c: last[c] - first[c] for c in COLUMNS}
    lines.append(f"{'gain':{width}}" + "".join(f"  {gain[c]:+14.1f}" for c in COLUMNS))
    return "top-1 accuracy, %\n" + "\n".join(lines) + "\n"


def ablation_page(results: Path) -> str:
    """Markdown table of all variants found under ``results``, mean ± population std over their seeds."""
    rows = []
    for variant, name in VARIANTS.items():
        # Seeds are digits, so "mote_*" must not match another variant.
        folders = [f for f in sorted(results.iterdir()) if f.name.rstrip("0123456789").rstrip("_") == variant]
        seeds = [read_figures(folder) for folder in folders]
        if seeds:
            rows.append((name, len(seeds), [mean_as_text([row[column] for row in seeds], 1) for column in COLUMNS]))
    return render(ABLATION, columns=COLUMNS, rows=rows)


def plot(rows: dict[str, Figures], path: Path) -> None:
    """Close-set against zero-shot accuracy, with lines of equal harmonic mean."""
    figure = new_figure(6.4, 5.2, dpi=150)
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    harmonic_lines(axes, levels=range(10, 100, 10), fmt="%d")
    points = [(row["close-set 4x3"], row["zero-shot mean"]) for row in rows.values()]
    axes.annotate(
        "", points[-1], points[0], arrowprops={"arrowstyle": "->", "color": "0.5", "shrinkA": 8, "shrinkB": 8}
    )
    for name, point, colour, above in zip(rows, points, ("tab:gray", "tab:red"), (False, True), strict=True):
        axes.scatter(*point, s=70, color=colour, zorder=3)
        offset, align = ((0, 10), "bottom") if above else ((0, -10), "top")
        axes.annotate(name, point, xytext=offset, textcoords="offset points", ha="center", va=align, weight="bold")
    axes.set_xlabel("close-set top-1, % (seen classes, 4 x 3 views)")
    axes.set_ylabel("zero-shot top-1, % (mean of three parts, 3 x 1 views)")
    axes.set_title("Special and general: built-in shapes set\n(grey: equal harmonic mean)", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    run_main(main)
