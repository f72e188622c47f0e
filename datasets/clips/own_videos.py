"""Videos without list and label: all views of each, and when its frames are shown."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.decode.probe import diagnosed
from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import UnreadableVideo
from datasets.decode.time_limit import within


class VideoViews(NamedTuple):
    """The views of one video, or why there are none."""

    path: str
    clips: Tensor | None  # uint8 [V, T, 3, S, S], all views, crop-major; None: unreadable
    seconds: np.ndarray | None  # float64 [C, T], of the frames of every clip
    error: str | None


class ViewBatch(NamedTuple):
    """Videos of a batch in order; ``clips`` holds those that could be read."""

    videos: list[VideoViews]  # without their clips
    clips: Tensor | None  # uint8 [B, V, T, 3, S, S]

    @property
    def is_empty(self) -> bool:
        """Whether no video could be read; then there are no clips."""
        return self.clips is None

    def pin_memory(self) -> "ViewBatch":
        """For the loader."""
        return self if self.is_empty else self._replace(clips=self.clips.pin_memory())


class OwnVideos(Dataset):
    """Video files by path.

    PyAV decodes them, whatever ``data.decoder`` says: here exact frames and times in every container count, not
    agreement with figures of another decoder.

    Args:
        indices_of: number of frames -> int64 [C, T].
        views_of: frames [n, 3, H, W] -> crops [crops, n, 3, S, S].
        timeout_s: of opening and of reading a video; 0: none.
        max_pixels: of a picture; larger ones are unreadable.
    """

    def __init__(
        self,
        paths: list[str],
        indices_of: Callable[[int], np.ndarray],
        views_of: Callable[[Tensor], Tensor],
        timeout_s: float,
        max_pixels: int,
    ):
        self.paths, self.indices_of, self.views_of = paths, indices_of, views_of
        self.timeout_s, self.max_pixels = timeout_s, max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> VideoViews:
        path = self.paths[index]
        try:
            reader = within(self.timeout_s, PyAVReader, path, self.max_pixels)
            indices = self.indices_of(reader.num_frames)  # [C, T]
            frames = within(self.timeout_s, reader.read, indices.ravel())
        except UnreadableVideo as error:
            return VideoViews(path, None, None, diagnosed(path, error, self.timeout_s))
        crops = self.views_of(frames)  # [crops, C*T, 3, S, S]
        return VideoViews(path, crops.unflatten(1, indices.shape).flatten(0, 1), reader.seconds(indices), None)


def collate_views(videos: list[VideoViews]) -> ViewBatch:
    """Stack the views of the videos that could be read."""
    clips = [video.clips for video in videos if video.clips is not None]
    return ViewBatch([video._replace(clips=None) for video in videos], torch.stack(clips) if clips else None)
