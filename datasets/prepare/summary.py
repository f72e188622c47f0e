"""What ``datasets.prepare`` found: an entry a list for the JSON file, and a summary that is short when all is well."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.text import render

TEMPLATE = Path(__file__).with_name("summary.txt.jinja")
NUM_CLASSES_SHOWN = 10


def list_entry(
    root: Path, folders: list[str], found: list[tuple[str, int]], missing: list[tuple[str, int]], fingerprint: str
) -> dict[str, Any]:
    """The entry of one list.

    Args:
        root: folder that its paths start from.
        folders: class folders by label.
        found, missing: (path or name, label).
    """
    found_of, missing_of = Counter(label for _, label in found), Counter(label for _, label in missing)
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, label in sorted(missing):
        names_of[folders[label]].append(name)
    return {
        "root": str(root),
        "num_videos": len(found),
        "num_missing": len(missing),
        "fingerprint": fingerprint,
        "classes": {
            folder: {"found": found_of[label], "missing": missing_of[label]} for label, folder in enumerate(folders)
        },
        "missing": names_of,
    }


def summary(report: dict[str, Any], path: Path) -> str:
    """The report as text; ``path`` is where the whole of it is."""
    header = ("list", "videos", "missing", "official", "classes", "fingerprint", "paths start from")
    table = _aligned([header, *(_row(name, entry) for name, entry in report["lists"].items())], left=(0, 6))
    incomplete = sorted(
        (-count["missing"], count["found"], folder, name)
        for name, entry in report["lists"].items()
        if entry["num_videos"]
        for folder, count in entry.get("classes", {}).items()
        if count["missing"]
    )
    worst = [(folder, name, f"{found:,}", f"{-few:,}") for few, found, folder, name in incomplete[:NUM_CLASSES_SHOWN]]
    if worst:
        table += _aligned([("incomplete class", "list", "found", "missing"), *worst], left=(0, 1))
    taken = [f"{path} (not {', '.join(others)})" for path, others in report.get("duplicates", {}).items()]
    num_more = len(incomplete) - len(worst)
    return render(TEMPLATE, report=report, table=table, num_more=num_more, taken=taken, path=path)


def _row(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    classes = entry.get("classes", {})
    num_classes = sum(count["found"] > 0 for count in classes.values())
    official = f"{entry['official']:,}" if entry.get("official") else "-"
    return (
        name if entry["num_videos"] else f"{name} (not written)",
        f"{entry['num_videos']:,}",
        f"{entry['num_missing']:,}",
        official,
        f"{num_classes} of {len(classes)}" if classes else f"{entry['num_lines']:,} lines",
        entry["fingerprint"] or "-",
        entry["root"],
    )


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Columns of equal width: those in ``left`` begin on one line, numbers end on one."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
