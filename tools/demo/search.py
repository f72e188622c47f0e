"""What the demo asks of texts: captions find their videos, stories are put in order, features are probed.

python -m tools.demo.search --rows
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from engine.results import RetrievalResults, read_results
from utils.cli import run_main
from utils.files import checked, no_file, read_json

ORDER = "val/order_accuracy"  # in metrics.jsonl
SEARCHES = ("retrieval", "retrieval_new")  # folders of results
OF_SEARCH = ("R@1", "R@5", "R@1 of captions")
COLUMNS = (*OF_SEARCH, *(f"{figure}, new pairs" for figure in OF_SEARCH), "stories in order", "linear probe")


class Searched(NamedTuple):
    """One model of the table."""

    name: str  # of its folder of results
    title: str
    config: str  # of its search, below configs/demo
    probe: str  # and of its linear probe


SEARCHED = (
    Searched("clip", "frozen CLIP: mean over frames", "retrieval.yaml", "mote.yaml"),
    Searched("mote_1024", "MoTE, trained on class names", "retrieval.yaml", "mote.yaml"),
    Searched("tvtsv2", "TVTSv2, trained on captions and stories", "tvtsv2/retrieval.yaml", "tvtsv2/seen.yaml"),
)


def main(argv: list[str] | None = None) -> None:
    """Print the rows for the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", required=True, help="print name|file of the search|of the probe")
    parser.parse_args(argv)
    sys.stdout.write("".join(f"{model.name}|{model.config}|{model.probe}\n" for model in SEARCHED))


def search_rows(runs: Path, results: Path) -> list[tuple[str, ...]]:
    """Title and cells of each model; nothing where a model cannot answer.

    Args:
        runs: folder of the run folders.
        results: folder of the tests.

    Raises:
        FileNotFoundError, ValueError: a test is missing, or damaged.
    """
    rows = []
    for model in SEARCHED:
        found = [read_search(results / model.name / search / "results.json") for search in SEARCHES]
        probe = read_results(results / model.name / "probe" / "results.json")
        order = order_accuracy(runs / model.name / "metrics.jsonl")
        recalls = [recall for each in found for recall in (each.t2v["r1"], each.t2v["r5"], each.v2t["r1"])]
        figures = (*recalls, order, probe.top1)
        rows.append((model.title, *("" if figure is None else f"{figure:.1f}" for figure in figures)))
    return rows


def read_search(path: Path) -> RetrievalResults:
    """Results of ``test_retrieval.py``.

    Raises:
        FileNotFoundError, ValueError: no such file, or not one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {no_file(path)}")
    return checked(RetrievalResults, read_json(path, "the results of a search"), path)


def order_accuracy(metrics: Path) -> float | None:
    """Share of the stories whose transcripts the last validation put in order, percent; None: none was asked to."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    return next((line[ORDER] for line in reversed(lines) if ORDER in line), None)


if __name__ == "__main__":
    run_main(main)
