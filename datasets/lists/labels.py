"""Class names: typed, or kept in a file of any common kind."""

import csv
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from datasets.lists.tables import WINDOWS, Table, find_table, numbered_lines, read_table, read_text, table_of
from utils.files import no_file
from utils.text import has_control_characters, shown

LABEL_SUFFIXES = (".csv", ".tsv", ".txt")
OTHER_SUFFIXES = (".json", ".yaml", ".yml", ".xlsx", ".xls", ".ods")  # of files that may hold names, but are not read
ID = re.compile("[0-9]{1,9}")
LONGEST_NAME = 1000  # characters; CLIP reads about 300
DAMAGED = "\ufffd"  # what a converter leaves where it did not know the letter


def read_labels(labels: str | Path | Sequence[str]) -> list[str]:
    """Class names from a sequence, a file, or text such as ``juggling, "jumping, high"``.

    A file is a table with a column ``name`` (and, if it has a column ``id``, in the order of ids), or has one name a
    line. Tables are separated by commas, semicolons or tabs.

    Raises:
        FileNotFoundError: ``labels`` looks like a file name, and there is none.
        ValueError: no names, or some that ``check_names`` refuses; a file that ``read_label_table`` refuses.
    """
    if isinstance(labels, str | Path) and os.path.isfile(labels):
        return _from_file(Path(labels))
    if isinstance(labels, Path) or (
        isinstance(labels, str) and labels.lower().endswith(LABEL_SUFFIXES + OTHER_SUFFIXES)
    ):
        raise FileNotFoundError(f"labels {shown(str(labels))}: {no_file(labels)}")
    names = split_names(labels) if isinstance(labels, str) else list(labels)
    if not names:
        raise ValueError("labels: no class names")
    return check_names(names, [f"labels, name {place}" for place in range(1, len(names) + 1)])


def split_names(text: str) -> list[str]:
    """Names typed with commas between; a name in quotes may hold commas.

    Raises:
        ValueError: quotes that do not fit.
    """
    try:
        return next(csv.reader([" ".join(text.split())], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise ValueError(f"labels: expected names with commas between, found {shown(text)} ({error})") from None


def check_names(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """The names with single spaces; ``places`` say in errors where each was found.

    Raises:
        ValueError: a name that is empty or too long, holds a line break or another control character, or is there
            twice: CLIP tells neither upper from lower case nor spellings of a letter in Unicode apart.
    """
    first: dict[str, int] = {}
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        if not name.strip():
            raise ValueError(f"{place}: an empty class name")
        if has_control_characters(name.strip()) or DAMAGED in name:
            raise ValueError(f"{place}: expected a class name in one line of text, found {shown(name)}")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"{place}: a class name of {len(name)} characters, {LONGEST_NAME} at most: {shown(name)}")
        other = first.setdefault(_key(name), number)
        if other != number:
            spelt = "" if names[other] == name else f" as {shown(names[other])}"
            raise ValueError(f"{place}: the class name {shown(name)} is there twice, first at {places[other]}{spelt}")
    return [" ".join(name.split()) for name in names]


def _key(name: str) -> str:
    """What two spellings of one name have in common."""
    visible = (c for c in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", "".join(visible)).split())


def read_label_table(path: Path, column: str = "name") -> tuple[list[str], Table]:
    """The names of a table with the columns ``id`` and ``column`` (more are kept), by id; and its rows, by id.

    Raises:
        ValueError: see ``datasets.lists.tables.read_table`` and ``check_names``; ids that are not 0 to K-1, each once.
            All errors are FILE:LINE.
    """
    return _by_id(path, read_table(path, ("id", column)), column)


def read_class_names(path: str | Path, num_classes: int = 0) -> list[str]:
    """Class names of ``data.label_list``, a table with the columns ``id,name`` (more are ignored), by id.

    Args:
        num_classes: expected number; 0: any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see ``read_label_table``; another number of classes than expected.
    """
    if not str(path):
        raise ValueError(
            "data.label_list is not set: it names the CSV file of classes (or set data.folder: one folder a class)"
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data.label_list {str(path)!r}: {no_file(path)}")
    names, _ = read_label_table(path)
    if num_classes not in (0, len(names)):
        raise ValueError(f"data.num_classes is {num_classes}, but {path} holds {len(names)} classes")
    return names


def write_class_names(path: Path, class_names: list[str], folders: list[str]) -> None:
    """Write a label CSV with the columns ``id,name,folder``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = zip(range(len(class_names)), class_names, folders, strict=True)
        csv.writer(file, lineterminator="\n").writerows([("id", "name", "folder"), *rows])


def _by_id(path: Path, table: Table, column: str) -> tuple[list[str], Table]:
    count = len(table.rows)
    if not count:
        raise ValueError(f"{path}: no class names, expected rows below the header")
    places: dict[int, int] = {}
    for row, line in enumerate(table.lines):
        text = table.rows[row]["id"]
        if not ID.fullmatch(text):
            raise ValueError(f"{path}:{line}: expected a whole number 0, 1, 2, ... as id, found {shown(text)}")
        if (other := places.setdefault(int(text), row)) != row:
            raise ValueError(f"{path}:{line}: the id {int(text)} is there twice, first in line {table.lines[other]}")
    if beyond := [row for label, row in places.items() if label >= count]:
        hint = "; they start at 1, count from 0" if sorted(places) == list(range(1, count + 1)) else ""
        line, text = table.lines[beyond[0]], table.rows[beyond[0]]["id"]
        raise ValueError(f"{path}:{line}: ids must be 0 to {count - 1}, each once, found {text}{hint}")
    order = [places[label] for label in range(count)]
    ordered = Table(table.columns, [table.rows[row] for row in order], [table.lines[row] for row in order])
    return _names(path, ordered, column), ordered


def _names(path: Path, table: Table, column: str) -> list[str]:
    return check_names([row[column] for row in table.rows], [f"{path}:{line}" for line in table.lines])


def _from_file(path: Path) -> list[str]:
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ValueError(f"{path}: expected a table or one name a line in {', '.join(LABEL_SUFFIXES)}")
    text = read_text(path, WINDOWS)
    if table := find_table(path, text, ("name",)):
        names = _by_id(path, table, "name")[0] if "id" in table.columns else _names(path, table, "name")
    elif path.suffix.lower() == ".txt":
        names = _from_lines(path, text)
    else:
        names = _from_column(path, text)
    if not names:
        raise ValueError(f"{path}: no class names")
    return names


def _from_column(path: Path, text: str) -> list[str]:
    """A table of one column without a header."""
    number, first = next(numbered_lines(text), (0, ""))
    if any(mark in first.split('"')[-1] for mark in ",;\t"):
        raise ValueError(f"{path}:{number}: expected a column 'name', or one name a line, found {shown(first)}")
    return _names(path, table_of(path, text, ["name"]), "name")


def _from_lines(path: Path, text: str) -> list[str]:
    """A name a line, commas included."""
    lines = {number: line.strip() for number, line in numbered_lines(text)}
    for edge in (r"^([0-9]{1,9})\b", r"\b([0-9]{1,9})$"):
        numbers = [int(match[1]) if (match := re.search(edge, line)) else -1 for line in lines.values()]
        if len(lines) > 1 and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(lines))):
            raise ValueError(
                f"{path}:{next(iter(lines))}: the lines are numbered; expected one name a line without a number, or a "
                "table with the header id,name"
            )
    names = [name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name for name in lines.values()]
    return check_names(names, [f"{path}:{line}" for line in lines])
