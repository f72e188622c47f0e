"""What a list says against what is on the disk, looked up for a few of its lines; and hints at its labels."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.lists.video_files import VIDEO_SUFFIXES
from utils.files import no_file
from utils.text import has_control_characters, shown

logger = logging.getLogger(__name__)

NUM_LOOKED_AT = 3  # places looked up of a list; each may be on a slow disk
NUMBER_AT_END = re.compile(r"[ \t,;]+[0-9]+$")
AROUND = r"([^{}]|{{|}})*"
FRAME_NAME = re.compile(AROUND + r"{0?(:(0?[1-9][0-9]?)?d?)?}" + AROUND)  # with one field: width and kind of the number
LONGEST_TEMPLATE = 150  # a name has at most 255 bytes
TEMPLATE = "a name with a number like img_{:05d}.jpg"


def ends_in_number(name: str) -> bool:
    """Whether a path could be a path and a number."""
    return name[-1:].isdigit() and NUMBER_AT_END.search(name) is not None


def check_list_and_root(path: str | Path, root: str | Path, prefix: str, what: str) -> None:
    """See that a list and the folder that its paths start from are there.

    Args:
        root: "" for absolute paths.
        prefix: what the keys of both begin with: ``data.val_``.
        what: the list is.

    Raises:
        ValueError, FileNotFoundError: the list is not named; one of them is missing.
    """
    if not str(path):
        raise ValueError(f"{prefix}list is not set: it names {what}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{prefix}list {str(path)!r}: {no_file(path)}")
    if root and not Path(root).is_dir():
        raise FileNotFoundError(f"{prefix}root {str(root)!r}: no such folder")


def check_paths(source: Path, root: str, places: Mapping[int, str]) -> None:
    """See that lines of a list of video files are not those of something else.

    Args:
        places: line number -> path, without those in quotes.

    Raises:
        ValueError: a path ends in a number because the line holds two labels, or a number of frames; it is written
            with backslashes, and is there with slashes.
    """
    numbered = {line: name for line, name in places.items() if ends_in_number(name)}
    for count, (line, name) in enumerate(numbered.items()):
        stem = NUMBER_AT_END.sub("", name)
        is_video = os.path.splitext(stem)[1].lower() in VIDEO_SUFFIXES
        if (not is_video and count >= NUM_LOOKED_AT) or os.path.exists(os.path.join(root, name)):
            continue
        if is_video or os.path.isfile(os.path.join(root, stem)):
            raise ValueError(
                f"{source}:{line}: expected 'path label', found two numbers after {shown(stem)}; several labels are "
                "written 'path 3,17'"
            )
        if os.path.isdir(os.path.join(root, stem)):
            raise ValueError(
                f"{source}:{line}: expected 'path label', found the folder {shown(stem)} and two numbers; a list of "
                "folders of frames goes with data.modality=RGB"
            )
    _check_slashes(source, root, places)


def check_folders(source: Path, root: str, places: Mapping[int, str]) -> None:
    """See that lines of a list of frame folders are not those of something else; arguments as for ``check_paths``.

    Raises:
        ValueError: a path is a file; it is written with backslashes, and is there with slashes.
    """
    for line, name in list(places.items())[:NUM_LOOKED_AT]:
        if os.path.isfile(os.path.join(root, name)):
            raise ValueError(
                f"{source}:{line}: expected 'folder num_frames label', but {shown(name)} is a file; a list of video "
                "files goes with data.modality=video, and has one number a line"
            )
        stem = NUMBER_AT_END.sub("", name)
        if stem != name and not os.path.exists(os.path.join(root, name)) and os.path.isdir(os.path.join(root, stem)):
            raise ValueError(
                f"{source}:{line}: expected 'folder num_frames label', found three numbers after {shown(stem)}"
            )
    _check_slashes(source, root, places)


def _check_slashes(source: Path, root: str, places: Mapping[int, str]) -> None:
    line, name = next(((line, name) for line, name in places.items() if "\\" in name), (0, ""))
    if os.sep == "\\" or not name or os.path.exists(os.path.join(root, name)):
        return
    slashes = name.replace("\\", "/")
    if os.path.exists(os.path.join(root, slashes)):
        raise ValueError(f"{source}:{line}: {shown(name)} is there as {shown(slashes)}; write slashes")
    logger.warning("%s:%d: %s has backslashes; the separator of folders here is a slash", source, line, shown(name))


def log_missing_classes(source: str, labels: np.ndarray, class_names: Sequence[str], level: int) -> None:
    """Log, at ``level``, the classes that no video of a list has; ``labels``: of all videos, int64."""
    missing = np.setdiff1d(np.arange(len(class_names)), labels)
    if not len(missing):
        return
    named = ", ".join(f"{label} {shown(class_names[label])}" for label in missing[:3])
    start = "; its labels start at 1, those of classes at 0" if labels.min() == 1 else ""
    logger.log(level, "%s: no video of %d of %d classes: %s%s%s", source, len(missing), len(class_names), named,
               ", ..." if len(missing) > 3 else "", start)  # fmt: skip


def check_template(template: str) -> None:
    """See that ``data.image_tmpl`` gives each number a file name within the video's folder.

    Raises:
        ValueError: it has no field for the number, or another one; it leads out of the folder.
    """
    is_inside = not os.path.isabs(template) and ".." not in Path(template).parts
    is_inside = is_inside and len(template) <= LONGEST_TEMPLATE and not has_control_characters(template)
    if not FRAME_NAME.fullmatch(template) or not is_inside:
        raise ValueError(f"data.image_tmpl: expected {TEMPLATE}, found {shown(template)}")


def check_numbering(source: str, folders: Mapping[str, int], template: str, first: int) -> None:
    """See that frames are numbered from ``first`` (``data.index_bias``), in the folders that are there.

    Args:
        folders: path -> number of frames, of a few videos.

    Raises:
        ValueError: in all of them, all frames are there with another first number.
    """
    starts = {folder: _first_frame(folder, count, template, first) for folder, count in folders.items() if count}
    starts = {folder: start for folder, start in starts.items() if start is not None}
    others = [folder for folder, start in starts.items() if start != first]
    if not others:
        return
    start = starts[others[0]]
    message = (
        f"{source}: the frames of {shown(others[0])} are numbered from {start}, not {first}: data.index_bias={start}"
    )
    if len(set(starts.values())) == 1:
        raise ValueError(message)
    logger.warning("%s? Those of other folders from %d", message, first)


def _first_frame(folder: str, count: int, template: str, first: int) -> int | None:
    """The number that ``count`` frames begin with: ``first`` or a neighbour; None where neither fits."""
    for start in (first, first - 1, first + 1):
        ends = (os.path.join(folder, template.format(number)) for number in (start, start + count - 1))
        if start >= 0 and all(map(os.path.isfile, ends)):
            return start
    return None
