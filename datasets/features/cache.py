"""A cache of frame features in the place of videos; ``datasets.features.writer`` writes it for ``extract_features.py``.

A cache is a folder:

- ``features.npy``: float16 [N, V, T, D], CLIP's frame features before the temporal head, not normalised;
- ``labels.npy``: int64 [N, V], which the mirror image of an augmented view may have changed;
- ``index.txt``: ``row label path`` of every video that could be read; -1 for the label where videos have several;
- ``failed.txt``: path, tab, reason of the others, whose rows are zero;
- ``class_features.npy``: float32 [K, D], for other programs;
- ``metadata.json``: what the features depend on. Written last: with it the cache is complete.

One plain array that is memory-mapped: any subset of rows is one indexing, all loader workers share the system's copy,
and NumPy alone reads it.
"""

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, StrictBool, StrictInt
from torch.utils.data import Dataset

from datasets.clips.video import Batch, Failure, candidates
from datasets.lists.records import VideoList
from utils.arrays import map_array
from utils.files import check_settings, checked, read_json

METADATA, INDEX, FAILED = "metadata.json", "index.txt", "failed.txt"
FEATURES, LABELS, CLASS_FEATURES = "features.npy", "labels.npy", "class_features.npy"
NO_ROW = -1  # of a video that could not be read
# What the pictures of training views depend on beside what evaluation views do.
AUGMENTATION = ("random_shift", "crop_area", "randaug")
ROW = re.compile(rb"(\d{1,15}) (-1|\d{1,15}) (.+)", re.DOTALL)  # of the index: row, label, path
# Entries that caches did not have at first, and what they would have been: every tower was of OpenAI's kind.
FORMERLY = {
    "transforms": "mote",
    "scale_size": 0,
    "train_sampling": "",
    "pixel_mean": [0.48145466, 0.4578275, 0.40821073],
    "pixel_std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize": "shortest",
    "context_length": 77,
    "time_module": "none",
}


def read_metadata(path: Path) -> dict:
    """What a cache, finished or begun, says of itself; for errors see ``utils.files.read_json``."""
    return FORMERLY | read_json(path, "the description of a feature cache")


@dataclass(frozen=True)
class Entries:
    """Entries of the metadata that are used here."""

    shape: Annotated[list[Annotated[StrictInt, Field(gt=0)]], Field(min_length=4, max_length=4)]  # [N, V, T, D]
    augmented: StrictBool  # the views are those of training, not of evaluation
    modality: Literal["video", "RGB", "shards"]
    decoder: str | None
    transforms: str
    num_crops: StrictInt | None


@dataclass(frozen=True)
class FeatureCache:
    """A complete cache on disk."""

    folder: Path
    metadata: dict
    entries: Entries

    @classmethod
    def open(cls, folder: str | Path, key: str) -> "FeatureCache":
        """Read the metadata of a cache.

        Args:
            key: configuration key that names the folder.

        Raises:
            FileNotFoundError: no complete cache is there.
            ValueError: its metadata are damaged.
        """
        path = Path(folder, METADATA)
        if not path.is_file():
            raise FileNotFoundError(
                f"data.{key} {str(folder)!r}: expected the folder of a feature cache, found no {METADATA}; "
                "extract_features.py writes one (start it again if it was stopped)"
            )
        metadata = read_metadata(path)
        return cls(Path(folder), metadata, checked(Entries, metadata, path))

    @property
    def num_views(self) -> int:
        """V."""
        return self.entries.shape[1]

    def check_arrays(self, rows: np.ndarray, num_classes: int | None = None) -> None:
        """See that the arrays are whole and as the metadata say.

        Args:
            rows: that will be read.
            num_classes: labels of augmented views are below; None: they are not used.

        Raises:
            OSError, ValueError: an array is missing or damaged; it is named.
        """
        map_array(self.folder / FEATURES, "float16", tuple(self.entries.shape))
        if num_classes is None or not self.entries.augmented:
            return
        labels = map_array(self.folder / LABELS, "int64", tuple(self.entries.shape[:2]))[rows[rows != NO_ROW]]
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            found = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"{self.folder / LABELS}: damaged, expected labels 0 to {num_classes - 1}, found {found}")

    def check(self, expected: dict) -> None:
        """Compare metadata with what a run would compute from the videos.

        Raises:
            ValueError: names every difference, with both values.
        """
        found = {name: self.metadata.get(name) for name in expected}
        check_settings(f"feature cache {self.folder}", found, expected, "extract the features anew")

    def rows(self, videos: VideoList) -> tuple[np.ndarray, dict[int, Failure]]:
        """Rows of a list's videos, int64 [N], and the videos (by position) that could not be read: ``NO_ROW``.

        Raises:
            ValueError: a video is not in the cache; the cache is augmented and was made for another label; or its index
                is damaged.
        """
        index = self._read_index()
        failed = self._read_failed(index)
        paths = videos.paths.tolist()
        if missing := [path.decode() for path in paths if path not in index and path not in failed]:
            raise ValueError(
                f"feature cache {self.folder}: {len(missing)} of {len(paths)} videos of the list are not in it, "
                f"the first: {missing[0]}"
            )
        rows = np.full(len(paths), NO_ROW, dtype=np.int64)
        failures = {}
        for place, (path, label) in enumerate(zip(paths, videos.labels.tolist(), strict=True)):
            if path in failed:
                failures[place] = Failure(path.decode(), failed[path].decode(errors="replace"))
                continue
            rows[place], stored = index[path]
            if self.entries.augmented and stored != label:
                raise ValueError(
                    f"feature cache {self.folder}: {path.decode()} has label {stored} in the cache, {label} in the "
                    "list; augmented views keep the labels that they were made with"
                )
        return rows, failures

    def _read_index(self) -> dict[bytes, tuple[int, int]]:
        """Row and label of every path; the first of a path that was listed twice."""
        index: dict[bytes, tuple[int, int]] = {}
        owners: dict[int, bytes] = {}
        num_rows = self.entries.shape[0]
        for number, line in enumerate(_lines(self.folder / INDEX), 1):
            where = f"{self.folder / INDEX}:{number}: damaged"
            if not (match := ROW.fullmatch(line)):
                raise ValueError(f"{where}, expected `row label path`, found {line[:60].decode(errors='replace')!r}")
            row, label, path = int(match[1]), int(match[2]), match[3]
            if row >= num_rows:
                raise ValueError(f"{where}, row {row}, but the cache has {num_rows}")
            if row in owners:
                both = f"{owners[row].decode(errors='replace')} and {path.decode(errors='replace')}"
                raise ValueError(f"{where}, row {row} belongs to both {both}")
            owners[row] = path
            index.setdefault(path, (row, label))
        return index

    def _read_failed(self, index: Container[bytes]) -> dict[bytes, bytes]:
        """Reasons of the videos that could not be read; none of them has a row."""
        failed = {}
        for number, line in enumerate(_lines(self.folder / FAILED), 1):
            path, tab, reason = line.rpartition(b"\t")
            if not tab or path in index:
                expected = "a path that the index does not have, a tab and a reason"
                found = line[:60].decode(errors="replace")
                raise ValueError(f"{self.folder / FAILED}:{number}: damaged, expected {expected}, found {found!r}")
            failed[path] = reason
        return failed


def _lines(path: Path) -> list[bytes]:
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise ValueError(f"{path}: damaged, its last line is cut")
    return content.split(b"\n")[:-1]


class FeatureVideos(Dataset):
    """Every video of a list with all its views; a batch at a time, because one by one Python would be the brake.

    The ``features`` of a batch are float16 [B, V, T, D]. The files are mapped anew for every batch, which costs a
    tenth of a millisecond: a mapping that is kept would be copied whole into workers that are not forked.
    """

    def __init__(self, cache: FeatureCache, videos: VideoList):
        self.cache, self.videos = cache, videos
        self.rows, self.failures = cache.rows(videos)
        cache.check_arrays(self.rows)

    def path(self, index: int) -> str:
        """Of a video, as the list names it."""
        return self.videos.path(index)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> Batch:
        readable = [index for index in indices if index not in self.failures]
        failed = [index for index in indices if index in self.failures]
        return self._batch(readable, slice(None), failed, [self.failures[index] for index in failed])

    def _batch(
        self, indices: list[int], views: slice | np.ndarray, failed: list[int], failures: list[Failure]
    ) -> Batch:
        stored = np.load(self.cache.folder / FEATURES, mmap_mode="r")
        # [B, V, T, D]; with one view a video, chosen by an array, [B, T, D]
        features = torch.from_numpy(np.asarray(stored[self.rows[indices], views]))
        if not features.isfinite().all():
            wrong = next(i for i, each in zip(indices, features, strict=True) if not each.isfinite().all())
            row = f"row {self.rows[wrong]}, of {self.path(wrong)}"
            raise ValueError(f"{self.cache.folder / FEATURES}: damaged, {row}, is not finite")
        return Batch(
            indices=torch.tensor(indices, dtype=torch.long),
            labels=torch.from_numpy(self.videos.labels[indices]),
            clips=None,
            features=features if indices else None,
            failed_indices=torch.tensor(failed, dtype=torch.long),
            failures=failures,
        )


class TrainFeatureVideos(FeatureVideos):
    """One of the V views of every video asked for by (epoch, index), chosen from (seed, epoch, index).

    A video that could not be read is replaced and reported as in ``TrainVideos``.
    """

    def __init__(self, cache: FeatureCache, videos: VideoList, seed: int):
        super().__init__(cache, videos)
        self.seed = seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        indices, views, failed, failures = [], [], [], []
        for epoch, index in keys:
            rng = np.random.default_rng((self.seed, epoch, index))
            for chosen in candidates(index, len(self), rng):
                if chosen not in self.failures:
                    indices.append(chosen)
                    views.append(int(rng.integers(self.cache.num_views)))
                    break
                failures.append(self.failures[chosen])
            else:
                failed.append(index)
        views = np.array(views, dtype=np.int64)
        batch = self._batch(indices, views, failed, failures)
        if batch.is_empty:
            return batch
        batch = batch._replace(features=batch.features[:, None])  # [B, 1, T, D]
        if not self.cache.entries.augmented:
            return batch
        labels = np.load(self.cache.folder / LABELS, mmap_mode="r")
        return batch._replace(labels=torch.from_numpy(np.asarray(labels[self.rows[indices], views])))
