"""The video files below a folder, found by name."""

import glob
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

# In lower case; files may be in any.
VIDEO_SUFFIXES = {
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm",
    ".wmv",
}  # fmt: skip


class VideoFiles:
    """All video files below a folder, from one walk that opens none of them.

    Attributes:
        root: the folder.
        paths: paths relative to it, with ``/``, sorted.

    Raises:
        FileNotFoundError: no such folder.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such folder of videos")
        self.paths = sorted(_walk(self.root))
        self._paths_by_name: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            self._paths_by_name[bare_name(path)].append(path)

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, name: str, folder: str = "") -> list[str]:
        """Paths of the files ``name.*``, sorted; only those below ``folder`` (relative to the root) if it is given.

        ``class/name`` asks for the file in that class's folder, however the folder spells the class.
        """
        class_folder, _, name = name.rpartition("/")
        return [
            path
            for path in self._paths_by_name.get(name, ())
            if (not folder or path.startswith(f"{folder}/"))
            and (not class_folder or class_key(parent_name(path)) == class_key(class_folder))
        ]


def find_videos(places: list[str | Path]) -> list[str]:
    """Files, the video files below folders, and what glob patterns match: paths, each once, in the order asked for.

    A file that is named need not have a video suffix, nor exist while others do: reading it tells what it is.

    Raises:
        FileNotFoundError: nothing at all is found.
    """
    found: dict[str, None] = {}
    num_missing = 0
    for place in map(str, places):
        if os.path.isdir(place):
            found |= dict.fromkeys(os.path.join(place, path) for path in VideoFiles(place).paths)
        elif os.path.lexists(place):
            found[place] = None
        elif matches := sorted(glob.glob(place, recursive=True)):
            found |= dict.fromkeys(find_videos(matches))
        else:
            num_missing += place not in found
            found[place] = None
    if len(found) == num_missing:
        listed = ", ".join(map(repr, map(str, places)))
        raise FileNotFoundError(f"no video found in {listed}: expected video files, folders of them, or patterns")
    return list(found)


def bare_name(path: str) -> str:
    """A file's name without folders and video suffixes; some downloaders leave two (``ID.mp4.mkv``)."""
    name = path.rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    return bare_name(stem) if suffix.lower() in VIDEO_SUFFIXES else name


def parent_name(path: str) -> str:
    """The name of the folder that a relative path lies in; "" in the root."""
    return path.rpartition("/")[0].rpartition("/")[2]


def class_key(name: str) -> str:
    """What spellings of one class have in common: ``Apply_Eye_Makeup``, ``ApplyEyeMakeup``, ``apply eye makeup``."""
    return "".join(filter(str.isalnum, name.casefold()))


def _warn(error: OSError) -> None:
    logger.warning("%s cannot be read (%s): videos in it are left out", error.filename, error.strerror)


def _walk(root: Path) -> Iterator[str]:
    """Relative paths of video files, through links to folders too, each folder once; hidden names are skipped."""
    seen = set()
    for folder, subfolders, names in os.walk(root, onerror=_warn, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above would never end
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = Path(folder).relative_to(root).as_posix()
        for name in names:
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield name if prefix == "." else f"{prefix}/{name}"
