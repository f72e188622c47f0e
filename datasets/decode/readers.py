"""What a reader is: a video's frames asked for, as uint8, in one batched call; and the reader of frame folders.

A reader has ``num_frames`` and ``read(indices)``; it belongs to one video and is not kept open.
Those of video files are in ``pyav_reader.py`` and ``other_readers.py``.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from utils.config import MAX_PIXELS

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # those that torchvision decodes everywhere
# Without waiting, should a pipe have taken the file's place meanwhile; O_BINARY is Windows'.
READ_ONLY = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class UnreadableVideo(Exception):
    """A video that cannot be opened or decoded; the message is the reason."""


class NoSuchFile(UnreadableVideo):
    """A file that is missing."""


class Reader:
    """One open video."""

    num_frames: int
    mismatch: str = ""  # why frames may be other ones than were asked for; complete after ``read``

    def read(self, indices: np.ndarray) -> Tensor:
        """Frames at int64 indices [n], any order, repeats allowed -> uint8 [n, 3, H, W].

        Each frame is decoded once and in order, however the views overlap.
        """
        unique, inverse = np.unique(indices, return_inverse=True)
        return self._read(unique)[inverse]

    def _read(self, indices: np.ndarray) -> Tensor:
        """As ``read``, of ascending indices."""
        raise NotImplementedError

    def seconds(self, indices: np.ndarray) -> np.ndarray | None:
        """When the frames at int64 indices (any shape) are shown: seconds since the first, float64; None: unknown."""
        return None


class FrameFolderReader(Reader):
    """A folder of extracted frames, file names from a template such as ``img_{:05d}.jpg``.

    Raises:
        UnreadableVideo: a frame is missing, not an image, or larger than ``max_pixels``.
    """

    def __init__(
        self, folder: str | Path, num_frames: int, template: str, index_bias: int, max_pixels: int = MAX_PIXELS
    ):
        if num_frames == 0:
            raise UnreadableVideo("no frames")
        self.num_frames = num_frames
        self._folder, self._template, self._index_bias = Path(folder), template, index_bias
        self._max_pixels = max_pixels

    def _read(self, indices: np.ndarray) -> Tensor:
        return stack_pictures([self._read_frame(index) for index in indices.tolist()])

    def _read_frame(self, index: int) -> Tensor:
        path = self._folder / self._template.format(index + self._index_bias)
        try:
            with open_regular(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
                return decode_picture(file, self._max_pixels)
        except NoSuchFile as error:
            raise UnreadableVideo(f"{path.name}: {error}{self._numbering_hint(index)}") from error
        except (UnreadableVideo, OSError) as error:
            raise UnreadableVideo(f"{path.name}: {reason_of(error)}") from error

    def _numbering_hint(self, index: int) -> str:
        """Said where the first or the last frame is missing, and there is one before the first or after the last."""
        other = {0: self.num_frames, self.num_frames - 1: -1}.get(index)
        if other is None:
            return ""
        path = self._folder / self._template.format(other + self._index_bias)
        return f" ({path.name} is there: is data.index_bias right?)" if os.path.isfile(path) else ""


def decode_picture(file: BinaryIO, max_pixels: int) -> Tensor:
    """The picture in an open file as RGB, whatever its colours and depth: uint8 [3, H, W].

    Its header is looked at first, so that a picture that is too large takes no memory.

    Raises:
        UnreadableVideo: not a picture, damaged, an animation, or larger than ``max_pixels``.
        OSError: the file cannot be read.
    """
    check_picture(file, max_pixels)
    file.seek(0)
    return decode_rgb(torch.frombuffer(bytearray(file.read()), dtype=torch.uint8))


def check_picture(file: BinaryIO, max_pixels: int) -> None:
    """Check the header of the picture in an open file.

    Raises:
        UnreadableVideo: not a picture, or larger than ``max_pixels``.
        OSError: the file cannot be read.
    """
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as picture:
            check_size(*picture.size, max_pixels)
    except Image.DecompressionBombError as error:  # Pillow's own limit, a multiple of any sensible one
        raise UnreadableVideo(reason_of(error)) from error
    except (Image.UnidentifiedImageError, ValueError, EOFError) as error:
        raise UnreadableVideo(f"not a picture ({', '.join(PICTURE_FORMATS)})") from error


def decode_rgb(content: Tensor) -> Tensor:
    """A picture's bytes, uint8 [n] -> uint8 [3, H, W]; see ``decode_picture``.

    Raises:
        UnreadableVideo: damaged, or an animation.
    """
    try:
        frame = decode_image(content, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise UnreadableVideo(reason_of(error)) from error
    if frame.ndim != 3:
        raise UnreadableVideo("an animation, not a picture")
    if frame.dtype == torch.uint16:  # 65535 is white
        frame = ((frame.to(torch.int32) + 128) // 257).to(torch.uint8)
    return frame


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check a header's width and height in pixels.

    Raises:
        UnreadableVideo: too large.
    """
    if width * height > max_pixels:
        raise UnreadableVideo(f"pictures of {width} x {height} pixels, more than data.max_pixels ({max_pixels})")


def stack_pictures(pictures: list[Tensor]) -> Tensor:
    """uint8 [3, H, W] each -> [n, 3, H, W].

    Raises:
        UnreadableVideo: they differ in size.
    """
    if len(sizes := {tuple(picture.shape[1:]) for picture in pictures}) > 1:
        raise UnreadableVideo(f"frames of different sizes (height, width): {sorted(sizes)}")
    return torch.stack(pictures)


@contextmanager
def open_regular(path: str | Path) -> Iterator[int]:
    """A descriptor of a regular file to read from: opening a pipe or a socket would wait for a writer.

    Raises:
        UnreadableVideo: it is something else, is missing, or cannot be opened, for the system's reason.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableVideo("not a regular file")
        descriptor = os.open(path, READ_ONLY)
    except FileNotFoundError as error:
        raise NoSuchFile("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnreadableVideo(reason_of(error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reason_of(error: Exception) -> str:
    """The first telling line of an error: the system's reason, or a decoder's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # decord's lines begin with a time and a place in its own sources.
    return re.sub(r"^\[[\d:]+\] \S+: ", "", lines[0])[:200] if lines else type(error).__name__
