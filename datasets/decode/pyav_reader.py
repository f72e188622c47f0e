"""Video files through PyAV: exact frame numbers in every container, at the price of one pass over the packets."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from datasets.decode.readers import Reader, UnreadableVideo, check_size, open_regular, reason_of
from utils.config import MAX_PIXELS


def _takes_threads() -> bool:
    """Whether this PyAV can be told how many threads convert the pixels of a frame."""
    try:
        av.VideoFrame(16, 16, "yuv420p").reformat(format="rgb24", threads=1)
    except TypeError:
        return False
    return True


VERSION = tuple(int(part) for part in av.__version__.split(".")[:2])
# Titles in AVI files are often not UTF-8. From version 19 on PyAV reads them as they come and has no such argument.
OPTIONS = {"metadata_errors": "ignore"} if VERSION < (19, 0) else {}
# Before, PyAV wrote beyond its memory where options of the streams met a container without a header (MPEG-PS, FLV).
# Then FFmpeg's own limit (16,000 x 16,000) holds for the frame that it may decode to know a stream.
CAN_LIMIT_STREAMS = VERSION >= (17, 1)
# PyAV 19 keeps the converter of each thread, with threads of its own unless told otherwise. A forked process (a data
# worker) would free it at its start and wait forever for those, which are not there.
CONVERSION = {"threads": 1} if _takes_threads() else {}
# FFmpeg's names of containers and raw streams that hold their video themselves. All others are refused: playlists,
# scripts and patterns of names would have it open other files and addresses, and pictures are no videos.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,mpegts,mpeg,flv,live_flv,asf,asf_o,gif,apng,mxf,gxf,nut,rm,dv,swf,"
    "nsv,wtv,ivf,obu,av1,yuv4mpegpipe,h261,h263,h264,hevc,vvc,evc,m4v,mpegvideo,mjpeg,dirac,vc1,cavsvideo,avs2,avs3"
)
SIZE_CHANGES = "the size of the picture changes within the video"


class Index(NamedTuple):
    """What a pass over a stream's packets tells, without decoding."""

    times: np.ndarray  # int64 [F], presentation times in order, in the stream's time base
    keyframes: np.ndarray  # int64, the times at which decoding can begin
    is_seekable: bool  # whether frames carry these times, so that they can be found by them
    unit_s: float  # the time base, seconds

    def seconds(self, indices: np.ndarray) -> np.ndarray:
        """When frames at int64 indices (any shape) are shown: seconds since the first, float64.

        Frames of containers without times count at their nominal rate.
        """
        return (self.times[indices] - self.times[0]) * self.unit_s

    def groups(self, indices: np.ndarray) -> Iterator[tuple[int, set[int]]]:
        """Times of frames at ascending indices by the key frame that each is decoded from: its time, and theirs."""
        times = self.times[indices]
        places = np.maximum(np.searchsorted(self.keyframes, times, side="right") - 1, 0)
        for place in np.unique(places):
            yield int(self.keyframes[place]), set(times[places == place].tolist())


class PyAVReader(Reader):
    """A video file through PyAV, single-threaded; frame n is the n-th in the order of presentation.

    The file is open only within a call. Pictures are turned as their rotation tag says, like the other decoders do.

    Raises:
        UnreadableVideo: missing, empty, truncated, without a video stream, not in one of ``CONTAINERS``, or with
            pictures of more than ``max_pixels``.
    """

    def __init__(self, path: str | Path, max_pixels: int = MAX_PIXELS):
        self._path, self._max_pixels = path, max_pixels
        with open_video(path, max_pixels) as (container, stream):
            self._index = read_index(container, stream)
        self.num_frames = len(self._index.times)
        if self.num_frames == 0:
            raise UnreadableVideo("no frames")

    def seconds(self, indices: np.ndarray) -> np.ndarray:
        return self._index.seconds(indices)

    def _read(self, indices: np.ndarray) -> Tensor:
        assert 0 <= indices[0] <= indices[-1] < self.num_frames
        frames = None
        if self._index.is_seekable:
            frames = self._by_time(indices, is_cut_short=True) or self._by_time(indices, is_cut_short=False)
        frames = frames or self._by_counting(indices)
        if len({frame.shape for frame in frames}) > 1:
            raise UnreadableVideo(SIZE_CHANGES)
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)

    def _by_time(self, indices: np.ndarray, is_cut_short: bool) -> list[np.ndarray] | None:
        """Frames at ascending indices, those of each group of pictures decoded from its key frame on.

        None if a frame is not at its time: then only counting helps. Also for fields of pictures, if cut short: the
        second one may lie in a packet of its own, after the one that has the frame's time.
        """
        found: dict[int, np.ndarray] = {}
        with open_video(self._path, self._max_pixels) as (container, stream):
            for keyframe, wanted in self._index.groups(indices):
                container.seek(keyframe, stream=stream)
                for frame in _decode(container, stream, wanted, is_cut_short):
                    if is_cut_short and frame.interlaced_frame:
                        return None
                    found[frame.pts] = _pixels(frame, self._max_pixels)
                if not wanted <= found.keys():
                    return None
        return [found[time] for time in self._index.times[indices].tolist()]

    def _by_counting(self, indices: np.ndarray) -> list[np.ndarray]:
        """Frames at ascending indices, decoded from the start."""
        wanted, frames, number = set(indices.tolist()), [], -1
        with open_video(self._path, self._max_pixels) as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    frames.append(_pixels(frame, self._max_pixels))
                if len(frames) == len(indices):
                    return frames
        raise UnreadableVideo(f"only {number + 1} of {self.num_frames} frames can be decoded")


def inspect(path: str | Path, max_pixels: int) -> tuple[Index, str]:
    """Index and codec of what another decoder is about to open, looked at with PyAV, which takes limits.

    Raises:
        UnreadableVideo: see ``PyAVReader``; or key frames of different sizes, which other decoders stretch in silence.
    """
    with open_video(path, max_pixels) as (container, stream):
        index, codec = read_index(container, stream), stream.codec_context.codec.canonical_name
    with open_video(path, max_pixels) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        sizes = {(frame.width, frame.height) for frame in container.decode(stream)}
    for size in sizes:
        check_size(*size, max_pixels)
    if len(sizes) > 1:
        raise UnreadableVideo(SIZE_CHANGES)
    return index, codec


@contextmanager
def open_video(
    path: str | Path, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A container and its video stream.

    FFmpeg gets an open file and may open nothing else, so no name is taken for an address or a pattern, and nothing
    that stands in a file leads to another one.

    Raises:
        UnreadableVideo: also for FFmpeg's errors within the ``with`` block.
    """
    with open_regular(path) as descriptor:
        of_streams = _decoder_limits(max_pixels) if CAN_LIMIT_STREAMS else {}
        limits = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": CONTAINERS}
        remark = ""
        try:
            with av.open("fd:", container_options=limits, options=of_streams, **OPTIONS) as container:
                stream = _video_stream(container, max_pixels)
                if stream.codec_context.width == 0:  # what FFmpeg makes of a size that it may not decode
                    remark = f"; pictures of no known size, or more than data.max_pixels ({max_pixels})"
                yield container, stream
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:  # ValueError: pixels of an unknown kind
            raise UnreadableVideo(_ffmpegs_reason(error) + remark) from error


def _video_stream(container: av.container.InputContainer, max_pixels: int) -> av.VideoStream:
    """The stream to decode, with one thread, and no picture larger than asked for."""
    stream = container.streams.best("video")
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams})
        raise UnreadableVideo(f"no video stream ({', '.join(kinds)} only)" if kinds else "no streams")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise UnreadableVideo("no video stream (sound and its cover picture only)")
    if stream.codec_context is None:
        raise UnreadableVideo("a video codec that this FFmpeg does not know")
    check_size(stream.codec_context.width, stream.codec_context.height, max_pixels)
    stream.codec_context.options = _decoder_limits(max_pixels)
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def _decoder_limits(max_pixels: int) -> dict[str, str]:
    """What keeps FFmpeg from decoding a picture much larger than its header said. It counts padding and work space."""
    return {"max_pixels": str(2 * max_pixels + 2**20)}


def _ffmpegs_reason(error: Exception) -> str:
    if getattr(error, "filename", None) == "fd:" and error.errno == errno.EINVAL:
        return "not in a container that is opened here, see docs/data/decoders.md"
    return getattr(error, "strerror", None) or reason_of(error)


def read_index(container: av.container.InputContainer, stream: av.VideoStream) -> Index:
    """Presentation times and keyframes from the packets.

    Raises:
        UnreadableVideo: an MP4 whose table of frames lists more than the file holds.
    """
    times, keyframes, num_packets = [], [], 0
    for packet in container.demux(stream):  # none is kept: a long video would not fit the memory
        if not packet.size:
            continue
        num_packets += 1
        if not packet.is_discard:  # an edit list may hide frames
            times.append(packet.pts)
        if packet.is_keyframe and packet.pts is not None:
            keyframes.append(packet.pts)
    # Only MP4's table can be relied on; counts and durations in other containers are remarks of the writer.
    if "mp4" in container.format.name and num_packets < stream.frames:
        raise UnreadableVideo(f"truncated: {num_packets} of {stream.frames} frames are there")
    if None in times or len(set(times)) < len(times):
        rate = stream.average_rate or stream.guessed_rate or 25
        return Index(np.arange(len(times)), np.zeros(1, dtype=np.int64), is_seekable=False, unit_s=float(1 / rate))
    # AVI stores no presentation times: with B-frames, FFmpeg numbers its packets in the order of decoding.
    is_made_up = stream.codec_context.has_b_frames and times == sorted(times)
    is_seekable = bool(keyframes) and not is_made_up
    return Index(np.array(sorted(times)), np.array(sorted(keyframes)), is_seekable, float(stream.time_base))


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, wanted: set[int], is_cut_short: bool
) -> Iterator[av.VideoFrame]:
    """The frames at the ``wanted`` times, from here on, in the order of presentation.

    A frame that no other one refers to (most B-frames, half of a usual H.264 file) is not decoded unless its time is
    wanted. A decoder holds frames back until it has seen some later ones, to put them in order; ``is_cut_short``: the
    later ones are not decoded, it is told that the video ends, and has to be told to seek before it goes on.
    """
    codec, missing, unseen = stream.codec_context, set(wanted), set(wanted)
    for packet in container.demux(stream):
        codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        frames = packet.decode()
        unseen.discard(packet.pts)
        is_end = is_cut_short and not unseen
        for frame in frames + codec.decode(None) if is_end else frames:
            if frame.pts in missing:
                missing.remove(frame.pts)
                yield frame
        if is_end or not missing:
            return


def _pixels(frame: av.VideoFrame, max_pixels: int) -> np.ndarray:
    """RGB as uint8 [H, W, 3], turned upright."""
    check_size(frame.width, frame.height, max_pixels)
    return np.rot90(frame.to_ndarray(format="rgb24", **CONVERSION), round(frame.rotation / 90))
