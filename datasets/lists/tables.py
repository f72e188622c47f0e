"""Text files and tables as people and spreadsheets write them, in any usual encoding; errors are FILE:LINE."""

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from utils.text import shown

logger = logging.getLogger(__name__)

# UTF-32's marks begin with those of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAX_BYTES = 2**30
ZERO_SHARE = 0.2  # of the characters of UTF-16 text that have a zero byte, at least: separators, digits, line ends
WINDOWS = "cp1252"  # of spreadsheets in Western Europe that do not write UTF-8
LINE_END = re.compile(r"\r\n|\r|\n")  # str.splitlines knows more, which file names and class names may hold
DELIMITERS = ",;\t"
SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?', re.IGNORECASE)  # Excel's own first line


class Table(NamedTuple):
    """Rows below a header, all with a field for each column."""

    columns: list[str]  # in lower case
    rows: list[dict[str, str]]
    lines: list[int]  # where each row begins


def read_text(path: Path, fallback: str = "") -> str:
    """A text file's content: UTF-8, or UTF-16 (without a byte-order mark where its zero bytes tell it).

    Args:
        fallback: encoding of a file that is neither, used with a warning; "": an error.

    Raises:
        ValueError: not text; FILE:LINE.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes, expected a text file")
    content = path.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "")
    encoding = encoding or _utf16_by_zeros(content[: 2**16]) or "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.split(rb"\r\n|\r|\n", content[: error.start])) if encoding.startswith("utf-8") else 1
        # A few accented letters in UTF-8 and then something else is a file put together of two.
        if not fallback or encoding != "utf-8" or not content.decode(errors="ignore").isascii():
            raise ValueError(
                f"{path}:{line}: not text in {encoding.upper()} (byte {error.start} of the file)"
            ) from None
        text = _decode_as(fallback, content, path, line)
    if "\0" in text:
        line = len(LINE_END.split(text[: text.index("\0")]))
        raise ValueError(f"{path}:{line}: not text, it holds a zero byte")
    return text.lstrip("\ufeff")


def _utf16_by_zeros(content: bytes) -> str:
    """UTF-16 without a mark: every other byte of plain characters is zero, and of line ends."""
    for encoding, first in (("utf-16-le", 1), ("utf-16-be", 0)):
        zeros, others = content[first::2].count(0), content[1 - first :: 2].count(0)
        has_line_end = re.search("[\r\n]", content.decode(encoding, errors="ignore")) is not None
        if has_line_end and zeros > max(others, ZERO_SHARE * len(content) / 2):
            return encoding
    return ""


def _decode_as(encoding: str, content: bytes, path: Path, line: int) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"{path}:{line}: not text in UTF-8, UTF-16 or {encoding}") from None
    example = shown(LINE_END.split(text)[line - 1])
    logger.warning("%s is not UTF-8; read as %s, line %d as %s", path, encoding, line, example)
    return text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of the lines that are not blank, with Unix, Windows and old Mac line ends."""
    start = 0
    for number, end in enumerate(
        chain(LINE_END.finditer(text), [None]), start=1
    ):  # a list of all would be a second copy
        line = text[start : end.start() if end else None]
        start = end.end() if end else len(text)
        if line.strip():
            yield number, line


def read_table(path: Path, needed: Sequence[str]) -> Table:
    """A table separated by commas, semicolons or tabs; its header names the ``needed`` columns, in any case.

    Raises:
        ValueError: see ``read_text`` and ``table_of``; a column is missing.
    """
    text = read_text(path, WINDOWS)
    if table := find_table(path, text, needed):
        return table
    number, first, _ = _first_line(text)
    place = f"{path}:{number}" if number else path
    raise ValueError(f"{place}: expected the columns {','.join(needed)}, found {shown(first) if first else 'none'}")


def _first_line(text: str) -> tuple[int, str, str]:
    """Number and content of the first line, and the separators that it may have; (0, "", "") if there is none."""
    delimiters = DELIMITERS
    for number, line in numbered_lines(text):
        separator = SEPARATOR_LINE.fullmatch(line.strip(" "))
        if not separator:
            return number, line, delimiters
        delimiters = separator[1]
    return 0, "", ""


def find_table(path: Path, text: str, needed: Sequence[str]) -> Table | None:
    """The table, if its first row names the ``needed`` columns with one of the separators; see ``table_of``."""
    number, _, delimiters = _first_line(text)
    for delimiter in delimiters:
        try:
            line, fields = next(row for row in _rows(path, text, delimiter) if row[0] >= number)
        except (ValueError, StopIteration):
            continue
        columns = [field.lower() for field in fields]
        if set(needed) <= set(columns):
            return table_of(path, text, columns, delimiter, line)
    return None


def table_of(path: Path, text: str, columns: list[str], delimiter: str = ",", header: int = 0) -> Table:
    """The rows below a header.

    Args:
        header: its line; 0: none, the first line is a row.

    Raises:
        ValueError: a column is there twice; a row has more or fewer fields than the header; wrong quotes.
    """
    if twice := next((name for name in columns if name and columns.count(name) > 1), ""):
        raise ValueError(f"{path}:{header}: the column {twice} is there twice")
    rows, lines = [], []
    for line, fields in _rows(path, text, delimiter):
        if line <= header:
            continue
        if len(fields) != len(columns):
            raise ValueError(
                f"{path}:{line}: expected {len(columns)} fields ({','.join(columns)}), found {len(fields)}: "
                f"{shown(delimiter.join(fields))}; a text with {delimiter!r} in it needs quotes"
            )
        rows.append(dict(zip(columns, fields, strict=True)))
        lines.append(line)
    return Table(columns, rows, lines)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the number of the line that each begins in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}:{line}: not a row of a table: {error}") from None
        if fields not in ([], [""]):
            yield line, fields
