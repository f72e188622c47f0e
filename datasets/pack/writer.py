"""Videos to tar shards of JPEG frames with an index, see ``datasets.pack.shards``.

Which videos a shard holds is fixed before the first one is written, and nothing in it depends on time or process. So a
run that was killed continues with the shards that are missing, and ends with the same bytes.
"""

import dataclasses
import errno
import io
import json
import logging
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.io import encode_jpeg
from tqdm import tqdm

from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import UnreadableVideo
from datasets.lists.records import VideoList
from datasets.pack.frames import frame_rate, kept_frames, small_frames, write_lists
from datasets.pack.shards import ARRAYS, BLOCK, INDEX, MANIFEST, VERSION, Manifest, Settings, ShardReader, fingerprint
from utils.arrays import DAMAGED
from utils.files import PART, whole_file, write_text
from utils.jobs import run_jobs

logger = logging.getLogger(__name__)

RECORDS = "records"  # folder of notes on finished shards, gone when the index is written
SAMPLE = 8  # videos whose size tells how many go into a shard


class ListedVideo(NamedTuple):
    """A line of the list."""

    number: int  # position in the list
    path: str
    label: int | list[int]  # a list: of a list with label sets


class ShardJob(NamedTuple):
    """One shard to write."""

    settings: Settings
    folder: Path
    number: int
    videos: list[ListedVideo]

    @property
    def shard(self) -> Path:
        return self.folder / f"shard-{self.number:06d}.tar"

    @property
    def record(self) -> Path:
        return self.folder / RECORDS / f"{self.number:06d}.npz"


def pack_shards(listed: VideoList, settings: Settings, folder: Path, workers: int) -> None:
    """Write shards, lists and, last, the index; what is there already is kept.

    Raises:
        ValueError: no video can be read.
        OSError: disk full.
    """
    if not (folder / INDEX).exists():
        (folder / RECORDS).mkdir(exist_ok=True)
        _, first = np.unique(listed.paths, return_index=True)  # a path that is listed twice is packed once
        label_of = listed.labels_of if listed.has_label_sets else lambda i: int(listed.labels[i])
        videos = [ListedVideo(i, listed.path(i), label_of(i)) for i in np.sort(first).tolist()]
        per_shard = _videos_per_shard(videos, settings, folder, workers)
        groups = [videos[start : start + per_shard] for start in range(0, len(videos), per_shard)]
        jobs = [ShardJob(settings, folder, number, group) for number, group in enumerate(groups)]
        missing = [job for job in jobs if not (job.record.exists() and job.shard.exists())]
        with tqdm(total=len(videos), unit="video", disable=None) as progress:
            progress.update(len(videos) - sum(len(job.videos) for job in missing))
            for count in run_jobs(write_shard, missing, workers):
                progress.update(count)
        records = [_read_record(job.record) for job in jobs]
        write_lists(folder, listed, {path: reason for record in records for path, reason in record["failed"]})
        _write_index(folder, settings, jobs, records)
    shutil.rmtree(folder / RECORDS, ignore_errors=True)


def write_shard(job: ShardJob) -> int:
    """Write one shard, read it back, and note what it holds; returns the number of its videos."""
    paths, offsets, tables, failed = [], [], [], []
    with whole_file(job.shard) as part:
        with part.open("wb") as file:
            for video in job.videos:
                try:
                    jpegs, about = pack_video(video, job.settings)
                except UnreadableVideo as error:
                    failed.append((video.path, str(error)))
                    continue
                paths.append(video.path.encode())
                offsets.append(_write_video(file, video.number, jpegs, about))
                tables.append(np.array([(len(jpeg), zlib.crc32(jpeg)) for jpeg in jpegs], dtype=np.uint32))
            file.write(bytes(2 * BLOCK))  # the end of a tar file
        _read_back(part, offsets, tables)
    with whole_file(job.record) as part, part.open("wb") as file:
        np.savez(
            file, paths=np.array(paths, dtype=bytes), offsets=np.array(offsets, dtype=np.int64),
            counts=np.array([len(table) for table in tables], dtype=np.int64),
            frames=np.concatenate([np.zeros((0, 2), dtype=np.uint32), *tables]),
            failed=json.dumps(failed), size=job.shard.stat().st_size,
        )  # fmt: skip
    return len(job.videos)


def pack_video(video: ListedVideo, settings: Settings) -> tuple[list[bytes], dict]:
    """Read, resize and compress one video: its JPEGs, and the JSON beside them.

    Raises:
        UnreadableVideo: any of its frames cannot be read.
    """
    path = Path(settings.root, video.path)
    reader = PyAVReader(path)
    indices = kept_frames(reader.num_frames, settings.frames)
    about = {
        "path": video.path,
        "label": video.label,
        "num_frames": reader.num_frames,
        "fps": round(frame_rate(path), 6),
    }
    frames = small_frames(reader, indices, settings.short_side)
    return [encode_jpeg(frame, settings.quality).numpy().tobytes() for frame in frames], about


def tar_member(name: str, content: bytes) -> bytes:
    """Header, content and padding; owner and time are 0."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def _write_video(file: io.BufferedWriter, number: int, jpegs: list[bytes], about: dict) -> int:
    """Append a video's members; returns where its first frame's header begins."""
    key = f"{number:09d}"  # the place in the list: unique, and safe whatever the path is
    file.write(tar_member(f"{key}.json", json.dumps(about).encode()))
    offset = file.tell()
    for frame, jpeg in enumerate(jpegs):
        file.write(tar_member(f"{key}.{frame:06d}.jpg", jpeg))
    return offset


def _read_back(path: Path, offsets: list[int], tables: list[np.ndarray]) -> None:
    """Check every frame's bytes, and decode the first and last frame of each video."""
    for offset, table in zip(offsets, tables, strict=True):
        reader = ShardReader(path, offset, table)
        try:
            reader.read_jpegs(np.arange(len(table)))
            reader.read(np.array([0, len(table) - 1]))
        except UnreadableVideo as error:
            raise OSError(errno.EIO, f"the disk gave back other bytes than were written: {error}") from error


def _videos_per_shard(videos: list[ListedVideo], settings: Settings, folder: Path, workers: int) -> int:
    """How many videos make a shard of about the size asked for, from a few of them; noted on the first start."""
    note = folder / RECORDS / "videos_per_shard.json"
    if note.exists():
        if not re.fullmatch(r"[1-9][0-9]{0,8}", text := note.read_text(errors="replace").strip()):
            raise ValueError(f"{note}: damaged, expected a number of videos, found {text[:40]!r}; remove it")
        return int(text)
    places = np.linspace(0, len(videos) - 1, min(SAMPLE, len(videos))).astype(int)
    sizes = list(run_jobs(_packed_size, [(videos[place], settings) for place in places], min(workers, len(places))))
    readable = [size for size in sizes if size]
    if not readable:
        first = videos[0].path
        raise ValueError(f"none of {len(places)} videos tried can be read, {first!r} among them; is --root right?")
    mean = sum(readable) / len(readable)
    per_shard = max(1, round(settings.shard_size_mb * 1e6 / mean))
    logger.info(
        "about %.2f MB a video, %.1f GB in all; %.1f GB are free",
        mean / 1e6, mean * len(videos) / 1e9, shutil.disk_usage(folder).free / 1e9,
    )  # fmt: skip
    write_text(note, json.dumps(per_shard))
    return per_shard


def _packed_size(job: tuple[ListedVideo, Settings]) -> int:
    """Bytes of one video's frames in a shard, 0 if it cannot be read."""
    try:
        return sum(len(tar_member("", jpeg)) for jpeg in pack_video(*job)[0])
    except UnreadableVideo:
        return 0


def _read_record(path: Path) -> dict:
    try:
        with np.load(path, allow_pickle=False) as record:
            record = {**record, "failed": json.loads(str(record["failed"]))}
    except (zipfile.BadZipFile, zlib.error, KeyError, *DAMAGED) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and its shard is written once more") from None
    if missing := {"paths", "offsets", "counts", "frames", "size"} - record.keys():
        raise ValueError(f"{path}: damaged, without {min(missing)}; remove it, and its shard is written once more")
    return record


def _write_index(folder: Path, settings: Settings, jobs: list[ShardJob], records: list[dict]) -> None:
    """Put the shards' records together, see ``ShardPack``."""
    paths, offsets, counts, frames = (
        np.concatenate([record[name] for record in records]) for name in ("paths", "offsets", "counts", "frames")
    )
    shards = np.repeat(np.arange(len(jobs)), [len(record["paths"]) for record in records])
    order = np.argsort(paths)
    paths, videos = paths[order], np.stack([shards, offsets, np.cumsum(counts) - counts, counts], axis=1)[order]
    sizes = [(job.shard.name, int(record["size"])) for job, record in zip(jobs, records, strict=True)]
    manifest = Manifest(VERSION, settings, fingerprint(paths, videos), len(frames), sizes)
    part = folder / f".{os.getpid()}{PART}"
    part.mkdir()
    for name, array in zip(ARRAYS, (paths, videos, frames), strict=True):
        with whole_file(part / f"{name}.npy") as path, path.open("wb") as file:
            np.save(file, array)
    write_text(part / MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=1) + "\n")
    os.replace(part, folder / INDEX)
