"""Videos to small H.264 files that a decoder enters anywhere at little cost: many key frames, no B-frames.

A file appears under its name when it is whole and has been read back, so a run that was killed continues with those
that are missing.
"""

import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import av
import numpy as np
from torch import Tensor
from tqdm import tqdm

from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import UnreadableVideo
from datasets.pack.frames import (
    FailedVideo,
    ListedVideo,
    Settings,
    frame_rate,
    kept_frames,
    run_jobs,
    small_frames,
    unique_videos,
    write_lists,
)
from utils.files import whole_file

GROUP = 16  # videos a job
# One thread, and no macroblock tree: its result varies from call to call on small pictures.
X264 = {
    "preset": "medium", "crf": "20", "g": "12", "bf": "0", "threads": "1", "x264-params": "mbtree=0",
}  # fmt: skip


class VideosJob(NamedTuple):
    """Some videos to encode."""

    settings: Settings
    folder: Path
    videos: list[ListedVideo]


def pack_videos(lines: list[ListedVideo], settings: Settings, folder: Path, workers: int) -> None:
    """Encode the videos that are not there yet, and write the lists.

    Raises:
        ValueError: two videos would get one name, a path leaves the folder, or no video can be read.
        OSError: disk full.
    """
    videos = unique_videos(lines)
    _check_names(videos)
    missing = [video for video in videos if not (folder / packed_name(video.path)).exists()]
    groups = [missing[start : start + GROUP] for start in range(0, len(missing), GROUP)]
    jobs = [VideosJob(settings, folder, group) for group in groups]
    failed = []
    with tqdm(total=len(videos), unit="video", disable=None) as progress:
        progress.update(len(videos) - len(missing))
        for job, failed_of_job in run_jobs(encode_videos, jobs, workers):
            failed += failed_of_job
            progress.update(len(job.videos))
    if len(failed) == len(videos):
        raise ValueError(f"no video can be read, {failed[0].path!r}: {failed[0].reason}; is --root right?")
    place = {video.path: video.number for video in videos}
    write_lists(folder, lines, sorted(failed, key=lambda failure: place[failure.path]), packed_name)


def packed_name(path: str) -> str:
    """The list path of the encoded video."""
    return str(PurePosixPath(path).with_suffix(".mp4"))


def encode_videos(job: VideosJob) -> tuple[VideosJob, list[FailedVideo]]:
    """Encode a job's videos one after the other; returns the job and the videos that cannot be read."""
    failed = []
    for video in job.videos:
        source, target = Path(job.settings.root, video.path), job.folder / packed_name(video.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            encode_video(source, target, job.settings.short_side, job.settings.frames)
        except UnreadableVideo as error:
            failed.append(FailedVideo(video.path, str(error)))
    return job, failed


def encode_video(source: Path, target: Path, short_side: int, limit: int) -> None:
    """Encode the kept frames of a video at a rate that keeps its duration; the sound is left out.

    Raises:
        UnreadableVideo: any frame of the source cannot be read.
        OSError: disk full, or what was written does not read back.
    """
    reader = PyAVReader(source)
    indices = kept_frames(reader.num_frames, limit)
    rate = (frame_rate(source) * len(indices) / reader.num_frames).limit_denominator(100_000)
    with whole_file(target) as part:
        _write(part, small_frames(reader, indices, short_side, multiple=2), rate)
        _read_back(part, len(indices))


def _write(path: Path, frames: Iterator[Tensor], rate: Fraction) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options=X264)
                stream.height, stream.width, stream.pix_fmt = *frame.shape[-2:], "yuv420p"
            container.mux(stream.encode(_picture(frame)))
        container.mux(stream.encode())


def _picture(frame: Tensor) -> av.VideoFrame:
    """uint8 [3, H, W] -> a frame to encode."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()), format="rgb24")


def _read_back(path: Path, num_frames: int) -> None:
    """Check the number of frames, and that the first and the last can be decoded."""
    try:
        reader = PyAVReader(path)
        reader.read(np.array([0, num_frames - 1]))
    except (UnreadableVideo, IndexError) as error:
        raise OSError(errno.EIO, f"what was written does not read back: {error}") from error
    if reader.num_frames != num_frames:
        raise OSError(errno.EIO, f"what was written has {reader.num_frames} frames, expected {num_frames}")


def _check_names(videos: list[ListedVideo]) -> None:
    owners: dict[str, str] = {}
    for video in videos:
        path, name = PurePosixPath(video.path), packed_name(video.path)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{video.path!r}: --format videos keeps paths below --root; this one is not")
        if owners.setdefault(name, video.path) != video.path:
            raise ValueError(f"{owners[name]!r} and {video.path!r} would both become {name!r}; rename one")
