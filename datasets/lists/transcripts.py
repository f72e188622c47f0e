"""Transcripts of videos: words with the seconds at which they are said, cleaned and aligned once.

``python -m datasets.prepare transcripts`` writes a folder of plain arrays for N videos with W words in all, in
UTF-8 one after the other:

- ``paths.npy``: bytes [N], as the list of videos has them;
- ``durations.npy``: int64 [N], whole seconds of each video;
- ``first_words.npy``: int64 [N + 1], where the words of each video begin;
- ``times.npy``: float64 [W], seconds;
- ``word_ends.npy``: int64 [W], where each word ends in the text;
- ``text.npy``: uint8, all words; one may be empty, or be several words with blanks between;
- ``transcripts.json``: what they were made from. Written last: with it the folder is complete.

The arrays are mapped into memory: a visit reads the words of its video alone, and all loader workers share one copy.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import StrictInt

from datasets.lists.label_sets import NO_LABEL
from datasets.lists.records import VideoList
from utils.arrays import DAMAGED, map_array
from utils.files import PART, checked, no_file, read_json, whole_file, write_text

MANIFEST = "transcripts.json"
ARRAYS = {
    "paths": "bytes",
    "durations": "int64",
    "first_words": "int64",
    "times": "float64",
    "word_ends": "int64",
    "text": "uint8",
}
VERSION = 1


class Transcript(NamedTuple):
    """What is said in one video, W words."""

    duration: int  # whole seconds
    times: np.ndarray  # float64 [W], seconds
    words: list[str]


@dataclass(frozen=True)
class Manifest:
    """What ``transcripts.json`` holds, of which other entries are for people."""

    version: StrictInt
    num_videos: StrictInt
    num_words: StrictInt
    fingerprint: str  # of the arrays but the text


@dataclass(frozen=True)
class TranscriptList:
    """N videos and what is said in them."""

    folder: Path
    videos: VideoList
    arrays: dict[str, np.ndarray]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.videos)

    def __reduce__(self):
        return _mapped, (self.folder, self.videos.root)  # a process that is started anew maps the files itself

    def transcript(self, index: int) -> Transcript:
        """What is said in one video.

        Raises:
            UnicodeDecodeError: its words are damaged.
        """
        first, stop = self.arrays["first_words"][index : index + 2].tolist()
        ends = self.arrays["word_ends"][first:stop].tolist()
        start = int(self.arrays["word_ends"][first - 1]) if first else 0
        text = self.arrays["text"][start : ends[-1]].tobytes()
        begins = [start, *ends[:-1]]
        words = [text[a - start : b - start].decode() for a, b in zip(begins, ends, strict=True)]
        return Transcript(int(self.arrays["durations"][index]), self.arrays["times"][first:stop], words)


def read_transcripts(folder: str | Path, root: str | Path, prefix: str) -> TranscriptList:
    """Open what ``write_transcripts`` wrote.

    Args:
        root: folder that the paths of videos start from.
        prefix: what the keys of list and root begin with, for errors: ``data.sources[0].``.

    Raises:
        FileNotFoundError: there are no (finished) transcripts, or no root.
        ValueError: they are damaged, or there is no video in them.
    """
    if not str(folder):
        raise ValueError(f"{prefix}list is not set: it names the folder of transcripts")
    path = Path(folder, MANIFEST)
    if not path.is_file():
        raise FileNotFoundError(
            f"{prefix}list {str(folder)!r}: expected a folder of transcripts, found no {MANIFEST} ({no_file(path)}); "
            "python -m datasets.prepare transcripts writes one (start it again if it was stopped)"
        )
    if root and not Path(root).is_dir():
        raise FileNotFoundError(f"{prefix}root {str(root)!r}: no such folder")
    return _mapped(Path(folder), str(root))


def _mapped(folder: Path, root: str) -> TranscriptList:
    manifest = checked(Manifest, read_json(folder / MANIFEST, "the description of transcripts"), folder / MANIFEST)
    if manifest.version != VERSION:
        raise ValueError(f"{folder / MANIFEST}: version: expected {VERSION}, found {manifest.version}; write it anew")
    arrays = {name: map_array(folder / f"{name}.npy", kind, (None,)) for name, kind in ARRAYS.items()}
    num_videos, num_words = manifest.num_videos, manifest.num_words
    sizes = {"paths": num_videos, "durations": num_videos, "first_words": num_videos + 1, "times": num_words}
    for name, size in (sizes | {"word_ends": num_words}).items():
        if len(arrays[name]) != size:
            raise ValueError(f"{folder / name}.npy: damaged, expected {size} entries, found {len(arrays[name])}")
    if not num_videos:
        raise ValueError(f"{folder}: there is no video in these transcripts")
    ends_with_text = not num_words or arrays["word_ends"][-1] == len(arrays["text"])
    if fingerprint(arrays) != manifest.fingerprint or not ends_with_text:
        raise ValueError(f"{folder}: damaged, {MANIFEST} and the arrays beside it do not belong together")
    labels = np.full(num_videos, NO_LABEL, dtype=np.int64)
    return TranscriptList(folder, VideoList(root, arrays["paths"], labels, None), arrays, manifest.fingerprint)


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """Hash of the paths, the durations and where everything lies, in their order (SHA-256, 16 hex digits)."""
    digest = hashlib.sha256()
    for name in ("paths", "durations", "first_words"):
        digest.update(np.ascontiguousarray(arrays[name]))
    digest.update(np.int64(len(arrays["text"])))
    return digest.hexdigest()[:16]


def write_transcripts(folder: Path, transcripts: Iterable[tuple[str, Transcript]], about: dict[str, Any]) -> None:
    """Write (path, transcript) of a few videos, as ``join_parts`` does for many."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"all{PART}"
    try:
        write_part(part, transcripts)
        join_parts(folder, [part], about)
    finally:
        part.unlink(missing_ok=True)


def write_part(path: Path, transcripts: Iterable[tuple[str, Transcript]]) -> None:
    """Write (path, transcript) of some videos, each with at least one word, as arrays in one file.

    Raises:
        ValueError: a transcript has no words, or the time of one is not a number.
    """
    paths, durations, counts, times, words = [], [], [], [np.zeros(0)], []
    for name, transcript in transcripts:
        if not transcript.words or not np.isfinite(transcript.times).all():
            raise ValueError(f"{name}: a transcript needs words, each with a time in seconds")
        paths.append(name.encode(errors="surrogateescape"))
        durations.append(transcript.duration)
        counts.append(len(transcript.words))
        times.append(np.asarray(transcript.times, dtype=np.float64))
        words += [word.encode() for word in transcript.words]
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(
            file, paths=np.array(paths, dtype=bytes), durations=np.array(durations, dtype=np.int64),
            first_words=np.cumsum([0, *counts], dtype=np.int64), times=np.concatenate(times),
            word_ends=np.cumsum([len(word) for word in words], dtype=np.int64),
            text=np.frombuffer(b"".join(words), dtype=np.uint8),
        )  # fmt: skip


def join_parts(folder: Path, parts: Sequence[Path], about: dict[str, Any]) -> None:
    """Make one folder of transcripts of the files that ``write_part`` wrote, one after the other.

    Args:
        about: what they were made from, for people.

    Raises:
        ValueError: a part is damaged.
    """
    sizes = [{name: array.shape[0] for name, array in _read_part(part).items()} for part in parts]
    widest = max(_read_part(part)["paths"].dtype.itemsize for part in parts)
    totals = {name: sum(size[name] for size in sizes) for name in ARRAYS}
    totals["first_words"] -= len(parts) - 1
    joined = {}
    with ExitStack() as files:
        for name, kind in ARRAYS.items():
            place = files.enter_context(whole_file(folder / f"{name}.npy"))
            kind = f"S{max(widest, 1)}" if kind == "bytes" else kind
            joined[name] = np.lib.format.open_memmap(place, mode="w+", dtype=kind, shape=(totals[name],))
        filled = dict.fromkeys(ARRAYS, 0)
        for part, size in zip(parts, sizes, strict=True):
            for name, array in _read_part(part).items():
                start = filled[name]
                # Places count from the first word, and from the first byte, of all parts.
                shift = {"first_words": filled["times"], "word_ends": filled["text"]}.get(name, 0)
                joined[name][start : start + len(array)] = array + shift if shift else array
            filled = {name: filled[name] + size[name] - (name == "first_words") for name in ARRAYS}
        for array in joined.values():
            array.flush()
        manifest = {
            "version": VERSION,
            "num_videos": totals["paths"],
            "num_words": totals["times"],
            "fingerprint": fingerprint(joined),
        }
    write_text(folder / MANIFEST, json.dumps(manifest | about, indent=1, ensure_ascii=False) + "\n")


def _read_part(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as part:
            return {name: part[name] for name in ARRAYS}
    except (zipfile.BadZipFile, zlib.error, KeyError, *DAMAGED) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and start again") from None
