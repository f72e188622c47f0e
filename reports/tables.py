"""Results for people: tables of tests, the summary of a training run."""

import logging
from collections.abc import Iterable
from pathlib import Path

from engine.results import Results, RetrievalResults
from reports.curves import draw_curves
from utils.distributed import is_main
from utils.run_folder import AVERAGE_CHECKPOINT, BEST_CHECKPOINT, CHECKPOINT, EMA_CHECKPOINT

logger = logging.getLogger(__name__)

# Before figures of averaged weights: what these are called, and their file.
AVERAGES = {"ema_": ("averaged", EMA_CHECKPOINT), "average_": ("epochs", AVERAGE_CHECKPOINT)}
RECALL = "t2v_r1"  # the first figure of a search, see commands.training.data


def table(results: dict[str, Results], mean: Results | None = None) -> str:
    """One line for each list and, for several, their mean."""
    first = next(iter(results.values()))
    lines = [f"{first.weights}  ({first.views}, {first.precision}, {first.fusion})"]
    width = max(len(name) for name in [*results, "mean"])
    has_half = first.half_class is not None
    titles = dict.fromkeys(title for result in results.values() for title in result.figures)
    heads = "".join(f"  {title.replace('-', ''):>5}" for title in titles)
    lines.append(f"{'':{width}}  videos  failed{heads}" + "   half-class top1" * has_half)
    for name, result in results.items():
        line = f"{name:{width}}  {result.num_videos:6d}  {len(result.failed_videos):6d}{_figures(result, titles)}"
        if result.half_class:
            line += f"    {result.half_class['top1_mean']:5.2f} ± {result.half_class['top1_std']:.2f}"
        lines.append(line)
    if mean and mean.figures:
        stds = {title: std for title, (_, std) in mean.figures.items() if title != "top-5"}
        named = ", ".join(f"{title} {std:.2f}" if "mAP" in stds else f"{std:.2f}" for title, std in stds.items())
        lines.append(f"{'mean':{width}}  {'':14}{_figures(mean, titles)}   (std {named})")
    failed = [path for result in results.values() for path in result.failed_videos]
    if failed:
        lines.append(f"{len(failed)} unreadable videos count as wrong; the first: {', '.join(failed[:3])}")
    return "\n".join(lines) + "\n"


def _figures(result: Results, titles: Iterable[str]) -> str:
    """Cells of a line, empty for a figure that the result does not have."""
    return "".join(f"  {result.figures[title][0]:5.2f}" if title in result.figures else " " * 7 for title in titles)


def retrieval_table(results: RetrievalResults) -> str:
    """One line for each direction, without and with dual softmax."""
    lines = [f"{results.weights}  ({results.views}, {results.precision}, ties: {results.tie_rule})"]
    counts = f"{results.num_texts} texts, {results.num_videos} videos, {len(results.failed_videos)} failed"
    lines.append(f"{results.dataset}: {counts}" + f", {results.cut_texts} texts cut" * bool(results.cut_texts))
    width = max(map(len, results.rows))
    lines.append(f"{'':{width}}" + "".join(f"  {name.replace('_', ' '):>11}" for name in results.t2v))
    for title, figures in results.rows.items():
        lines.append(f"{title:{width}}" + "".join(f"  {value:11.2f}" for value in figures.values()))
    if failed := results.failed_videos:
        lines.append(f"{len(failed)} unreadable videos are found last; the first: {', '.join(failed[:3])}")
    return "\n".join(lines) + "\n"


def finish_run(folder: Path, figures: dict[str, float]) -> None:
    """Draw ``curves.png`` and log a summary of what ``engine.train.train`` returned; on the main process."""
    if not is_main():
        return
    try:
        draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    except OSError as error:  # the run is complete without
        logger.warning("could not write %s (%s)", folder / "curves.png", error.strerror or error)
    for line in summary(folder, figures):
        logger.info("%s", line)


def summary(folder: Path, figures: dict[str, float]) -> list[str]:
    """A trained run in a few lines: where it is, what it reached, and the command that tests it."""
    best = folder / BEST_CHECKPOINT
    if not best.exists():  # a run that went on in a new folder, and was never better than in the old one
        best = folder / CHECKPOINT
    last = {name: value for name, value in figures.items() if not name.startswith(("best_", *AVERAGES))}
    first = next(iter(last), "figure")  # whose best it is; there is none where nothing was left to train
    lines = [
        f"trained: {folder}",
        f"  best      {first} {figures['best_top1']:.2f} (epoch {figures['best_epoch']})  {best.name}",
    ]
    models = [("last", last, CHECKPOINT)]
    for prefix, (title, file) in AVERAGES.items():
        found = {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
        models.append((title, found, file))
    for title, found, file in models:
        if found:
            lines.append(f"  {title:8}  {' '.join(f'{name} {value:.2f}' for name, value in found.items())}  {file}")
    lines.append("  curves    curves.png, metrics.jsonl")
    script = "run_test_retrieval.sh" if first == RECALL else "run_test.sh"
    lines.append(f"test the best: bash scripts/{script} {folder / 'config.yaml'} {best}")
    return lines
