"""List files.

A list file has one video a line: ``path label`` for video files, ``folder num_frames label`` for folders of
extracted frames; a comma or a semicolon may stand between, too. Paths are relative to a root folder (or absolute) and
may contain spaces; one that looks otherwise stands in double quotes.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.lists.checks import check_folders, check_paths, ends_in_number
from datasets.lists.tables import numbered_lines, read_text
from utils.files import no_file
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
    labels: np.ndarray  # [N] int64
    num_frames: np.ndarray | None  # [N] int64 for folders of frames, None for video files

    @classmethod
    def of_pairs(cls, root: str, pairs: list[tuple[str, int]]) -> "VideoList":
        """From (path, label) of video files; file names that are not UTF-8 keep their bytes."""
        paths = np.array([path.encode(errors="surrogateescape") for path, _ in pairs], dtype=bytes)
        return cls(root, paths, np.array([label for _, label in pairs], dtype=np.int64), None)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Path of a video as written in the list."""
        return self.paths[index].decode(errors="surrogateescape")

    def take(self, indices: np.ndarray) -> "VideoList":
        """The videos at int64 ``indices`` [n], in that order; repeats allowed."""
        num_frames = None if self.num_frames is None else self.num_frames[indices]
        return VideoList(self.root, self.paths[indices], self.labels[indices], num_frames)

    def fingerprint(self) -> str:
        """Hash of all paths and labels that does not depend on their order (SHA-256, 16 hex digits)."""
        return self._hash(sorted)

    def order_fingerprint(self) -> str:
        """As ``fingerprint``, of paths and labels in their order."""
        return self._hash(list)

    def _hash(self, arranged: Callable[[Iterable[bytes]], list[bytes]]) -> str:
        lines = (b"%s %d" % pair for pair in zip(self.paths.tolist(), self.labels.tolist(), strict=True))
        return hashlib.sha256(b"\n".join(arranged(lines))).hexdigest()[:16]


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
    if not str(path):
        raise ValueError(f"data.{key}_list is not set: it names the list file of videos")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data.{key}_list {str(path)!r}: {no_file(path)}")
    if root and not Path(root).is_dir():
        raise FileNotFoundError(f"data.{key}_root {str(root)!r}: no such folder")
    num_numbers = 2 if modality == "RGB" else 1
    rows = [(number, *_parse(path, number, line, num_numbers)) for number, line in numbered_lines(read_text(path))]
    if not rows:
        raise ValueError(f"data.{key}_list {path}: the list is empty")
    places = {line: name for line, name, is_quoted, _ in rows if not is_quoted}
    (check_paths if num_numbers == 1 else check_folders)(path, str(root), places)
    table = np.array([numbers for *_, numbers in rows], dtype=np.int64)
    _check_labels(path, [line for line, *_ in rows], table[:, -1], num_classes)
    paths = np.array([name.encode() for _, name, _, _ in rows])
    return VideoList(str(root), paths, table[:, -1], table[:, 0] if num_numbers == 2 else None)


def _parse(path: Path, line_number: int, line: str, num_numbers: int) -> tuple[str, bool, list[int]]:
    """Video path, whether it was in quotes, and the numbers of one line."""
    rest, numbers = line.strip(BLANKS), []
    for _ in range(num_numbers):
        head = rest.rstrip("0123456789")
        number, rest = rest[len(head) :], head.rstrip(BLANKS)
        rest = rest[:-1].rstrip(BLANKS) if rest.endswith((",", ";")) else rest
        if not 0 < len(number) <= MOST_DIGITS or rest == head or not rest or rest.endswith((",", ";")):
            form = "'folder num_frames label'" if num_numbers == 2 else "'path label'"
            reason = ""
            if len(number) > MOST_DIGITS:
                reason = f" ({len(number)} digits are no number of frames or classes)"
            elif line.rstrip().endswith(("label", "class", "target")):
                reason = " (a list has no header)"
            raise ValueError(f"{path}:{line_number}: expected {form}, found {shown(line.strip())}{reason}")
        numbers.insert(0, int(number))
    quoted = QUOTED.fullmatch(rest)
    name = quoted[1].replace('""', '"') if quoted else rest
    if not quoted and ("\t" in name or (len(name) > 1 and name[0] == name[-1] and name[0] in "\"'")):
        raise ValueError(
            f"{path}:{line_number}: a path with a tab or quotes around it stands in double quotes, with two for each "
            f"of its own; found {shown(line.strip())}"
        )
    if len(name.encode()) > LONGEST_PATH:
        raise ValueError(f"{path}:{line_number}: a path has at most {LONGEST_PATH} bytes, found {shown(name)}")
    return name, quoted is not None, numbers


def _check_labels(path: Path, lines: list[int], labels: np.ndarray, num_classes: int) -> None:
    """See that every label, int64 [N], is that of a class."""
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
    numbers = [videos.labels] if videos.num_frames is None else [videos.num_frames, videos.labels]
    rows = zip(videos.paths.tolist(), *(column.tolist() for column in numbers), strict=True)
    is_file = videos.num_frames is None
    return "".join(f"{_quote(name.decode(), is_file)} {' '.join(map(str, row))}\n" for name, *row in rows)


def _quote(name: str, is_file: bool) -> str:
    """A path as a list holds it: in quotes where it would be taken for something else."""
    is_plain = name == name.strip(BLANKS + "\ufeff") and not name.endswith((",", ";")) and "\t" not in name
    if is_plain and name[0] not in "\"'" and not (is_file and ends_in_number(name)):
        return name
    return '"' + name.replace('"', '""') + '"'
