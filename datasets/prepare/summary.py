"""What ``datasets.prepare`` found: an entry a list for the JSON file, and a summary that is short when all is well."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NUM_EXAMPLES = 3
NUM_CLASSES_SHOWN = 10


def list_entry(
    root: Path,
    folders: list[str],
    found: list[tuple[str, int]],
    missing: list[tuple[str, int]],
    fingerprint: str,
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
    rows = [("list", "videos", "missing", "official", "classes", "fingerprint", "paths start from")]
    rows += [_row(name, entry) for name, entry in report["lists"].items()]
    lines = [*_aligned(rows, num_left=1), *_incomplete_classes(report["lists"]), *_empty_classes(report["lists"])]
    duplicates, extra = report.get("duplicates", {}), report.get("extra", [])
    if duplicates:
        examples = [f"{taken} (not {', '.join(others)})" for taken, others in duplicates.items()]
        lines.append(f"videos with several files: {len(duplicates):,}; taken {_examples(examples)}")
    if extra:
        lines.append(f"files that no list wants: {len(extra):,}; {_examples(extra)}")
    if report.get("num_unlisted"):
        lines.append(f"official videos of no list (unused, or no public label): {report['num_unlisted']:,}")
    return "\n".join([f"{report['dataset']}: {report['num_files']:,} video files below {report['videos']}", *lines,
                      f"details: {path}", ""])  # fmt: skip


def _row(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    num_classes = sum(count["found"] > 0 for count in entry["classes"].values())
    official = f"{entry['official']:,}" if entry.get("official") else "-"
    return (
        name if entry["num_videos"] else f"{name} (not written)",
        f"{entry['num_videos']:,}",
        f"{entry['num_missing']:,}",
        official,
        f"{num_classes} of {len(entry['classes'])}",
        entry["fingerprint"] or "-",
        entry["root"],
    )


def _incomplete_classes(lists: dict[str, dict[str, Any]]) -> list[str]:
    """The classes with most missing videos, of lists that have any."""
    rows = [
        (count["missing"], count["found"], folder, name)
        for name, entry in lists.items()
        if entry["num_videos"]
        for folder, count in entry["classes"].items()
        if count["missing"]
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[0], row[1:]))
    shown = [(folder, name, f"{found:,}", f"{missing:,}") for missing, found, folder, name in rows[:NUM_CLASSES_SHOWN]]
    table = _aligned([("incomplete class", "list", "found", "missing"), *shown], num_left=2)
    return [*table, f"... and {len(rows) - len(shown):,} more"] if len(rows) > len(shown) else table


def _empty_classes(lists: dict[str, dict[str, Any]]) -> list[str]:
    """Classes of which no video is known at all, by list."""
    return [
        f"classes without any video in {name}: {len(empty):,}; {_examples(empty)}"
        for name, entry in lists.items()
        if entry["num_videos"]
        and (empty := [folder for folder, count in entry["classes"].items() if count == {"found": 0, "missing": 0}])
    ]


def _aligned(rows: Sequence[Sequence[str]], num_left: int) -> list[str]:
    """Columns of equal width: the first ``num_left`` and a seventh to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column < num_left or column == 6 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _examples(names: list[str]) -> str:
    return ", ".join(names[:NUM_EXAMPLES]) + ", ..." * (len(names) > NUM_EXAMPLES)
