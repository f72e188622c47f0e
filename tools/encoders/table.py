"""The results of scripts/run_table.sh as a Markdown table: one line a tower, one column a list, and their mean."""

import argparse
import sys
from pathlib import Path

from engine.results import Results, read_results
from utils.cli import run_main
from utils.files import write_text
from utils.run_folder import folder_name
from utils.text import render

TABLE = Path(__file__).with_name("table.md.jinja")
FAILED = "failed"  # in the place of the figures of a tower that could not be tested


def main(argv: list[str] | None = None) -> str:
    """Print the table and write it to ``table.md`` in the folder of the results; returns it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tags", nargs="+", help="towers, as network.arch")
    parser.add_argument("--folder", type=Path, required=True, help="of the results, one folder a tower")
    parser.add_argument("--where", action="store_true", help="print the folder of each tower, a line each, and stop")
    args = parser.parse_args(argv)
    if args.where:
        found = "".join(f"{folder}\n" for folder in folders_of(args.folder, args.tags).values())
        sys.stdout.write(found)
        return found
    text = table(args.folder, args.tags)
    write_text(args.folder / "table.md", text)
    sys.stdout.write(f"{text}\nwrote {args.folder / 'table.md'}\n")
    return text


def folders_of(folder: Path, tags: list[str]) -> dict[str, Path]:
    """Where the results of each tower are.

    Raises:
        ValueError: two towers would have one folder.
    """
    found: dict[str, Path] = {tag: folder / folder_name(tag) for tag in tags}
    owners = {path: tag for tag, path in found.items()}
    if clash := next((tag for tag, path in found.items() if owners[path] != tag), None):
        both = f"{clash} and {owners[found[clash]]}"
        raise ValueError(f"{both} would both be {found[clash]}: make two tables, with NAME=another in front")
    return found


def table(folder: Path, tags: list[str]) -> str:
    """Markdown; a tower without results has a line that says so.

    Raises:
        FileNotFoundError: no tower has results.
        ValueError: a file is damaged, or tests differ in more than the tower.
    """
    paths = {tag: place / "results.json" for tag, place in folders_of(folder, tags).items()}
    tested = {tag: read_results(path) for tag, path in paths.items() if path.is_file()}
    if not tested:
        raise FileNotFoundError(f"{folder}: no results of {', '.join(tags)}; scripts/run_table.sh makes them")
    (first, reference), *others = tested.items()
    for tag, results in others:
        if _protocol(results) != _protocol(reference):
            raise ValueError(f"{paths[first]} and {paths[tag]} are of different tests, which do not compare")
    splits = list(reference.splits or {reference.dataset: reference})
    columns = [*splits, *["mean"] * bool(reference.splits)]
    rows = [(tag, _cells(tested[tag]) if tag in tested else [FAILED] * len(columns)) for tag in paths]
    return render(TABLE, columns=columns, rows=rows, views=reference.views, precision=reference.precision)


def _cells(results: Results) -> list[str]:
    splits = list((results.splits or {}).values())
    return [f"{each.top1:.2f}" for each in [*splits, results]]


def _protocol(results: Results) -> list[tuple]:
    """What must agree before two towers compare."""
    lists = (results.splits or {results.dataset: results}).items()
    return [
        (name, each.num_videos, each.views, each.fusion, each.precision, each.list_fingerprint, each.decoder)
        for name, each in lists
    ]


if __name__ == "__main__":
    run_main(main)
