"""Video files through PyAV: exact frame numbers in every container, at the price of one pass over the packets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from datasets.readers import UnreadableVideo, check_is_file, reason_of

# Titles in AVI files are often not UTF-8. From version 19 on PyAV reads them as they come and has no such argument.
OPTIONS = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


class Index(NamedTuple):
    """What a pass over a stream's packets tells, without decoding."""

    times: np.ndarray  # int64 [F], presentation times in order, in the stream's time base
    keyframes: np.ndarray  # int64, the times at which decoding can begin
    is_seekable: bool  # whether frames carry these times, so that they can be found by them
    unit_s: float  # the time base, seconds


class PyAVReader:
    """A video file through PyAV, single-threaded; frame n is the n-th in the order of presentation.

    The file is open only within a call. Pictures are turned as their rotation tag says, like the other decoders do.

    Raises:
        UnreadableVideo: missing, empty, truncated or without a video stream.
    """

    def __init__(self, path: str | Path):
        check_is_file(path)
        self._path = path
        with open_video(self._path) as (container, stream):
            self._index = read_index(container, stream)
        self.num_frames = len(self._index.times)
        if self.num_frames == 0:
            raise UnreadableVideo("no frames")

    def seconds(self, indices: np.ndarray) -> np.ndarray:
        """When the frames at int64 indices (any shape) are shown: seconds since the first, float64.

        Frames of containers without times count at their nominal rate.
        """
        return (self._index.times[indices] - self._index.times[0]) * self._index.unit_s

    def read(self, indices: np.ndarray) -> Tensor:
        unique, inverse = np.unique(indices, return_inverse=True)
        assert 0 <= unique[0] <= unique[-1] < self.num_frames
        frames = self._by_time(unique) if self._index.is_seekable else None
        frames = self._by_counting(unique) if frames is None else frames
        if len({frame.shape for frame in frames}) > 1:
            raise UnreadableVideo("the size of the picture changes within the video")
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[inverse]

    def _by_time(self, indices: np.ndarray) -> list[np.ndarray] | None:
        """Frames at ascending indices: seek where a keyframe lies in between, else decode on.

        None if a frame is not at its time: then only counting helps.
        """
        frames, position = [], None
        targets = self._index.times[indices]
        with open_video(self._path) as (container, stream):
            for target in targets:
                place = np.searchsorted(self._index.keyframes, target, side="right") - 1
                keyframe = self._index.keyframes[max(place, 0)]
                if position is None or keyframe > position:
                    container.seek(int(keyframe), stream=stream)
                    decoded = _decode(container, stream, set(targets.tolist()))
                frame = next((frame for frame in decoded if frame.pts is not None and frame.pts >= target), None)
                if frame is None or frame.pts != target:
                    return None
                position = frame.pts
                frames.append(_pixels(frame))
        return frames

    def _by_counting(self, indices: np.ndarray) -> list[np.ndarray]:
        """Frames at ascending indices, decoded from the start."""
        wanted, frames, number = set(indices.tolist()), [], -1
        with open_video(self._path) as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    frames.append(_pixels(frame))
                if len(frames) == len(indices):
                    return frames
        raise UnreadableVideo(f"only {number + 1} of {self.num_frames} frames can be decoded")


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A container and its video stream.

    Raises:
        UnreadableVideo: also for FFmpeg's errors within the ``with`` block.
    """
    try:
        with av.open(str(path), **OPTIONS) as container:
            stream = container.streams.best("video")
            if stream is None:
                kinds = sorted({stream.type for stream in container.streams})
                raise UnreadableVideo(f"no video stream ({', '.join(kinds)} only)" if kinds else "no streams")
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(error.strerror or reason_of(error)) from error


def read_index(container: av.container.InputContainer, stream: av.VideoStream) -> Index:
    """Presentation times and keyframes from the packets.

    Raises:
        UnreadableVideo: an MP4 whose table of frames lists more than the file holds.
    """
    packets = [packet for packet in container.demux(stream) if packet.size]
    # Only MP4's table can be relied on; counts and durations in other containers are remarks of the writer.
    if "mp4" in container.format.name and len(packets) < stream.frames:
        raise UnreadableVideo(f"truncated: {len(packets)} of {stream.frames} frames are there")
    shown = [packet for packet in packets if not packet.is_discard]  # an edit list may hide frames
    times = [packet.pts for packet in shown]
    if None in times or len(set(times)) < len(times):
        rate = stream.average_rate or stream.guessed_rate or 25
        return Index(np.arange(len(times)), np.zeros(1, dtype=np.int64), is_seekable=False, unit_s=float(1 / rate))
    # AVI stores no presentation times: with B-frames, FFmpeg numbers its packets in the order of decoding.
    is_made_up = stream.codec_context.has_b_frames and times == sorted(times)
    keyframes = [packet.pts for packet in packets if packet.is_keyframe and packet.pts is not None]
    is_seekable = bool(keyframes) and not is_made_up
    return Index(np.array(sorted(times)), np.array(sorted(keyframes)), is_seekable, float(stream.time_base))


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, wanted: set[int]
) -> Iterator[av.VideoFrame]:
    """Frames from here on, in the order of presentation; those that are neither wanted nor needed may be missing.

    A frame that no other one refers to (most B-frames, half of a usual H.264 file) is not decoded unless its time is
    ``wanted``.
    """
    for packet in container.demux(stream):
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from packet.decode()


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    """RGB as uint8 [H, W, 3], turned upright."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
