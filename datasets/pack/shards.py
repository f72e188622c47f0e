"""Packs: videos as JPEG frames in tar shards, read at random through an index.

A pack is a folder that ``python -m datasets.pack`` wrote: ``shard-*.tar`` and ``index/``. The shards are WebDataset's
(``<key>.<frame>.jpg`` and ``<key>.json``), but nothing is read in their order: the index knows where every frame
lies, so a sample is one open file and one read for every run of neighbouring frames.
"""

import hashlib
import io
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, StrictInt
from torch import Tensor

from datasets.decode.readers import (
    Reader,
    UnreadableVideo,
    check_picture,
    decode_rgb,
    reason_of,
    stack_pictures,
)
from datasets.lists.records import VideoList
from utils.arrays import map_array
from utils.config import MAX_PIXELS
from utils.files import checked, read_json

logger = logging.getLogger(__name__)

VERSION = 1
BLOCK = 512  # bytes; tar members begin at multiples, each with a header of one block
INDEX = "index"
MANIFEST = "pack.json"
# Beside it, as .npy: kind and shape, see ``ShardPack``.
ARRAYS = {"paths": ("bytes", (None,)), "videos": ("int64", (None, 4)), "frames": ("uint32", (None, 2))}
SHARD_NAME = r"^[A-Za-z0-9_.-]+\.tar$"
NAMED = 5  # paths that an error message lists


@dataclass(frozen=True)
class Settings:
    """What a pack is made from and how; the same settings make the same bytes."""

    version: int
    list_fingerprint: str  # of the lines in their order
    root: str
    short_side: int  # pixels, of larger frames; 0: as they are
    frames: int  # kept of each video; 0: all
    quality: int  # JPEG, 1 to 100
    shard_size_mb: int


@dataclass(frozen=True)
class Manifest:
    """What ``pack.json`` holds."""

    version: int
    settings: Settings
    fingerprint: str  # of the tables of videos
    num_frames: StrictInt
    shards: list[tuple[Annotated[str, Field(pattern=SHARD_NAME)], Annotated[StrictInt, Field(ge=0)]]]  # name, bytes


@dataclass(frozen=True)
class ShardPack:
    """The index of a pack of M videos and F frames in all.

    Held as memory-mapped arrays: all processes and workers of a machine share one copy.
    """

    folder: Path
    settings: Settings
    shards: list[tuple[str, int]]  # name, size in bytes
    paths: np.ndarray  # [M] UTF-8 bytes as in the list, sorted
    videos: np.ndarray  # [M, 4] int64: shard, offset of the first frame's header, its row in frames, number of frames
    frames: np.ndarray  # [F, 2] uint32: size in bytes, CRC-32

    @classmethod
    def open(cls, folder: str | Path) -> "ShardPack":
        """Read the index.

        Raises:
            FileNotFoundError, ValueError: not a (finished) pack, or an index that is damaged or put together from
                several.
        """
        index = Path(folder, INDEX)
        if not (index / MANIFEST).is_file():
            raise FileNotFoundError(f"{folder}: no packed videos here (index/{MANIFEST}); see python -m datasets.pack")
        try:
            manifest = _read_manifest(index / MANIFEST)
            paths, videos, frames = (map_array(index / f"{name}.npy", *ARRAYS[name]) for name in ARRAYS)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: damaged index: {error}") from error
        if manifest.fingerprint != fingerprint(paths, videos) or manifest.num_frames != len(frames):
            raise ValueError(f"{index}: {MANIFEST} and the arrays beside it belong to different packs")
        _check_tables(paths, videos, len(frames), [size for _, size in manifest.shards], index)
        return cls(Path(folder), manifest.settings, manifest.shards, paths, videos, frames)

    def __reduce__(self):
        return ShardPack.open, (self.folder,)  # a process that is started anew maps the files itself

    def check(self, videos: VideoList) -> None:
        """Check that the pack holds all videos of a list, and that its shards are those of the index.

        Raises:
            FileNotFoundError, ValueError: paths that are not in the pack; a shard that is missing, of another
                size, or whose first frame is another one. One that the system does not open is a warning: its
                videos will be unreadable.
        """
        rows = self._rows(videos.paths)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            names = ", ".join(repr(videos.path(index)) for index in missing[:NAMED])
            count, more = f"{len(missing)} of {len(videos)} videos", ", ..." if len(missing) > NAMED else ""
            raise ValueError(f"{self.folder}: {count} of the list are not packed: {names}{more}")
        first_videos = dict(zip(*np.unique(self.videos[:, 0], return_index=True), strict=True))
        for shard, (name, size) in enumerate(self.shards):
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    found = os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                raise FileNotFoundError(f"{path}: this shard is missing") from None
            except OSError as error:
                logger.warning("%s: its videos are unreadable (%s)", path, reason_of(error))
                continue
            if found != size:
                raise ValueError(f"{path}: truncated or another pack's: {found} bytes, expected {size}")
            try:
                if shard in first_videos:
                    self._reader(first_videos[shard]).read_jpegs(np.zeros(1, dtype=np.int64))
            except UnreadableVideo as error:
                raise ValueError(f"{path}: damaged or another pack's: {error}") from error

    def open_video(self, path: bytes, max_pixels: int = MAX_PIXELS) -> "ShardReader":
        """Reader of the video with this path in the list.

        Raises:
            ValueError: not in the pack.
        """
        (row,) = self._rows(np.array([path]))
        if row < 0:
            raise ValueError(f"{self.folder}: {path.decode()!r} is not packed")
        return self._reader(row, max_pixels)

    def _reader(self, row: int, max_pixels: int = MAX_PIXELS) -> "ShardReader":
        shard, offset, first, num_frames = self.videos[row].tolist()
        path, frames = self.folder / self.shards[shard][0], self.frames[first : first + num_frames]
        return ShardReader(path, offset, frames, max_pixels)

    def _rows(self, paths: np.ndarray) -> np.ndarray:
        """Rows of paths, int64 [n]; -1: not in the pack."""
        # The same width, or numpy copies the whole index first; a path cut by that is found unequal below.
        places = np.searchsorted(self.paths, paths.astype(self.paths.dtype)).clip(max=len(self.paths) - 1)
        return np.where(self.paths[places] == paths, places, -1)


def _read_manifest(path: Path) -> Manifest:
    """The description of a pack, in this version of the format."""
    found = read_json(path, "the description of a pack")
    if found.get("version") != VERSION:
        raise ValueError(f"{path}: written in version {found.get('version')} of the format, expected {VERSION}")
    return checked(Manifest, found, path)


def _check_tables(paths: np.ndarray, videos: np.ndarray, num_frames: int, sizes: list[int], index: Path) -> None:
    """See that every video lies within a shard and has frames of its own."""
    if len(paths) != len(videos):
        raise ValueError(f"{index}: damaged index: {len(paths)} paths, but {len(videos)} videos")
    if (unsorted := np.flatnonzero(paths[:-1] >= paths[1:])).size:
        raise ValueError(f"{index / 'paths.npy'}: damaged index: row {unsorted[0] + 1} is not in order")
    shards, offsets, firsts, counts = videos.T
    ends = np.array(sizes, dtype=np.int64)
    fits = (shards >= 0) & (shards < len(sizes)) & (firsts >= 0) & (counts >= 0) & (counts <= num_frames)
    fits &= (firsts <= num_frames - counts) & (offsets >= 0) & (offsets % BLOCK == 0)
    if len(sizes):
        fits &= offsets <= ends[shards.clip(0, len(sizes) - 1)]
    order = np.argsort(firsts, kind="stable")
    fits[order[1:]] &= firsts[order][1:] >= (firsts + counts)[order][:-1]
    if not fits.all():
        row = int(np.argmin(fits))
        found = f"row {row} (shard, offset, first frame, frames: {videos[row].tolist()})"
        raise ValueError(f"{index / 'videos.npy'}: damaged index: {found} of {paths[row].decode(errors='replace')!r}")


class ShardReader(Reader):
    """One video of a pack.

    Args:
        path: the shard.
        offset: of the first frame's header, in bytes.
        frames: size and CRC-32 of each frame, [F, 2].
        max_pixels: of a frame.

    Raises:
        UnreadableVideo: bytes that are missing or not what was packed, or larger pictures.
    """

    def __init__(self, path: Path, offset: int, frames: np.ndarray, max_pixels: int = MAX_PIXELS):
        self._max_pixels = max_pixels
        self._path, self._offset, self.num_frames = path, offset, len(frames)
        self._sizes, self._checksums = frames.astype(np.int64).T

    def _read(self, indices: np.ndarray) -> Tensor:
        jpegs = self.read_jpegs(indices)
        try:
            # All were checked when they were packed. A header takes as long to read as a small picture.
            for jpeg in jpegs[:1]:
                check_picture(io.BytesIO(jpeg.numpy().tobytes()), self._max_pixels)
            return stack_pictures([decode_rgb(jpeg) for jpeg in jpegs])
        except UnreadableVideo as error:
            raise UnreadableVideo(f"{self._path.name}: {error}") from error

    def read_jpegs(self, indices: np.ndarray) -> list[Tensor]:
        """Frames at sorted int64 indices [n], each once, as they are stored: uint8 [bytes]."""
        starts = self._offset + frame_starts(self._sizes)
        ends = starts + self._sizes
        jpegs = []
        try:
            with self._path.open("rb", buffering=0) as file:
                if len(indices) and ends[indices[-1]] > os.fstat(file.fileno()).st_size:
                    raise UnreadableVideo(f"{self._path.name}: ends within the video")
                for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1):
                    start = int(starts[run[0]])
                    content = torch.empty(int(ends[run[-1]]) - start, dtype=torch.uint8)
                    if os.preadv(file.fileno(), [content.numpy()], start) != len(content):
                        raise UnreadableVideo(f"{self._path.name}: ends within the video")
                    jpegs += [content[starts[i] - start : ends[i] - start] for i in run.tolist()]
        except OSError as error:
            raise UnreadableVideo(f"{self._path.name}: {reason_of(error)}") from error
        for index, jpeg in zip(indices.tolist(), jpegs, strict=True):
            if zlib.crc32(jpeg.numpy()) != self._checksums[index]:
                raise UnreadableVideo(f"{self._path.name}: frame {index} is not what was packed (checksum)")
        return jpegs


def frame_starts(sizes: np.ndarray) -> np.ndarray:
    """Where the content of tar members of these sizes begins, from the first one's header on: int64 [n]."""
    spans = BLOCK + -(-sizes // BLOCK) * BLOCK  # header and padded content
    return np.cumsum(spans) - spans + BLOCK


def fingerprint(paths: np.ndarray, videos: np.ndarray) -> str:
    """Hash of an index's tables of videos (SHA-256, 16 hex digits)."""
    digest = hashlib.sha256(np.ascontiguousarray(paths))
    digest.update(np.ascontiguousarray(videos))
    return digest.hexdigest()[:16]
