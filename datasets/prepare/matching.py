"""Official videos to the files that hold them."""

from typing import NamedTuple

from datasets.lists.video_files import VideoFiles, class_key, parent_name
from datasets.prepare.official import Wanted

# Where the videos of a part lie, if the folder has such a subfolder; then list paths start from it.
PART_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test", "testing"),
}


class Match(NamedTuple):
    """A wanted video and the files that answer to its names."""

    wanted: Wanted
    path: str  # "": missing
    others: tuple[str, ...]  # further files of the same video


def part_folders(wanted: list[Wanted], files: VideoFiles) -> dict[str, str]:
    """The subfolder that each part's paths start from; "" is the root of all videos."""
    top_folders = {path.partition("/")[0] for path in files.paths if "/" in path}
    return {
        part: next((name for name in PART_FOLDERS.get(part, ()) if name in top_folders), "")
        for part in sorted({video.part for video in wanted})
    }


def match(wanted: list[Wanted], files: VideoFiles, folders: dict[str, str]) -> list[Match]:
    """Find every wanted video; of several files the best name wins, then its class's folder, then the first path.

    Args:
        folders: part -> subfolder, see ``part_folders``.
    """
    matches = []
    for video in wanted:
        found = []
        for name in video.names:
            paths = files.find(name, folders[video.part])
            in_class = [path for path in paths if class_key(parent_name(path)) == class_key(video.class_folder)]
            found += in_class + [path for path in paths if path not in in_class]
        path, *others = found or [""]
        matches.append(Match(video, path, tuple(others)))
    return matches
