"""Datasets: a video list, a frame rule and a transform make samples; failures are data, not exceptions."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.clips.sampling import NO_FRAME
from datasets.decode.decoders import DECODERS, PYAV
from datasets.decode.probe import diagnosed
from datasets.decode.readers import FrameFolderReader, Reader, UnreadableVideo
from datasets.decode.time_limit import within
from datasets.lists.records import VideoList
from datasets.pack.shards import ShardPack
from utils.config import MAX_PIXELS

MAX_TRIES = 20  # videos in a row that may fail before a training sample is given up


class Failure(NamedTuple):
    """A video that could not be read, or was read wrongly, and why."""

    path: str
    reason: str


class Sample(NamedTuple):
    """One video's views, or the failures met instead."""

    index: int  # position in the list
    label: int | list[int]  # a list: one a view
    clips: Tensor | None  # uint8 [V, T, 3, S, S]; None: unreadable
    failures: tuple[Failure, ...]
    mismatches: tuple[Failure, ...] = ()  # read, but perhaps not at the frames asked for
    # float64 [C, T], when the frames of every clip are shown, if that is known; NaN: padding
    seconds: np.ndarray | None = None
    lengths: np.ndarray | None = None  # int64 [V], frames of each clip that are real, the rest is padding; None: all
    texts: Tensor | None = None  # int64 [K, L], token ids of what the clip is matched with in the place of a label
    num_cut: int = 0  # of these texts, too long for the tower


class Batch(NamedTuple):
    """Samples side by side, as clips or as cached features of clips; unreadable videos are left out of the tensors."""

    indices: Tensor  # int64 [B]
    labels: Tensor  # int64 [B], or [B, V]
    clips: Tensor | None  # uint8 [B, V, T, 3, S, S]
    features: Tensor | None  # float [B, V, T, D], of frames
    failed_indices: Tensor  # int64, videos left out
    failures: list[Failure]
    mismatches: Sequence[Failure] = ()  # see ``Sample``
    seconds: Sequence[np.ndarray | None] = ()  # of B videos, see ``Sample``
    lengths: Tensor | None = None  # int64 [B, V], frames of each clip that are real; None: all are
    texts: Tensor | None = None  # int64 [B, K, L]
    num_cut: int = 0  # of the texts

    @property
    def is_empty(self) -> bool:
        """Whether no video could be read; then there are neither clips nor features."""
        return len(self.indices) == 0


class Frames(NamedTuple):
    """What was read of one video; black pictures where a rule gives ``NO_FRAME``."""

    pixels: Tensor  # uint8 [n, 3, H, W]
    indices: np.ndarray  # int64, n in all
    reader: Reader

    @property
    def lengths(self) -> np.ndarray | None:
        """Of indices [..., T]: how many of T frames are real, int64 [...]; None: all are."""
        is_real = self.indices != NO_FRAME
        return None if is_real.all() else is_real.sum(axis=-1)

    @property
    def seconds(self) -> np.ndarray | None:
        """When the frames are shown, float64 in the shape of the indices, NaN for padding; None: unknown."""
        shown = self.reader.seconds(np.maximum(self.indices, 0))
        return None if shown is None else np.where(self.indices == NO_FRAME, np.nan, shown)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples into a batch."""
    good = [sample for sample in samples if sample.clips is not None]
    return Batch(
        indices=torch.tensor([sample.index for sample in good], dtype=torch.long),
        labels=torch.tensor([sample.label for sample in good], dtype=torch.long),
        clips=torch.stack([sample.clips for sample in good]) if good else None,
        features=None,
        failed_indices=torch.tensor([s.index for s in samples if s.clips is None], dtype=torch.long),
        failures=[failure for sample in samples for failure in sample.failures],
        mismatches=[mismatch for sample in samples for mismatch in sample.mismatches],
        seconds=[sample.seconds for sample in good],
        lengths=_lengths_of(good),
        texts=torch.stack([sample.texts for sample in good]) if good and good[0].texts is not None else None,
        num_cut=sum(sample.num_cut for sample in good),
    )


def _lengths_of(samples: list[Sample]) -> Tensor | None:
    """Real frames of the clips of B samples, int64 [B, V]; None where no clip is padded."""
    if all(sample.lengths is None for sample in samples):
        return None
    full = (np.full(sample.clips.shape[0], sample.clips.shape[1]) for sample in samples)
    found = [whole if each.lengths is None else each.lengths for each, whole in zip(samples, full, strict=True)]
    return torch.from_numpy(np.stack(found)).long()


@dataclasses.dataclass(frozen=True)
class VideoSource:
    """Opens and reads the videos of a list."""

    videos: VideoList
    image_tmpl: str = "img_{:05d}.jpg"
    index_bias: int = 1
    decoder: str = PYAV  # a key of ``DECODERS``
    max_pixels: int = MAX_PIXELS  # of a picture; larger ones are unreadable
    timeout_s: float = 0  # of opening and of reading a video; 0: none
    pack: ShardPack | None = None  # where the videos were packed

    def read(self, index: int, indices_of: Callable[[int], np.ndarray]) -> Frames:
        """One video's frames at the indices (any shape) chosen for its number of frames; ``NO_FRAME`` is not read.

        Raises:
            UnreadableVideo: see ``open``; or it took longer than the time limit.
        """
        try:
            reader = within(self.timeout_s, self.open, index)
            indices = indices_of(reader.num_frames)
            is_real = indices.ravel() != NO_FRAME
            pixels = within(self.timeout_s, reader.read, indices.ravel()[is_real])
        except UnreadableVideo as error:
            if not self.has_files:
                raise
            raise UnreadableVideo(diagnosed(self.place(index), error, self.timeout_s)) from error
        return Frames(pixels if is_real.all() else _with_padding(pixels, is_real), indices, reader)

    @property
    def has_files(self) -> bool:
        """Whether each video is a file of its own."""
        return self.pack is None and self.videos.num_frames is None

    def place(self, index: int) -> Path:
        """Where a video is on this machine."""
        return Path(self.videos.root, self.videos.path(index))

    def open(self, index: int) -> Reader:
        """Reader of one video.

        Raises:
            UnreadableVideo: see ``datasets.decode.readers``.
        """
        if self.pack is not None:
            return self.pack.open_video(self.videos.paths[index], self.max_pixels)
        if self.has_files:
            return DECODERS[self.decoder](self.place(index), self.max_pixels)
        num_frames = int(self.videos.num_frames[index])
        return FrameFolderReader(self.place(index), num_frames, self.image_tmpl, self.index_bias, self.max_pixels)

    def failure(self, index: int, error: UnreadableVideo) -> Failure:
        """For a sample: why a video could not be read."""
        return Failure(self.videos.path(index), str(error))

    def mismatches(self, index: int, frames: Frames) -> tuple[Failure, ...]:
        """For a sample: the mismatch that reading a video showed, if any."""
        mismatch = frames.reader.mismatch
        return (Failure(self.videos.path(index), mismatch),) if mismatch else ()


@dataclasses.dataclass(frozen=True)
class EvalVideos(Dataset):
    """Every video in list order, with all its views: crop-major, then clip (the published order)."""

    source: VideoSource
    indices_of: Callable[[int], np.ndarray]  # number of frames -> int64 [C, T]
    views_of: Callable[[Tensor], Tensor]  # frames [n, 3, H, W] -> crops [crops, n, 3, S, S]

    def __len__(self) -> int:
        return len(self.source.videos)

    def path(self, index: int) -> str:
        """Of a video, as the list names it."""
        return self.source.videos.path(index)

    def __getitem__(self, index: int) -> Sample:
        label = int(self.source.videos.labels[index])
        try:
            read = self.source.read(index, self.indices_of)
        except UnreadableVideo as error:
            return Sample(index, label, None, (self.source.failure(index, error),))
        crops = self.views_of(read.pixels)  # [crops, C*T, 3, S, S]
        views = crops.unflatten(1, read.indices.shape).flatten(0, 1)  # [crops*C, T, 3, S, S]
        lengths = None if read.lengths is None else np.tile(read.lengths, len(crops))
        return Sample(index, label, views, (), self.source.mismatches(index, read), read.seconds, lengths)


def _with_padding(pixels: Tensor, is_real: np.ndarray) -> Tensor:
    """Real frames [m, 3, H, W] at their places among n, black ones between: [n, 3, H, W]."""
    padded = pixels.new_zeros(len(is_real), *pixels.shape[1:])
    padded[torch.from_numpy(is_real)] = pixels
    return padded


def candidates(index: int, num_videos: int, rng: np.random.Generator) -> Iterator[int]:
    """A video of a list and, while one after the other fails, any other than the last, each as likely."""
    for _ in range(MAX_TRIES):
        yield index
        index = (index + 1 + int(rng.integers(max(num_videos - 1, 1)))) % num_videos


@dataclasses.dataclass(frozen=True)
class TrainVideos(Dataset):
    """Randomly sampled, augmented clips; asked for by (epoch, index).

    All randomness of a sample comes from (seed, epoch, index), so it does not depend on workers, processes or
    restarts. An unreadable video is replaced by another one of the epoch, chosen the same way, and reported.
    """

    source: VideoSource
    indices_of: Callable[[int, np.random.Generator], np.ndarray]  # (number of frames, rng=generator) -> int64 [T]
    transform: Callable[[Tensor, int], tuple[Tensor, int]]  # frames [T, 3, H, W], label -> [T, 3, S, S], label
    seed: int

    def __len__(self) -> int:
        return len(self.source.videos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, asked_for = key
        rng = np.random.default_rng((self.seed, epoch, asked_for))
        failures = []
        for index in candidates(asked_for, len(self), rng):
            try:
                clip = self._load(index, rng)
            except UnreadableVideo as error:
                failures.append(self.source.failure(index, error))
            else:
                return side_by_side(index, [clip])._replace(label=clip.label, failures=tuple(failures))
        return Sample(index, int(self.source.videos.labels[index]), None, tuple(failures))

    def _load(self, index: int, rng: np.random.Generator) -> "TrainClip":
        label = int(self.source.videos.labels[index])
        return train_clip(self.source, index, self.indices_of, self.transform, label, rng)


class TrainClip(NamedTuple):
    """One augmented clip of training."""

    frames: Tensor  # uint8 [T, 3, S, S]
    label: int
    length: int  # real frames, the rest is padding
    mismatches: tuple[Failure, ...]


def side_by_side(index: int, clips: list[TrainClip]) -> Sample:
    """Clips of a video as the views of a sample, each with a label of its own."""
    frames = torch.stack([clip.frames for clip in clips])
    lengths = np.array([clip.length for clip in clips])
    labels, mismatches = [clip.label for clip in clips], max((clip.mismatches for clip in clips), key=len)
    is_full = (lengths == frames.shape[1]).all()
    return Sample(index, labels, frames, (), mismatches, lengths=None if is_full else lengths)


def train_clip(
    source: VideoSource,
    index: int,
    indices_of: Callable[..., np.ndarray],
    transform: Callable[[Tensor, int], tuple[Tensor, int]],
    label: int,
    rng: np.random.Generator,
) -> TrainClip:
    """One augmented clip of a video, see ``TrainVideos``."""
    read = source.read(index, partial(indices_of, rng=rng))
    # torchvision's transforms draw from torch's global generator: seed it for this sample only.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))  # the CPU's alone, in a hundredth of the time
        frames, label = transform(read.pixels, label)
    length = len(frames) if read.lengths is None else int(read.lengths)
    return TrainClip(frames, label, length, source.mismatches(index, read))


@dataclasses.dataclass(frozen=True)
class AugmentedViews(TrainVideos):
    """V training clips of every video, for a feature cache: view v is the clip of epoch v; nothing is replaced."""

    num_views: int

    def __getitem__(self, index: int) -> Sample:
        rngs = [np.random.default_rng((self.seed, view, index)) for view in range(self.num_views)]
        try:
            return side_by_side(index, [self._load(index, rng) for rng in rngs])
        except UnreadableVideo as error:
            label = int(self.source.videos.labels[index])
            return Sample(index, [label] * self.num_views, None, (self.source.failure(index, error),))
