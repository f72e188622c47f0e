"""Writes a feature cache so that it may be stopped anywhere and started again, by any number of processes.

The rows of a cache fall into chunks, each encoded as one batch by one process. Its features go to their place in
``features.npy``; when they are on disk, ``chunks/NUMBER.json`` appears (atomically) with its labels and failures. The
description of the cache stands in ``unfinished.json`` from the beginning; it becomes ``metadata.json`` as the last act.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from datasets.features.cache import CLASS_FEATURES, FAILED, FEATURES, FORMERLY, INDEX, LABELS, METADATA, read_metadata
from datasets.lists.records import VideoList
from utils.files import check_settings, read_json, write_text

UNFINISHED = "unfinished.json"


class FeatureWriter:
    """One cache that is being written.

    Args:
        metadata: everything that the bytes of the cache depend on; ``shape`` is [N, V, T, D].
        chunk_size: videos a chunk.
    """

    chunks: list[range]  # rows of each
    shape: tuple[int, int, int, int]  # [N, V, T, D]

    def __init__(self, folder: Path, videos: VideoList, metadata: dict, chunk_size: int):
        self.folder, self.videos, self.metadata = folder, videos, metadata
        self.shape = tuple(metadata["shape"])
        starts = range(0, len(videos), chunk_size)
        self.chunks = [range(start, min(start + chunk_size, len(videos))) for start in starts]

    def begin(self) -> list[int]:
        """Make the folder, or see that the work in it can be continued; on the main process, before all others.

        Returns:
            Numbers of the chunks that are to be written.

        Raises:
            ValueError: the folder holds a cache, finished or not, with other metadata; differences are named.
        """
        for name in (METADATA, UNFINISHED):
            if (self.folder / name).is_file():
                found = read_metadata(self.folder / name)
                check_settings(f"feature cache {self.folder}", found, FORMERLY | self.metadata, "remove it")
                return self._missing()
        shutil.rmtree(self.folder / "chunks", ignore_errors=True)
        (self.folder / "chunks").mkdir(parents=True)
        # Sparse: takes the disk space of the rows that are there.
        np.lib.format.open_memmap(self.folder / FEATURES, "w+", np.float16, self.shape)
        write_text(self.folder / UNFINISHED, json.dumps(self.metadata, indent=2) + "\n")
        return self._missing()

    def _missing(self) -> list[int]:
        if (self.folder / METADATA).is_file():
            return []
        return [number for number in range(len(self.chunks)) if not self._note(number).is_file()]

    def write(self, number: int, features: np.ndarray, labels: np.ndarray, failures: dict[str, str]) -> None:
        """Put one chunk on disk.

        Args:
            features: float16 [n, V, T, D], zero where the video could not be read.
            labels: int64 [n, V].
            failures: path -> reason.
        """
        with (self.folder / FEATURES).open("r+b") as file:
            # Not through a mapping: on network file systems that would rewrite neighbours' parts of a memory page.
            row_bytes = features[0].nbytes
            file.seek(os.fstat(file.fileno()).st_size - (len(self.videos) - self.chunks[number].start) * row_bytes)
            file.write(features.tobytes())
            file.flush()
            os.fsync(file.fileno())
        failures = {path: " ".join(reason.split()) for path, reason in failures.items()}  # one line, no tabs
        write_text(self._note(number), json.dumps({"labels": labels.tolist(), "failures": failures}))

    def finish(self, class_features: np.ndarray) -> None:
        """Write what is small, then declare the cache complete; on the main process, after all others."""
        if not (self.folder / METADATA).is_file():
            notes = [self._read_note(number) for number in range(len(self.chunks))]
            failures = {path: reason for note in notes for path, reason in note["failures"].items()}
            np.save(self.folder / LABELS, np.array([row for note in notes for row in note["labels"]], dtype=np.int64))
            np.save(self.folder / CLASS_FEATURES, class_features.astype(np.float32))
            index = [
                f"{row} {label} {path.decode()}\n"
                for row, (path, label) in enumerate(zip(self.videos.paths, self.videos.labels, strict=True))
                if path.decode() not in failures
            ]
            write_text(self.folder / INDEX, "".join(index))
            write_text(self.folder / FAILED, "".join(f"{p}\t{failures[p]}\n" for p in sorted(failures)))
            os.replace(self.folder / UNFINISHED, self.folder / METADATA)
        shutil.rmtree(self.folder / "chunks", ignore_errors=True)

    def failed(self) -> list[str]:
        """Paths of a complete cache that could not be read."""
        return [line.rsplit("\t", 1)[0] for line in (self.folder / FAILED).read_text(encoding="utf-8").split("\n")[:-1]]

    def _read_note(self, number: int) -> dict:
        note = read_json(self._note(number), "a finished chunk")
        rows, failures = note.get("labels"), note.get("failures")
        has_rows = isinstance(rows, list) and len(rows) == len(self.chunks[number])
        if not has_rows or any(len(row) != self.shape[1] for row in rows) or not isinstance(failures, dict):
            raise ValueError(f"{self._note(number)}: damaged; remove it, and its chunk is written once more")
        return note

    def _note(self, number: int) -> Path:
        return self.folder / "chunks" / f"{number:06d}.json"
