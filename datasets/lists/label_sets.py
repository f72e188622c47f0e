"""Several labels a video: held as two arrays, and told apart from a path that ends in a number."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from datasets.lists.video_files import VIDEO_SUFFIXES

NUM_LOOKED_AT = 100  # lines that could be either, looked up on the disk; each may be on a slow one
NO_LABEL = -1  # in the column of single labels, where a list has sets
# A path (with a number of frames, perhaps), a blank, and labels with commas between.
LABEL_SET = re.compile(r"(.*[^ \t,;])[ \t]+([0-9]+(?:,[0-9]+)+)", re.DOTALL)
FRAMES_AT_END = re.compile(r"[ \t,;]+[0-9]+$")
LAST_LABEL = re.compile(r",[0-9]+$")


@dataclass(frozen=True)
class LabelSets:
    """The labels of N videos, sorted, at least one each; arrays, which loader workers share without copying."""

    offsets: np.ndarray  # [N + 1] int64, where the labels of a video begin
    flat: np.ndarray  # [M] int64

    @classmethod
    def of(cls, rows: Sequence[Iterable[int]]) -> "LabelSets":
        """From the labels of each video."""
        rows = [sorted(row) for row in rows]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(offsets, np.array([label for row in rows for label in row], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> list[int]:
        return self.flat[self.offsets[index] : self.offsets[index + 1]].tolist()

    def take(self, indices: np.ndarray) -> "LabelSets":
        """The labels of the videos at int64 ``indices`` [n]."""
        return LabelSets.of([self[index] for index in indices.tolist()])

    def multi_hot(self, num_classes: int) -> np.ndarray:
        """Which classes each video shows: bool [N, K]."""
        table = np.zeros((len(self), num_classes), dtype=bool)
        table[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.flat] = True
        return table


def split_label_set(line: str, num_numbers: int) -> tuple[str, list[str]] | None:
    """What stands before several labels, and their digits; None: the line's form is another.

    Args:
        num_numbers: 2 for folders of frames, whose lines have a number of frames before the labels.
    """
    found = LABEL_SET.fullmatch(line)
    if not found or (num_numbers == 2 and not FRAMES_AT_END.search(found[1])):
        return None
    return found[1], found[2].split(",")


def has_label_sets(root: str, lines: Iterable[str], num_numbers: int) -> bool:
    """Whether lines of a list (without blanks around) hold several labels a video.

    ``a 1,5`` may be the path ``a`` with two labels, or the path ``a 1`` with the label 5 after a comma. The first line
    that tells decides for the list: what is on the disk is meant; a video's suffix before the numbers, or quotes around
    the path, stand for several labels. Where no line tells, paths end in numbers.
    """
    found = ((line, split) for line in lines if (split := split_label_set(line, num_numbers)))
    for line, (before, _) in islice(found, NUM_LOOKED_AT):
        path = FRAMES_AT_END.sub("", before) if num_numbers == 2 else before
        with_number = LAST_LABEL.sub("", line)
        if num_numbers == 2:  # the number of frames would be the first of the labels
            with_number = FRAMES_AT_END.sub("", with_number)
        if os.path.exists(os.path.join(root, with_number)):
            return False
        is_quoted = len(path) > 2 and path[0] == path[-1] == '"'
        is_video = num_numbers == 1 and os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES
        if is_quoted or is_video or os.path.exists(os.path.join(root, path)):
            return True
    return False
