"""Transcripts of YT-Temporal's annotation files, cleaned and aligned once: python -m datasets.prepare transcripts

A video ``SUBSET/data/ID.mp4`` has the file ``SUBSET/annotations/ID.json``: ``subtitles`` are the recognised words with
their times, ``denoised`` are texts with spelling and punctuation mended, ``info.duration`` is in seconds. The path of a
video says where its annotations are, so any list of paths will do.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from ftfy import fix_text
from tqdm import tqdm

from datasets.lists.tables import find_table, numbered_lines, read_text
from datasets.lists.transcripts import VERSION, Transcript, join_parts, write_part
from datasets.lists.video_files import VIDEO_SUFFIXES
from datasets.prepare.alignment import aligned_words
from utils.files import claim_folder, no_file, remove_parts, whole_file, write_text
from utils.jobs import run_jobs
from utils.text import shown

logger = logging.getLogger(__name__)

COLUMN = "name"  # of the published tables of videos
VIDEOS_A_PART = 500
MOST_WORDS = 50_000  # eight hours of speech; the alignment's memory grows with the square
MOST_LETTERS = 1000  # of a word, which others are compared with letter by letter; longer ones are no speech
MOST_SECONDS = 10**7
PARTS, SETTINGS, FAILED = "parts", "settings.json", "failed.txt"


class BadTranscript(Exception):
    """Annotations that no transcript can be made of; the message is the reason."""


class Part(NamedTuple):
    """Some videos of a list, one file of the result."""

    annotations: Path
    place: Path
    paths: list[str]

    @property
    def failed(self) -> Path:
        """Where the videos that have none stand, with the reasons."""
        return self.place.with_suffix(".json")


def prepare_transcripts(source: Path, annotations: Path, out: Path, workers: int) -> dict[str, Any]:
    """Write the transcripts of all videos of a list; those done before are kept when it is started again.

    Args:
        source: a list with a path a line, or a published table with the column ``Name``.
        annotations: folder that ``SUBSET/annotations/ID.json`` starts from.

    Returns:
        ``num_videos`` and ``failed`` (path -> reason).

    Raises:
        FileNotFoundError, ValueError: no list or folder, or one that cannot be read; no video has a transcript.
    """
    if not annotations.is_dir():
        raise FileNotFoundError(f"{annotations}: no such folder of annotations")
    paths = read_paths(source)
    listed = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16]
    settings = {"version": VERSION, "list": listed, "annotations": str(annotations.resolve())}
    claim_folder(out / SETTINGS, settings)
    remove_parts(out)
    (out / PARTS).mkdir(exist_ok=True)
    parts = [
        Part(annotations, out / PARTS / f"{number:06d}.npz", paths[start : start + VIDEOS_A_PART])
        for number, start in enumerate(range(0, len(paths), VIDEOS_A_PART))
    ]
    missing = [part for part in parts if not (part.place.exists() and part.failed.exists())]
    with tqdm(total=len(paths), unit="video", disable=None) as progress:
        progress.update(len(paths) - sum(len(part.paths) for part in missing))
        for count in run_jobs(write_one, missing, workers):
            progress.update(count)
    failed = {path: reason for part in parts for path, reason in json.loads(part.failed.read_text()).items()}
    if len(failed) == len(paths):
        path, reason = next(iter(failed.items()))
        raise ValueError(f"{source}: none of {len(paths)} videos has a transcript; the first: {path} ({reason})")
    write_text(out / FAILED, "".join(f"{path}\t{reason}\n" for path, reason in failed.items()))
    join_parts(out, [part.place for part in parts], {"list": source.name})
    for path, reason in list(failed.items())[:3]:
        logger.warning("no transcript of %s (%s)", path, reason)
    return {"num_videos": len(paths) - len(failed), "failed": failed}


def read_paths(source: Path) -> list[str]:
    """The paths of a list, a path a line, or of a table with the column ``Name``.

    Raises:
        FileNotFoundError, ValueError: no such file; not text; a line that is no path of a video, or is there twice
            (FILE:LINE); no lines.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: {no_file(source)}")
    text = read_text(source)
    rows = list(numbered_lines(text))
    if table := find_table(source, text, (COLUMN,)):
        rows = [(line, row[COLUMN]) for line, row in zip(table.lines, table.rows, strict=True)]
    first: dict[str, int] = {}
    for line, path in rows:
        path = path.strip()
        if PurePosixPath(path).suffix.lower() not in VIDEO_SUFFIXES:
            raise ValueError(f"{source}:{line}: expected the path of a video file alone, found {shown(path)}")
        if path in first:
            raise ValueError(f"{source}:{line}: {shown(path)} is there twice, first in line {first[path]}")
        first[path] = line
    if not first:
        raise ValueError(f"{source}: no videos, expected a path a line or a column Name")
    return list(first)


def write_one(part: Part) -> int:
    """Write one part, and what could not be made; returns the number of its videos."""
    failed: dict[str, str] = {}
    write_part(part.place, _transcripts(part, failed))
    with whole_file(part.failed) as place:
        place.write_text(json.dumps(failed, ensure_ascii=False), encoding="utf-8")
    return len(part.paths)


def _transcripts(part: Part, failed: dict[str, str]) -> Iterator[tuple[str, Transcript]]:
    for path in part.paths:
        try:
            yield path, read_annotations(part.annotations / annotations_of(path))
        except BadTranscript as error:
            failed[path] = str(error)


def annotations_of(path: str) -> PurePosixPath:
    """Where the annotations of a video are: ``SUBSET/data/ID.mp4`` -> ``SUBSET/annotations/ID.json``."""
    video = PurePosixPath(path)
    return video.parent.parent / "annotations" / f"{video.stem}.json"


def read_annotations(path: Path) -> Transcript:
    """The transcript that annotations of one video make: recognised words' times, cleaned words.

    Raises:
        BadTranscript: no such file or not JSON; an entry is missing or of another kind; there are no words.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadTranscript(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadTranscript(f"{path}: not JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise BadTranscript(f"{path}: expected an object with subtitles, denoised and info, found {shown(content)}")
    try:
        return transcript_of(content)
    except BadTranscript as error:
        raise BadTranscript(f"{path}: {error}") from None


def transcript_of(content: dict[str, Any]) -> Transcript:
    """The same of the content of the file; the rules are the published ones.

    Words that are HTML entities (they begin with & or end with ;) are left out, and all words are mended by ftfy.
    """
    info = content.get("info")
    duration = info.get("duration") if isinstance(info, dict) else None
    if not _is_number(duration) or duration < 0:
        raise BadTranscript(f"info.duration: expected seconds, found {shown(duration)}")
    recognised = list(_recognised(content.get("subtitles")))
    cleaned = [fix_text(word) for text in _cleaned(content.get("denoised")) for word in text.split()]
    if not recognised or not cleaned:
        raise BadTranscript(f"no words in {'denoised' if recognised else 'subtitles'}")
    if len(recognised) > MOST_WORDS:
        raise BadTranscript(f"{len(recognised)} words, at most {MOST_WORDS} are aligned")
    words, times = zip(*recognised, strict=True)
    if (longest := max(map(len, (*words, *cleaned)))) > MOST_LETTERS:
        raise BadTranscript(f"a word of {longest} letters, at most {MOST_LETTERS} are aligned")
    aligned = aligned_words(list(words), cleaned)
    return Transcript(int(duration), np.array(times, dtype=np.float64), aligned)


def _recognised(subtitles: Any) -> Iterator[tuple[str, float]]:
    """Words and their times."""
    if not isinstance(subtitles, list):
        raise BadTranscript(f"subtitles: expected a list, found {shown(subtitles)}")
    for number, entry in enumerate(subtitles):
        word, time = (entry.get("word"), entry.get("time")) if isinstance(entry, dict) else (None, None)
        if not isinstance(word, str) or not _is_number(time):
            raise BadTranscript(f"subtitles[{number}]: expected a word and its time in seconds, found {shown(entry)}")
        if not (word.startswith("&") or word.endswith(";")):
            yield fix_text(word), time


def _cleaned(denoised: Any) -> Iterator[str]:
    if not isinstance(denoised, list):
        raise BadTranscript(f"denoised: expected a list, found {shown(denoised)}")
    for number, entry in enumerate(denoised):
        text = entry.get("cleanasr") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise BadTranscript(f"denoised[{number}]: expected a text cleanasr, found {shown(entry)}")
        yield text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST_SECONDS < value < MOST_SECONDS
