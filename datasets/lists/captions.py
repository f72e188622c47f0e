"""Lists of videos and texts.

Captions: ``path TAB caption``, a line a caption; the lines of a video with several follow each other. Choices:
``path TAB answer TAB option TAB option ...``, the answer being the number of the right option, from 0. Paths are
relative to a root folder, or absolute. Texts are used as they are.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.lists.checks import check_list_and_root
from datasets.lists.label_sets import NO_LABEL
from datasets.lists.records import BLANKS, LONGEST_PATH, VideoList
from datasets.lists.tables import LINE_END, numbered_lines, read_text
from utils.text import shown

LABELS = re.compile(r"[0-9,; \t]+")  # what a list of labels, or of folders of frames, may have behind a tab
OPTIONS = re.compile(r"\s*\d+\t[^\t]+\t")  # what a line of choices has behind its path
# How a table's header names the first two columns; no video is called so.
HEADER = re.compile(
    r"(video|file)?[_ ]?(path|name|file|id|video)\t(caption|text|sentence|description|answer)s?\s*(\t|$)", re.I
)
CAPTION_FORM = "path TAB caption"
CHOICE_FORM = "path TAB answer TAB option TAB option ..."


@dataclass(frozen=True)
class TextList:
    """M videos and N lines of texts, in the order of the list; of captions each line has one text."""

    videos: VideoList
    video_of_line: np.ndarray  # int64 [N]
    texts: list[tuple[str, ...]]  # N
    answers: np.ndarray | None = None  # int64 [N], of choices: which of the texts is right

    @property
    def captions(self) -> list[str]:
        """The first text of each line, which of captions is the only one."""
        return [texts[0] for texts in self.texts]

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The fields of each line: path, the answer of choices, texts."""
        answers = [()] * len(self.texts) if self.answers is None else [(str(answer),) for answer in self.answers]
        for video, answer, texts in zip(self.video_of_line, answers, self.texts, strict=True):
            yield self.videos.path(video), *answer, *texts

    def fingerprint(self) -> str:
        """Hash of all lines that does not depend on their order (SHA-256, 16 hex digits)."""
        lines = ("\t".join(line).encode(errors="surrogateescape") for line in self.lines())
        return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()[:16]


def has_texts(path: str | Path) -> bool:
    """Whether a list has texts in the place of labels; its first line tells. False where there is no such file."""
    first = next(numbered_lines(read_text(Path(path))), (0, ""))[1] if path and Path(path).is_file() else ""
    rest = first.partition("\t")[2].strip()
    return rest != "" and not LABELS.fullmatch(rest)


class Line(NamedTuple):
    """A line of a list, with the texts behind its path."""

    number: int
    path: str
    texts: tuple[str, ...]
    answer: int = 0


def read_captions(path: str | Path, root: str | Path, prefix: str) -> TextList:
    """Read a list of captions.

    Args:
        root: folder that relative paths start from; "" for absolute paths.
        prefix: what the keys of list and root begin with, for errors: ``data.val_``, ``data.sources[0].``.

    Raises:
        FileNotFoundError, ValueError: file or root missing, empty list, a line that cannot be read, or a video that is
            in two places (file and line are named).
    """
    lines = _lines(path, root, prefix, CAPTION_FORM)
    listed = _list_of(Path(path), root, (_caption(Path(path), *line) for line in lines))
    if all(LABELS.fullmatch(texts[0]) for texts in listed.texts):
        found = shown(listed.texts[0][0])
        raise ValueError(f"{path}: expected lines '{CAPTION_FORM}', found labels in the place of captions: {found}")
    return listed


def read_choices(path: str | Path, root: str | Path, prefix: str) -> TextList:
    """Read a list of choices; arguments and errors as of ``read_captions``."""
    lines = [_choice(Path(path), *line) for line in _lines(path, root, prefix, CHOICE_FORM)]
    answers = np.array([line.answer for line in lines], dtype=np.int64)
    return _list_of(Path(path), root, lines, answers)


def read_either(path: str | Path, root: str | Path, prefix: str) -> TextList:
    """Read a list of captions, or of choices where its first line is one; arguments and errors as of both."""
    first = next(numbered_lines(read_text(Path(path))), (0, ""))[1] if Path(path).is_file() else ""
    read = read_choices if OPTIONS.match(first.partition("\t")[2]) else read_captions
    return read(path, root, prefix)


def _lines(path: str | Path, root: str | Path, prefix: str, form: str) -> Iterator[tuple[int, str, str]]:
    """Number, path and the rest of each line that is not blank."""
    check_list_and_root(path, root, prefix, f"a list of videos and texts, '{form}'")
    path, is_empty = Path(path), True
    for number, line in numbered_lines(read_text(path)):
        if is_empty and HEADER.match(line):
            raise ValueError(f"{path}:{number}: expected '{form}', found {shown(line)} (a list has no header)")
        is_empty = False
        name, tab, rest = line.partition("\t")
        name = name.strip(BLANKS)
        if not tab or not name:
            raise ValueError(f"{path}:{number}: expected '{form}', found {shown(line)}")
        if len(name.encode()) > LONGEST_PATH:
            raise ValueError(f"{path}:{number}: a path has at most {LONGEST_PATH} bytes, found {shown(name)}")
        yield number, name, rest
    if is_empty:
        raise ValueError(f"{prefix}list {path}: the list is empty")


def _caption(path: Path, number: int, name: str, caption: str) -> Line:
    if not caption.strip():
        raise ValueError(f"{path}:{number}: the caption of {shown(name)} is empty")
    if OPTIONS.match(caption):
        line = f"{name}\t{caption}"
        raise ValueError(f"{path}:{number}: expected '{CAPTION_FORM}', found a line of --choices: {shown(line)}")
    return Line(number, name, (caption,))


def _choice(path: Path, number: int, name: str, rest: str) -> Line:
    answer, *options = rest.split("\t")
    found = answer.strip()
    if len(options) < 2:
        line = f"{name}\t{rest}"
        raise ValueError(f"{path}:{number}: expected '{CHOICE_FORM}', two options at least, found {shown(line)}")
    if not found.isascii() or not found.isdigit():
        raise ValueError(
            f"{path}:{number}: expected the number of the right option of {shown(name)}, from 0, found {shown(found)}"
        )
    if empty := [place for place, option in enumerate(options) if not option.strip()]:
        raise ValueError(f"{path}:{number}: option {empty[0]} of {shown(name)} is empty")
    if len(found) > len(str(len(options))) or int(found) >= len(options):
        raise ValueError(
            f"{path}:{number}: answer {shown(found)} is none of the {len(options)} options, which count from 0"
        )
    return Line(number, name, tuple(options), int(found))


def _list_of(path: Path, root: str | Path, lines: Iterable[Line], answers: np.ndarray | None = None) -> TextList:
    """The videos of the lines, each once."""
    first: dict[str, int] = {}  # the number of a video's first line
    owners, texts, before = array("q"), [], ""
    for line in lines:
        if line.path in first and line.path != before:
            raise ValueError(
                f"{path}:{line.number}: {shown(line.path)} is in line {first[line.path]}, too; the lines of a video "
                "follow each other"
            )
        first.setdefault(line.path, line.number)
        owners.append(len(first) - 1)
        texts.append(line.texts)
        before = line.path
    videos = VideoList.of_pairs(str(root), [(name, NO_LABEL) for name in first])
    return TextList(videos, np.array(owners, dtype=np.int64), texts, answers)


def list_text(lines: Sequence[Sequence[str]]) -> str:
    """The content of a list whose lines have these fields, path first.

    Line breaks and tabs within texts become blanks, which tokenizers do not tell apart.

    Raises:
        ValueError: a path has a tab or a line break.
    """
    if wrong := next((path for path, *_ in lines if "\t" in path or LINE_END.search(path)), None):
        raise ValueError(f"the file name {shown(wrong)} does not fit into a line of a list; rename the file")
    return "".join("\t".join((path, *map(_one_line, fields))) + "\n" for path, *fields in lines)


def _one_line(text: str) -> str:
    return LINE_END.sub(" ", text).replace("\t", " ")
