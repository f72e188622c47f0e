"""List files and label CSVs.

A list file has one video a line: ``path label`` for video files, ``folder num_frames label`` for folders of
extracted frames. Paths are relative to a root folder (or absolute) and may contain spaces.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
        return self.paths[index].decode()

    def take(self, indices: np.ndarray) -> "VideoList":
        """The videos at int64 ``indices`` [n], in that order; repeats allowed."""
        num_frames = None if self.num_frames is None else self.num_frames[indices]
        return VideoList(self.root, self.paths[indices], self.labels[indices], num_frames)

    def fingerprint(self) -> str:
        """Hash of all paths and labels that does not depend on their order (SHA-256, 16 hex digits)."""
        return _sha256(sorted(self._lines()))

    def order_fingerprint(self) -> str:
        """As ``fingerprint``, of paths and labels in their order."""
        return _sha256(self._lines())

    def _lines(self) -> list[bytes]:
        return [b"%s %d" % pair for pair in zip(self.paths.tolist(), self.labels.tolist(), strict=True)]


def _sha256(lines: list[bytes]) -> str:
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:16]


def read_class_names(path: str | Path, num_classes: int = 0, column: str = "name") -> list[str]:
    """Class names of a CSV with the columns ``id,name`` (more are ignored), by id.

    Args:
        num_classes: expected number; 0: any.
        column: ``name``, or ``folder`` for the official names.

    Raises:
        FileNotFoundError, ValueError: no such file; a column missing; ids that are not 0..K-1; a name that is
            empty; another number of classes than expected.
    """
    if not str(path):
        raise ValueError(
            "data.label_list is not set: it names the CSV file of classes (or set data.folder: one folder a class)"
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data.label_list {str(path)!r}: no such file")
    reader = csv.DictReader(read_text(path).splitlines())
    if not {"id", column} <= set(reader.fieldnames or ()):
        raise ValueError(f"{path}: expected the columns id,{column}, found {','.join(reader.fieldnames or ())}")
    rows = [((row["id"] or "").strip(), (row[column] or "").strip()) for row in reader]
    names: dict[int, str] = {}
    for line, (label, name) in enumerate(rows, start=2):
        if not label.isdigit() or not name or int(label) in names:
            raise ValueError(f"{path}:{line}: expected a new id and a name, found {label!r},{name!r}")
        names[int(label)] = name
    if sorted(names) != list(range(len(names))) or not names:
        raise ValueError(f"{path}: ids must be 0 to {max(len(names) - 1, 0)}, each once")
    if num_classes not in (0, len(names)):
        raise ValueError(f"data.num_classes is {num_classes}, but {path} holds {len(names)} classes")
    return [names[label] for label in range(len(names))]


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
        raise FileNotFoundError(f"data.{key}_list {str(path)!r}: no such file")
    if root and not Path(root).is_dir():
        raise FileNotFoundError(f"data.{key}_root {str(root)!r}: no such folder")
    form = "folder num_frames label" if modality == "RGB" else "path label"
    num_numbers = len(form.split()) - 1
    paths, numbers = [], []
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.strip().rsplit(maxsplit=num_numbers)
        if len(fields) != num_numbers + 1 or not all(field.isdigit() for field in fields[1:]):
            raise ValueError(f"{path}:{line_number}: expected '{form}', found {line.strip()!r}")
        if not int(fields[-1]) < num_classes:
            raise ValueError(
                f"{path}:{line_number}: label {fields[-1]} is outside the {num_classes} classes of the label file"
            )
        paths.append(fields[0].encode())
        numbers.append([int(field) for field in fields[1:]])
    if not paths:
        raise ValueError(f"data.{key}_list {path}: the list is empty")
    table = np.array(numbers, dtype=np.int64)
    return VideoList(str(root), np.array(paths), table[:, -1], table[:, 0] if num_numbers == 2 else None)


def write_video_list(path: Path, videos: VideoList) -> None:
    """Write a list file that ``read_video_list`` reads back (with the same root).

    Raises:
        ValueError: a path that a line cannot hold, such as one with a line break or one that is not UTF-8.
    """
    for name in videos.paths.tolist():
        text = name.decode(errors="ignore")
        if text.encode() != name or text != text.strip() or len(text.splitlines()) != 1:
            shown = name.decode(errors="backslashreplace")
            raise ValueError(f"{path}: the file name {shown!r} does not fit into a line of a list; rename the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(list_text(videos), encoding="utf-8")


def list_text(videos: VideoList) -> str:
    """The content of a list file."""
    numbers = [videos.labels] if videos.num_frames is None else [videos.num_frames, videos.labels]
    rows = zip(videos.paths.tolist(), *(column.tolist() for column in numbers), strict=True)
    return "".join(f"{name.decode()} {' '.join(map(str, row))}\n" for name, *row in rows)


def write_class_names(path: Path, class_names: list[str], folders: list[str]) -> None:
    """Write a label CSV with the columns ``id,name,folder``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = zip(range(len(class_names)), class_names, folders, strict=True)
        csv.writer(file, lineterminator="\n").writerows([("id", "name", "folder"), *rows])


def read_text(path: Path) -> str:
    """A text file's content, without the byte-order mark that some editors write."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from None
