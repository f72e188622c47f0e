"""What a reader is: a video's frames asked for, as uint8, in one batched call; and the reader of frame folders.

A reader has ``num_frames`` and ``read(indices)``; it belongs to one video and is not kept open.
Those of video files are in ``datasets/decoders.py``.
"""

import re
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file


class UnreadableVideo(Exception):
    """A video that cannot be opened or decoded; the message is the reason."""


class Reader(Protocol):
    """One open video."""

    num_frames: int

    def read(self, indices: np.ndarray) -> Tensor:
        """Frames at int64 indices [n], any order, repeats allowed -> uint8 [n, 3, H, W]."""


class FrameFolderReader:
    """A folder of extracted frames, file names from a template such as ``img_{:05d}.jpg``.

    Raises:
        UnreadableVideo: a frame is missing or not an image.
    """

    def __init__(self, folder: str | Path, num_frames: int, template: str, index_bias: int):
        if num_frames == 0:
            raise UnreadableVideo("no frames")
        self.num_frames = num_frames
        self._folder, self._template, self._index_bias = Path(folder), template, index_bias

    def read(self, indices: np.ndarray) -> Tensor:
        unique, inverse = np.unique(indices, return_inverse=True)
        frames = [self._read_frame(index) for index in unique.tolist()]
        if len(sizes := {tuple(frame.shape[1:]) for frame in frames}) > 1:
            raise UnreadableVideo(f"frames of different sizes (height, width): {sorted(sizes)}")
        return torch.stack(frames)[inverse]

    def _read_frame(self, index: int) -> Tensor:
        path = self._folder / self._template.format(index + self._index_bias)
        check_is_file(path, name=f"{path.name}: ", hint=self._numbering_hint(index))
        try:
            return decode_image(read_file(str(path)), mode=ImageReadMode.RGB)
        except RuntimeError as error:
            raise UnreadableVideo(f"{path.name}: {reason_of(error)}") from error

    def _numbering_hint(self, index: int) -> str:
        """Said where the first or the last frame is missing, and there is one before the first or after the last."""
        other = {0: self.num_frames, self.num_frames - 1: -1}.get(index)
        if other is None:
            return ""
        path = self._folder / self._template.format(other + self._index_bias)
        return f" ({path.name} is there: is data.index_bias right?)" if path.is_file() else ""


def check_is_file(path: str | Path, name: str = "", hint: str = "") -> None:
    """See that a path is a regular file: opening a pipe or a socket would wait for a writer.

    Raises:
        UnreadableVideo: it is something else, or missing; ``name`` begins the message, ``hint`` ends it.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableVideo(name + ("not a regular file" if path.exists() else "no such file") + hint)


def reason_of(error: Exception) -> str:
    """The first telling line of a decoder's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # decord's lines begin with a time and a place in its own sources.
    return re.sub(r"^\[[\d:]+\] \S+: ", "", lines[0])[:200] if lines else type(error).__name__
