"""The results of scripts/run_fewshot.sh as a table: mean and std over the draws, for every number of shots."""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

from engine.protocols.accuracy import harmonic_mean, mean_and_std, mean_as_text
from engine.results import Results, read_results
from modules.build import load_config
from utils.cli import add_common_arguments, run_main
from utils.files import write_text
from utils.run_folder import run_folder
from utils.text import render

TABLE = Path(__file__).with_name("few_shot.md.jinja")
RUN_NAME = re.compile(r"shot(\d+)_seed(\d+)")
SAME_IN_ALL = ("dataset", "num_videos", "num_clips", "num_crops", "dense", "fusion", "precision")


def main(argv: list[str] | None = None) -> Path:
    """Print the table and write it to ``report.md`` beside the runs; returns their folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the runs")
    parser.add_argument("--name", default="few_shot", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--folder", action="store_true", help="print where the runs are, and stop")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    config = load_config(args.config, args.overrides)
    folder = run_folder(config.data.output_path, config.data.dataset, config.network.arch, args.name)
    if args.folder:
        sys.stdout.write(f"{folder}\n")
        return folder
    text = table(results_by_shot(folder))
    write_text(folder / "report.md", text)
    sys.stdout.write(f"{text}\nwrote {folder / 'report.md'}\n")
    return folder


def results_by_shot(folder: Path) -> dict[int, list[Results]]:
    """The ``results.json`` of all tested draws, by number of shots.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is damaged, or they are of different tests, so that their mean says nothing.
    """
    results: dict[int, list[Results]] = defaultdict(list)
    protocols: dict[tuple, Path] = {}
    for path in sorted(folder.glob("shot*_seed*/test/results.json")):
        if match := RUN_NAME.fullmatch(path.parts[-3]):
            result = read_results(path)
            if result.top1 is None:
                raise ValueError(f"{path}: expected top1; its videos have several labels")
            results[int(match[1])].append(result)
            protocols.setdefault(_protocol(result), path)
    if not results:
        raise FileNotFoundError(f"{folder}: no shot<K>_seed<S>/test/results.json; run scripts/run_fewshot.sh")
    if len(protocols) > 1:
        first, second = list(protocols.values())[:2]
        raise ValueError(f"{first} and {second} are results of different tests (videos, views, precision)")
    return dict(sorted(results.items()))


def table(results: dict[int, list[Results]]) -> str:
    """Markdown: a line for each number of shots; with two test lists, the first is of base classes."""
    first = next(iter(results.values()))[0]
    is_base_to_novel = first.splits is not None
    cells_of = _base_to_novel_cells if is_base_to_novel else _few_shot_cells
    rows = [(shot, len(draws), *cells_of(draws)) for shot, draws in results.items()]
    num_failed = max(len(draw.failed_videos) for draws in results.values() for draw in draws)
    return render(TABLE, first=first, is_base_to_novel=is_base_to_novel, rows=rows, num_failed=num_failed)


def _few_shot_cells(draws: list[Results]) -> list[str]:
    each = " ".join(f"{draw.top1:.2f}" for draw in draws)
    return [mean_as_text([draw.top1 for draw in draws], 2), mean_as_text([draw.top5 for draw in draws], 2), each]


def _base_to_novel_cells(draws: list[Results]) -> list[str]:
    """Base, novel, and the harmonic mean of their means, as the published tables have it."""
    base, novel = ([split.top1 for split in part] for part in zip(*map(_splits, draws), strict=True))
    both = harmonic_mean(mean_and_std(base)[0], mean_and_std(novel)[0])
    return [mean_as_text(base, 2), mean_as_text(novel, 2), f"{both:.2f}"]


def _splits(result: Results) -> list[Results]:
    """The two results of one base-to-novel test, base first."""
    splits = result.splits or {}
    if len(splits) != 2:
        raise ValueError(f"a base-to-novel test has two lists, base and novel, found {', '.join(splits) or 'one'}")
    return list(splits.values())


def _protocol(result: Results) -> tuple:
    """What must agree between results that are averaged."""
    lists = [part.list_fingerprint for part in (result.splits or {"": result}).values()]
    return (*(getattr(result, key) for key in SAME_IN_ALL), *lists)


if __name__ == "__main__":
    run_main(main)
