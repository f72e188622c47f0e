"""The decoders of video files and the choice among them (``data.decoder``)."""

import logging
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from datasets.decode.other_readers import DecordReader, TorchCodecReader
from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import Reader, UnreadableVideo, reason_of

logger = logging.getLogger(__name__)

AUTO, PYAV = "auto", "pyav"
DECODERS: dict[str, Callable[..., Reader]] = {  # (path, max_pixels) -> Reader
    "decord": DecordReader,
    "torchcodec": TorchCodecReader,
    PYAV: PyAVReader,
}


@lru_cache
def resolve_decoder(choice: str) -> str:
    """The decoder to use: the one named, or for ``auto`` PyAV, which is right in every container and always there.

    Call it in the main process; datasets and workers get the name that it returns.

    Raises:
        ValueError: it does not work here.
    """
    name = PYAV if choice == AUTO else choice
    if problem := _problem(name):
        raise ValueError(f"data.decoder is {choice}, but {name} does not work here ({problem}); docs/data/decoders.md")
    logger.info("videos are decoded by %s (data.decoder: %s)", name, choice)
    return name


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
