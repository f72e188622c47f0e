"""Decoders: a path to the frames asked for, as uint8, in one batched call.

A reader has ``num_frames`` and ``read(indices)``; it belongs to one video and is not kept open.
"""

import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file

logger = logging.getLogger(__name__)

PADDED_ROWS = "from_size == to_size"  # in decord's error message


class UnreadableVideo(Exception):
    """A video that cannot be opened or decoded; the message is the reason."""


class Reader(Protocol):
    """One open video."""

    num_frames: int

    def read(self, indices: np.ndarray) -> Tensor:
        """Frames at int64 indices [n], any order, repeats allowed -> uint8 [n, 3, H, W]."""


class VideoFileReader:
    """A video file through decord, single-threaded: parallelism comes from the loader's workers.

    Raises:
        UnreadableVideo: missing, empty, truncated or without a video stream.
    """

    def __init__(self, path: str | Path):
        import decord

        self._path = path
        if not Path(path).is_file():
            raise UnreadableVideo("no such file")
        try:
            self._video = decord.VideoReader(str(path), num_threads=1)
            self.num_frames = len(self._video)
        except (decord.DECORDError, RuntimeError) as error:
            raise UnreadableVideo(_reason(error)) from error
        if self.num_frames == 0:
            raise UnreadableVideo("no frames")
        self._errors = (decord.DECORDError, RuntimeError)

    def read(self, indices: np.ndarray) -> Tensor:
        # Each frame is decoded once and in order, however the views overlap.
        unique, inverse = np.unique(indices, return_inverse=True)
        try:
            frames = self._decode(unique.tolist())  # [n, H, W, 3]
        except self._errors as error:
            raise UnreadableVideo(_reason(error)) from error
        return torch.from_numpy(frames).permute(0, 3, 1, 2)[inverse]

    def _decode(self, indices: list[int]) -> np.ndarray:
        try:
            return self._video.get_batch(indices).asnumpy()
        except self._errors as error:
            if PADDED_ROWS not in str(error):
                raise
        # decord pads the rows of some frames narrower than about 100 pixels and then takes them for four channels
        # (a batch refuses to mix the two). The published code read that as RGBA: kept, so that results compare.
        _warn_once(self._path)
        return np.stack([self._video[index].asnumpy()[..., :3] for index in indices])


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
        try:
            return decode_image(read_file(str(path)), mode=ImageReadMode.RGB)
        except RuntimeError as error:
            raise UnreadableVideo(f"{path.name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first telling line of a decoder's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # decord's lines begin with a time and a place in its own sources.
    return re.sub(r"^\[[\d:]+\] \S+: ", "", lines[0])[:200] if lines else type(error).__name__


@lru_cache(maxsize=10_000)
def _warn_once(path: str | Path) -> None:
    logger.warning("%s: decord misreads videos this narrow; make it at least 100 pixels wide", path)
