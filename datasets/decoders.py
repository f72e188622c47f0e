"""Readers of video files, one a decoder, and the choice among them (``data.decoder``)."""

import contextlib
import ctypes
import logging
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import torch
from torch import Tensor

from datasets.pyav_reader import PyAVReader
from datasets.readers import Reader, UnreadableVideo, check_is_file, reason_of

logger = logging.getLogger(__name__)

AUTO = "auto"
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


class DecordReader:
    """A video file through decord, single-threaded: parallelism comes from the loader's workers.

    Raises:
        UnreadableVideo: missing, empty, truncated or without a video stream.
    """

    def __init__(self, path: str | Path):
        decord = import_decord()
        check_is_file(path)
        self._path = path
        self._errors = (decord.DECORDError, RuntimeError)
        try:
            self._video = decord.VideoReader(str(path), num_threads=1)
            self.num_frames = len(self._video)
        except self._errors as error:
            raise UnreadableVideo(reason_of(error)) from error
        if self.num_frames == 0:
            raise UnreadableVideo("no frames")

    def read(self, indices: np.ndarray) -> Tensor:
        # Each frame is decoded once and in order, however the views overlap.
        unique, inverse = np.unique(indices, return_inverse=True)
        try:
            frames = self._decode(unique.tolist())  # [n, H, W, 3]
        except self._errors as error:
            raise UnreadableVideo(reason_of(error)) from error
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


class TorchCodecReader:
    """A video file through torchcodec (optional: ``pip install torchcodec``, and FFmpeg's shared libraries).

    Raises:
        UnreadableVideo: missing, empty, truncated or without a video stream.
    """

    def __init__(self, path: str | Path):
        from torchcodec.decoders import VideoDecoder

        check_is_file(path)
        try:
            self._video = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact")
            self.num_frames = len(self._video)
        except (RuntimeError, ValueError, TypeError) as error:  # TypeError: no stream has a number of frames
            raise UnreadableVideo(reason_of(error)) from error
        if self.num_frames == 0:
            raise UnreadableVideo("no frames")

    def read(self, indices: np.ndarray) -> Tensor:
        unique, inverse = np.unique(indices, return_inverse=True)
        try:
            frames = self._video.get_frames_at(unique.tolist()).data  # [n, 3, H, W]
        except (RuntimeError, IndexError) as error:
            raise UnreadableVideo(reason_of(error)) from error
        return frames[inverse]


DECODERS: dict[str, Callable[[str | Path], Reader]] = {
    "decord": DecordReader,
    "torchcodec": TorchCodecReader,
    "pyav": PyAVReader,
}
# What ``auto`` tries. Training takes the fastest, which is also the one that is right in every container; tests take
# decord, because the published figures were made with its frames.
AUTO_ORDER = {"training": ("pyav",), "tests": ("decord", "pyav")}


@lru_cache
def resolve_decoder(choice: str, purpose: str) -> str:
    """The decoder to use: the one named, or for ``auto`` the first of ``AUTO_ORDER`` that works on this machine.

    Call it in the main process; datasets and workers get the name that it returns.

    Args:
        purpose: ``training`` or ``tests``.

    Raises:
        ValueError: the decoder named does not work here.
    """
    problems = {}
    for name in AUTO_ORDER[purpose] if choice == AUTO else [choice]:
        problems[name] = _problem(name)
        if not problems[name]:
            logger.info("videos of %s are decoded by %s (data.decoder: %s)", purpose, name, choice)
            return name
    reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise ValueError(f"data.decoder is {choice}, which does not work here ({reasons}); see docs/data/decoders.md")


def installed_decoders() -> list[str]:
    """Names of the decoders that work on this machine."""
    return [name for name in DECODERS if not _problem(name)]


@lru_cache
def _problem(name: str) -> str:
    """Why a decoder does not work here; empty if it reads a small video of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trial.mp4")
        _write_trial_video(path)
        try:
            frames = DECODERS[name](path).read(np.array([0, 3]))
        except (ImportError, OSError, RuntimeError, UnreadableVideo) as error:
            return reason_of(error)
    return "" if frames.shape == (2, 3, 96, 128) else f"a trial video came out as {tuple(frames.shape)}"


def _write_trial_video(path: Path) -> None:
    """Four frames in MPEG-4, whose encoder every build of FFmpeg has."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for shade in (0, 60, 120, 180):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), shade, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@lru_cache(maxsize=10_000)
def _warn_once(path: str | Path) -> None:
    logger.warning("%s: decord misreads videos this narrow; make it at least 100 pixels wide", path)
