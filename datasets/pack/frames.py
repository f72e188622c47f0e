"""What goes into a pack: the list, and frames made small."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datasets.decode.pyav_reader import open_video
from datasets.decode.readers import Reader, UnreadableVideo
from datasets.lists.records import VideoList, list_text
from utils.files import write_text

LIST, FAILED = "list.txt", "failed.txt"
CHUNK = 16  # frames decoded at a time: 100 MB at 1080p
ALL_FRAMES = 0  # instead of a number of frames


def write_lists(folder: Path, videos: VideoList, failed: dict[str, str]) -> None:
    """Write ``list.txt``, the list of what was packed, and ``failed.txt`` if videos were left out.

    Args:
        failed: path -> reason.
    """
    if failed:
        reasons = "".join(f"{path}\t{' '.join(reason.split())}\n" for path, reason in failed.items())
        write_text(folder / FAILED, reasons)
    else:
        (folder / FAILED).unlink(missing_ok=True)
    packed = [index for index in range(len(videos)) if videos.path(index) not in failed]
    write_text(folder / LIST, list_text(videos.take(np.array(packed, dtype=np.int64))))


def kept_frames(num_frames: int, limit: int) -> np.ndarray:
    """The frames of a video that go into a pack, int64 [n].

    The start of each of ``limit`` segments, as in ``datasets.clips.sampling.eval_indices``: where ``limit`` is a power
    of two and a multiple of T, one clip of T frames is the same from the pack as from the video.
    """
    if limit == ALL_FRAMES or num_frames <= limit:
        return np.arange(num_frames)
    return (num_frames / limit * np.arange(limit)).astype(np.int64)


def small_frames(reader: Reader, indices: np.ndarray, short_side: int) -> Iterator[Tensor]:
    """Frames at ``indices``, never enlarged, one by one: uint8 [3, h, w]; ``short_side`` in pixels, 0: as they are."""
    for start in range(0, len(indices), CHUNK):
        chunk = reader.read(indices[start : start + CHUNK])
        height, width = chunk.shape[-2:]
        scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
        size = [max(1, round(side * scale)) for side in (height, width)]
        if size != [height, width]:
            chunk = F.resize(chunk, size, InterpolationMode.BICUBIC, antialias=True)
        yield from chunk.contiguous()


def frame_rate(path: Path) -> float:
    """Frames a second of a video file.

    Raises:
        UnreadableVideo: not a video, or it does not say.
    """
    with open_video(path) as (_, stream):
        rate = stream.average_rate
    if not rate:
        raise UnreadableVideo("frame rate: the file does not say")
    return float(rate)
