"""Class names that a user types, or keeps in a file of any common kind."""

import codecs
import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

LABEL_SUFFIXES = (".csv", ".tsv", ".txt")
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
FALLBACK_ENCODING = "cp1252"  # of spreadsheets that do not write UTF-8


def read_labels(labels: str | Path | Sequence[str]) -> list[str]:
    """Class names from a sequence, a file, or text such as ``juggling, "jumping, high"``.

    A file is a table with a column ``name`` (and, if it has a column ``id``, in the order of ids), or has one name a
    line. Tables are separated by commas, semicolons or tabs.

    Raises:
        FileNotFoundError: ``labels`` looks like a file name, and there is none.
        ValueError: no names, an empty one, or one that is there twice (CLIP does not tell upper case from lower).
    """
    if isinstance(labels, str | Path):
        source, names = _from_text_or_file(labels)
    else:
        source, names = "labels", list(labels)
    names = [" ".join(name.split()) for name in names]
    if not names:
        raise ValueError(f"{source}: no class names")
    places: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"{source}: class name {place} is empty")
        if (first := places.setdefault(name.casefold(), place)) != place:
            raise ValueError(f"{source}: class names {first} and {place} are the same: {name!r}")
    return names


def _from_text_or_file(labels: str | Path) -> tuple[str, list[str]]:
    if os.path.isfile(labels):
        return str(labels), _from_file(Path(labels))
    if isinstance(labels, Path) or labels.lower().endswith(LABEL_SUFFIXES):
        raise FileNotFoundError(f"labels {str(labels)!r}: no such file")
    rows = list(csv.reader([" ".join(labels.split())], skipinitialspace=True))
    return "labels", [name for row in rows for name in row]


def _from_file(path: Path) -> list[str]:
    lines = [line for line in _decode(path).splitlines() if line.strip()]
    header = lines[0] if lines else ""
    delimiter = next((mark for mark in "\t;," if mark in header), ",")
    fields = [field.strip().lower() for field in next(csv.reader([header], delimiter=delimiter), [])]
    if "name" in fields:
        return _from_table(path, lines[1:], fields, delimiter)
    if path.suffix.lower() != ".txt" and len(fields) > 1:
        raise ValueError(f"{path}: expected a column 'name', or one name a line, found the columns {','.join(fields)}")
    return lines


def _from_table(path: Path, lines: list[str], fields: list[str], delimiter: str) -> list[str]:
    rows = [dict(zip(fields, row, strict=False)) for row in csv.reader(lines, delimiter=delimiter)]
    if "id" in fields:
        for line, row in enumerate(rows, start=2):
            if not row["id"].strip().isdigit():
                raise ValueError(f"{path}:{line}: expected a number as id, found {row['id']!r}")
        rows.sort(key=lambda row: int(row["id"]))
    return [row.get("name", "") for row in rows]


def _decode(path: Path) -> str:
    """Text in UTF-8 or UTF-16; else as Windows wrote it in Western Europe, with a warning.

    Raises:
        ValueError: not text.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        pass
    try:
        text = content.decode(FALLBACK_ENCODING)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8, UTF-16 or {FALLBACK_ENCODING} (byte {error.start})") from None
    logger.warning("%s is not UTF-8; read as %s", path, FALLBACK_ENCODING)
    return text
