"""One folder a class, without list files: class names, and a seeded split that is the same wherever the folder lies."""

import hashlib
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from datasets.lists.labels import check_names, write_class_names
from datasets.lists.records import VideoList, list_text, write_video_list
from datasets.lists.tables import read_text
from datasets.lists.video_files import VideoFiles

logger = logging.getLogger(__name__)

SPLIT_SEED = 0  # not a run's seed: runs with other seeds must not train on each other's validation videos
TRAIN_FOLDERS = ("train", "training")
VAL_FOLDERS = ("val", "valid", "validation", "test")  # the first one that is there


@dataclass(frozen=True)
class ClassFolders:
    """The videos of a folder per class, split in two; paths are relative to ``root``."""

    root: str
    folders: list[str]  # by label, sorted
    parts: dict[str, list[tuple[str, int]]]  # train and val: (path, label)

    @property
    def class_names(self) -> list[str]:
        """Folder names with spaces for underscores."""
        return [" ".join(folder.replace("_", " ").split()) for folder in self.folders]

    def videos(self, part: str) -> VideoList:
        """The videos of ``train`` or ``val``."""
        return VideoList.of_pairs(self.root, self.parts[part])

    def check_written(self, out: Path) -> None:
        """See that lists which ``write`` left in ``out``, if any, still fit.

        Raises:
            ValueError: they name other videos or other labels.
        """
        for part in self.parts:
            path = out / f"{part}.txt"
            if path.exists() and read_text(path) != list_text(self.videos(part)):
                raise ValueError(f"data.folder {self.root}: its videos are no longer those of {path}; start a new run")

    def write(self, out: Path) -> None:
        """Write ``train.txt``, ``val.txt`` and ``labels.csv``."""
        for part in self.parts:
            write_video_list(out / f"{part}.txt", self.videos(part))
        write_class_names(out / "labels.csv", self.class_names, self.folders)


def read_class_folders(root: str | Path, val_share: float, seed: int = SPLIT_SEED) -> ClassFolders:
    """Find the videos of ``root/<class>/`` at any depth and split them.

    Subfolders ``train`` and ``val`` (or ``test``) that hold the class folders are the split. Otherwise
    ``val_share`` of each class, at least one video where it has two, is for validation.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: fewer than two classes; folders whose names ``check_names`` refuses; no validation video; other
            classes in ``val`` than in ``train``.
    """
    files = VideoFiles(root)
    given = _given_parts(Path(root))
    by_part = {part: _by_class(files, f"{folder}/") for part, folder in given.items()}
    if given:
        folders = sorted(by_part["train"])
        if differing := sorted(by_part["train"].keys() ^ by_part["val"].keys()):
            raise ValueError(
                f"{root}: {given['train']} and {given['val']} must have videos of the same classes; only one of them "
                f"has {', '.join(differing[:5])}"
            )
    else:
        by_class = _by_class(files, "")
        folders = sorted(by_class)
        split = {folder: _split(by_class[folder], val_share, seed) for folder in folders}
        by_part = {part: {f: split[f][i] for f in folders} for i, part in enumerate(("train", "val"))}
    if len(folders) < 2:
        example = f"; found {files.paths[0]}" if files.paths else "; found no video files"
        raise ValueError(f"{root}: expected a folder of videos for each of two classes or more{example}")
    check_names([folder.replace("_", " ") for folder in folders], [f"{root}: folder {folder!r}" for folder in folders])
    parts = {
        part: [(path, label) for label, folder in enumerate(folders) for path in videos[folder]]
        for part, videos in by_part.items()
    }
    if not parts["val"]:
        raise ValueError(f"{root}: every class has a single video, so none is left for validation")
    return ClassFolders(str(root), folders, parts)


def _given_parts(root: Path) -> dict[str, str]:
    """Subfolder of train and of val, if the split is given by folders; else nothing."""
    found = {
        part: next((name for name in names if _holds_folders(root / name)), "")
        for part, names in (("train", TRAIN_FOLDERS), ("val", VAL_FOLDERS))
    }
    return found if all(found.values()) else {}


def _holds_folders(path: Path) -> bool:
    return path.is_dir() and any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir())


def _by_class(files: VideoFiles, prefix: str) -> dict[str, list[str]]:
    """The paths below ``prefix`` by the next folder; what lies in no class folder is named."""
    by_class, loose = defaultdict(list), []
    for path in files.paths:
        if path.startswith(prefix):
            folder, separator, _ = path.removeprefix(prefix).partition("/")
            (by_class[folder] if separator else loose).append(path)
    if loose:
        logger.warning("%s: %d videos are in no class folder and left out: %s", files.root, len(loose), loose[0])
    return dict(by_class)


def _split(paths: list[str], val_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Train and val paths, each sorted; the draw is by a hash of seed and path, so a new file moves few others."""
    num_val = min(max(1, round(val_share * len(paths))), len(paths) - 1)
    drawn = sorted(paths, key=lambda path: hashlib.sha256(f"{seed}/{path}".encode()).digest())
    return sorted(drawn[num_val:]), sorted(drawn[:num_val])
