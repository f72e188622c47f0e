"""decord and torchcodec, which cannot be told what to open: PyAV looks at a file before them."""

import contextlib
import ctypes
import logging
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from datasets.decode.pyav_reader import PyAVReader, inspect
from datasets.decode.readers import Reader, UnreadableVideo, open_regular, reason_of
from utils.config import MAX_PIXELS

logger = logging.getLogger(__name__)

PLACE = re.compile(r"/dev/fd/\d+")  # in error messages: see ``_same_file``
PADDED_ROWS = "from_size == to_size"  # in decord's error message


def import_decord() -> ModuleType:
    """The module decord, without its side effect on everybody else.

    It brings a zlib of 2005 and offers it to the whole process, where torchvision's and Pillow's PNG functions take it
    for theirs, fail, or crash. The system's zlib, offered first, wins.
    """
    with contextlib.suppress(OSError):  # no such file: not Linux
        ctypes.CDLL("libz.so.1", mode=ctypes.RTLD_GLOBAL)
    import decord

    return decord


class OtherReader(Reader):
    """What decoders have in common that cannot be told what to open: PyAV looks at the file first.

    The frames are theirs, also where PyAV finds others; ``mismatch`` then says so.

    Raises:
        UnreadableVideo: missing, empty, truncated, without a video stream; refused by PyAV (see ``inspect``).
    """

    _errors: tuple[type[Exception], ...] = ()  # of opening a file and of reading it

    def __init__(self, path: str | Path, max_pixels: int = MAX_PIXELS):
        self._path, self._max_pixels = path, max_pixels
        with _same_file(path) as place:
            self._index, codec = inspect(place, max_pixels)
            try:
                self._open(place)
            except self._errors as error:
                raise UnreadableVideo(
                    f"{self._reason(error)} (codec {codec}; data.decoder=pyav may read it)"
                ) from error
        if self.num_frames == 0:
            raise UnreadableVideo("no frames")
        if self.num_frames != (held := len(self._index.times)):
            self.mismatch = f"{self.num_frames} frames are counted, the file holds {held}"

    def seconds(self, indices: np.ndarray) -> np.ndarray:
        # By PyAV's index; frames that it does not count have the time of the last.
        return self._index.seconds(np.minimum(indices, len(self._index.times) - 1))

    def _read(self, indices: np.ndarray) -> Tensor:
        try:
            frames = self._decode(indices.tolist())  # [n, 3, H, W]
        except self._errors as error:
            raise UnreadableVideo(self._reason(error)) from error
        self.mismatch = self.mismatch or self._repeated(frames, indices)
        return frames

    def _reason(self, error: Exception) -> str:
        return PLACE.sub(lambda _: Path(self._path).name, reason_of(error))

    def _repeated(self, frames: Tensor, indices: np.ndarray) -> str:
        """Where frames at ascending indices are one and the same picture, but not in the file; empty if nowhere."""
        repeats = (frames[1:] == frames[:-1]).flatten(1).all(dim=1).numpy()
        if not repeats.any():
            return ""
        expected = PyAVReader(self._path, self._max_pixels).read(indices)
        stale = repeats & (expected[1:] != expected[:-1]).flatten(1).any(dim=1).numpy()
        return f"frame {indices[1:][stale][0]} came out as the one before it" if stale.any() else ""


class DecordReader(OtherReader):
    """A video file through decord, single-threaded: parallelism comes from the loader's workers."""

    def _open(self, place: str) -> None:
        decord = import_decord()
        self._errors = (decord.DECORDError, RuntimeError)
        self._video = decord.VideoReader(place, num_threads=1)
        self.num_frames = len(self._video)

    def _decode(self, indices: list[int]) -> Tensor:
        try:
            frames = self._video.get_batch(indices).asnumpy()
        except self._errors as error:
            if PADDED_ROWS not in str(error):
                raise
            # decord pads the rows of some frames narrower than about 100 pixels and then takes them for four channels
            # (a batch refuses to mix the two). The published code read that as RGBA: kept, so that results compare.
            _warn_once(self._path)
            frames = np.stack([self._video[index].asnumpy()[..., :3] for index in indices])
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


class TorchCodecReader(OtherReader):
    """A video file through torchcodec (optional: ``pip install torchcodec``, and FFmpeg's shared libraries)."""

    _errors = (RuntimeError, ValueError, TypeError, IndexError)  # TypeError: no stream has a number of frames

    def _open(self, place: str) -> None:
        from torchcodec.decoders import VideoDecoder

        self._video = VideoDecoder(place, num_ffmpeg_threads=1, seek_mode="exact")
        self.num_frames = len(self._video)

    def _decode(self, indices: list[int]) -> Tensor:
        return self._video.get_frames_at(indices).data


@contextlib.contextmanager
def _same_file(path: str | Path) -> Iterator[str]:
    """Another name of a regular file, which no library takes for an address or a pattern of names, and which stays
    this file's whatever is moved to ``path`` meanwhile."""
    with open_regular(path) as descriptor:
        place = f"/dev/fd/{descriptor}"
        yield place if os.path.exists(place) else os.path.abspath(path)


@lru_cache(maxsize=10_000)
def _warn_once(path: str | Path) -> None:
    logger.warning("%s: decord misreads videos this narrow; make it at least 100 pixels wide", path)
