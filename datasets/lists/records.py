"""List files.

A list file has one video a line: ``path label`` for video files, ``folder num_frames label`` for folders of
extracted frames; a comma or a semicolon may stand between, too. Paths are relative to a root folder (or absolute) and
may contain spaces; one that looks otherwise stands in double quotes. Where videos have several labels, those stand
after a blank with commas between: ``path 3,17``.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.lists.checks import check_folders, check_list_and_root, check_paths, ends_in_number
from datasets.lists.label_sets import NO_LABEL, LabelSets, has_label_sets, split_label_set
from datasets.lists.tables import numbered_lines, read_text
from datasets.lists.video_files import VIDEO_SUFFIXES
from utils.text import shown

MOST_DIGITS = 9  # of a label, and of a number of frames
QUOTED = re.compile('"((?:[^"]|"")+)"')
LONGEST_PATH = 4096  # bytes, as in Linux
BLANKS = " \t"


@dataclass(frozen=True)
class VideoList:
    """N labelled videos.

    Held as arrays, not as Python objects: loader workers share them without copying
    (touching an object's reference count copies its memory page in a forked process).
    """

    root: str
    paths: np.ndarray  # [N] UTF-8 bytes, as written in the list
    labels: np.ndarray  # [N] int64; ``NO_LABEL`` in all rows where the list has label sets
    num_frames: np.ndarray | None  # [N] int64 for folders of frames, None for video files
    targets: LabelSets | None = None  # of a list where a video may have several labels, see ``has_label_sets``

    @classmethod
    def of_pairs(cls, root: str, pairs: list[tuple[str, int]]) -> "VideoList":
        """From (path, label) of video files; file names that are not UTF-8 keep their bytes."""
        paths = np.array([path.encode(errors="surrogateescape") for path, _ in pairs], dtype=bytes)
        return cls(root, paths, np.array([label for _, label in pairs], dtype=np.int64), None)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_label_sets(self) -> bool:
        """Whether a video may have several labels; then they are in ``targets``."""
        return self.targets is not None

    def labels_of(self, index: int) -> list[int]:
        """The labels of a video, sorted."""
        return self.targets[index] if self.has_label_sets else [int(self.labels[index])]

    def all_labels(self) -> np.ndarray:
        """The labels of all videos one after the other, int64 [N], or longer where the list has label sets."""
        return self.targets.flat if self.has_label_sets else self.labels

    def multi_hot(self, num_classes: int) -> np.ndarray:
        """Which classes each video shows, bool [N, K]."""
        if self.has_label_sets:
            return self.targets.multi_hot(num_classes)
        return self.labels[:, None] == np.arange(num_classes)

    def check_one_label(self, name: str, what: str) -> None:
        """See that every video has one label.

        Args:
            name: of the list, ``data.train_list``.
            what: needs that.

        Raises:
            ValueError: a video may have several; names the first.
        """
        if self.has_label_sets:
            index = int(np.argmax(np.diff(self.targets.offsets)))  # of the most, where none has several any more
            raise ValueError(
                f"{name}: {what} expects one label a video, found {shown(self.path(index))} with the labels "
                f"{','.join(map(str, self.targets[index]))}"
            )

    def path(self, index: int) -> str:
        """Path of a video as written in the list."""
        return self.paths[index].decode(errors="surrogateescape")

    def take(self, indices: np.ndarray) -> "VideoList":
        """The videos at int64 ``indices`` [n], in that order; repeats allowed."""
        num_frames = None if self.num_frames is None else self.num_frames[indices]
        targets = self.targets.take(indices) if self.has_label_sets else None
        return VideoList(self.root, self.paths[indices], self.labels[indices], num_frames, targets)

    def fingerprint(self) -> str:
        """Hash of all paths and labels that does not depend on their order (SHA-256, 16 hex digits)."""
        return self._hash(sorted)

    def order_fingerprint(self) -> str:
        """As ``fingerprint``, of paths and labels in their order."""
        return self._hash(list)

    def _hash(self, arranged: Callable[[Iterable[bytes]], list[bytes]]) -> str:
        lines = (b"%s %s" % pair for pair in zip(self.paths.tolist(), self._label_texts(), strict=True))
        return hashlib.sha256(b"\n".join(arranged(lines))).hexdigest()[:16]

    def _label_texts(self) -> Iterable[bytes]:
        """The labels of each video as a list has them."""
        if self.has_label_sets:
            return (",".join(map(str, self.targets[index])).encode() for index in range(len(self)))
        return (b"%d" % label for label in self.labels.tolist())


class Row(NamedTuple):
    """A line of a list."""

    line: int
    path: str
    is_quoted: bool
    num_frames: list[int]  # of a folder of frames; else empty
    labels: list[int]


def read_video_list(path: str | Path, root: str | Path, modality: str, num_classes: int, key: str) -> VideoList:
    """Read a list file.

    Args:
        root: folder that relative paths start from; "" for absolute paths.
        modality: ``video`` (files), ``shards`` (packed files) or ``RGB`` (folders of frames).
        num_classes: labels must lie below.
        key: config section of list and root in error messages, ``train`` or ``val``.

    Raises:
        FileNotFoundError, ValueError: file or root missing, empty list, or a line that cannot be read (file and
            line are named).
    """
    check_list_and_root(path, root, f"data.{key}_", "the list file of videos")
    path = Path(path)
    num_numbers = 2 if modality == "RGB" else 1
    lines = [(number, line.strip(BLANKS)) for number, line in numbered_lines(read_text(path))]
    if not lines:
        raise ValueError(f"data.{key}_list {path}: the list is empty")
    has_sets = has_label_sets(str(root), (line for _, line in lines), num_numbers)
    rows = [_parse(path, number, line, num_numbers, has_sets) for number, line in lines]
    places = {row.line: row.path for row in rows if not row.is_quoted}
    (check_paths if num_numbers == 1 else check_folders)(path, str(root), places)
    numbers = [row.line for row in rows for _ in row.labels]
    _check_labels(path, numbers, np.array([label for row in rows for label in row.labels]), num_classes)
    targets = LabelSets.of([row.labels for row in rows]) if has_sets else None
    labels = np.array([NO_LABEL if has_sets else row.labels[0] for row in rows], dtype=np.int64)
    num_frames = np.array([row.num_frames[0] for row in rows], dtype=np.int64) if num_numbers == 2 else None
    return VideoList(str(root), np.array([row.path.encode() for row in rows]), labels, num_frames, targets)


def _parse(path: Path, line_number: int, line: str, num_numbers: int, has_sets: bool) -> Row:
    """One line, without blanks around it.

    Args:
        num_numbers: after the path.
        has_sets: the last of them may be several labels.
    """
    rest, numbers, labels = line, [], []
    if has_sets and (split := split_label_set(line, num_numbers)):
        rest, digits = split
        labels = [_number(path, line_number, line, num_numbers, each) for each in digits]
        if twice := [label for place, label in enumerate(labels) if label in labels[:place]]:
            raise ValueError(f"{path}:{line_number}: the label {twice[0]} is there twice in {shown(line)}")
    for _ in range(num_numbers - bool(labels)):
        head = rest.rstrip("0123456789")
        number, rest = rest[len(head) :], head.rstrip(BLANKS)
        rest = rest[:-1].rstrip(BLANKS) if rest.endswith((",", ";")) else rest
        has_form = rest != head and rest and not rest.endswith((",", ";"))
        numbers.insert(0, _number(path, line_number, line, num_numbers, number, has_form))
    quoted = QUOTED.fullmatch(rest)
    name = quoted[1].replace('""', '"') if quoted else rest
    if not quoted and ("\t" in name or (len(name) > 1 and name[0] == name[-1] and name[0] in "\"'")):
        raise ValueError(
            f"{path}:{line_number}: a path with a tab or quotes around it stands in double quotes, with two for each "
            f"of its own; found {shown(line)}"
        )
    if len(name.encode()) > LONGEST_PATH:
        raise ValueError(f"{path}:{line_number}: a path has at most {LONGEST_PATH} bytes, found {shown(name)}")
    return Row(line_number, name, quoted is not None, numbers[: num_numbers - 1], labels or numbers[-1:])


def _number(path: Path, line_number: int, line: str, num_numbers: int, digits: str, has_form: bool = True) -> int:
    """A number of a line, if the line has the form of one."""
    if has_form and 0 < len(digits) <= MOST_DIGITS:
        return int(digits)
    form = "'folder num_frames label'" if num_numbers == 2 else "'path label'"
    reason = ""
    if len(digits) > MOST_DIGITS:
        reason = f" ({len(digits)} digits are no number of frames or classes)"
    elif line.endswith(("label", "labels", "class", "target")):
        reason = " (a list has no header)"
    raise ValueError(f"{path}:{line_number}: expected {form}, found {shown(line)}{reason}")


def _check_labels(path: Path, lines: list[int], labels: np.ndarray, num_classes: int) -> None:
    """See that every label is that of a class; ``lines``: of each."""
    outside = np.flatnonzero(labels >= num_classes)
    if len(outside):
        starts_at_one = labels.min() == 1 and labels.max() == num_classes
        hint = f"; the labels are 1 to {num_classes}, count from 0" if starts_at_one else ""
        line, label = lines[outside[0]], labels[outside[0]]
        raise ValueError(f"{path}:{line}: label {label} is outside the {num_classes} classes of the label file{hint}")


def write_video_list(path: Path, videos: VideoList) -> None:
    """Write a list file that ``read_video_list`` reads back (with the same root).

    Raises:
        ValueError: a path that a line cannot hold, such as one with a line break or one that is not UTF-8.
    """
    for name in videos.paths.tolist():
        text = name.decode(errors="ignore")
        if text.encode() != name or not text or len(name) > LONGEST_PATH or re.search("[\r\n\0]", text):
            shown_name = shown(name.decode(errors="backslashreplace"))
            raise ValueError(f"{path}: the file name {shown_name} does not fit into a line of a list; rename the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(list_text(videos), encoding="utf-8")


def list_text(videos: VideoList) -> str:
    """The content of a list file."""
    is_file = videos.num_frames is None
    lines = []
    for index, name in enumerate(videos.paths.tolist()):
        labels = videos.labels_of(index)
        path = _quote(name.decode(), is_file, is_before_set=len(labels) > 1)
        num_frames = "" if is_file else f" {videos.num_frames[index]}"
        lines.append(f"{path}{num_frames} {','.join(map(str, labels))}\n")
    return "".join(lines)


def _quote(name: str, is_file: bool, is_before_set: bool) -> str:
    """A path as a list holds it: in quotes where it would be taken for something else."""
    is_plain = name == name.strip(BLANKS + "\ufeff") and not name.endswith((",", ";")) and "\t" not in name
    if is_before_set:  # quotes tell it from a path that ends in a number, wherever the list is read
        is_plain = is_plain and is_file and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES
    if is_plain and name[0] not in "\"'" and not (is_file and ends_in_number(name)):
        return name
    return '"' + name.replace('"', '""') + '"'
