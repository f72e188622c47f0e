"""Official annotations of videos and texts to the lines of a list: one pure function per data set.

Every function takes the annotation file, or a folder that is searched, and knows the official files and those that
TVTSv2's repository publishes. ``datasets.prepare`` finds the videos.
"""

import json
import pickle
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets.lists.tables import numbered_lines, read_table, read_text
from datasets.lists.video_files import bare_name
from datasets.prepare.official import find_annotations, json_of
from utils.text import shown


class WantedTexts(NamedTuple):
    """A line that a list wants."""

    name: str  # of the video's file, without folder and suffix
    fields: tuple[str, ...]  # behind the path: a caption; or the answer's number and the options


class TextSet(NamedTuple):
    """How the official material of a data set with texts is read."""

    read: Callable[[Path], list[WantedTexts]]
    list_name: str
    example: str  # of a video file, for errors
    count: int  # official number of lines; 0: copies differ


# --- MSR-VTT: the 1000 pairs of split 1k-A

JSFUSION = "MSRVTT_JSFUSION_test.csv"
CAPTION_FILES = ("MSR_VTT.json", "*videodatainfo.json")
CAPTION_KEYS = (("annotations", "image_id"), ("sentences", "video_id"))  # of a list, and of a video's name in it
PAIRS = "val_list_jsfusion.txt"
CHOSEN = "jsfusion_val_caption_idx.pkl"  # a pickled dict: which of a video's captions


def msrvtt(annotations: Path) -> list[WantedTexts]:
    """The CSV of pairs; or the JSON of all captions, with the list of test videos and the number of each one's caption.

    Sorted by name, as published.

    Raises:
        FileNotFoundError, ValueError: a file is missing or not as expected; a video has no such caption.
    """
    if table := _first(annotations, JSFUSION, "*.csv"):
        found = read_table(table, ("video_id", "sentence"))
        return sorted(WantedTexts(row["video_id"], (row["sentence"],)) for row in found.rows)
    needed = f"{JSFUSION}, or {CAPTION_FILES[0]} with {PAIRS} and {CHOSEN}"
    source = next((path for name in CAPTION_FILES if (path := _first(annotations, name))), None)
    names, chosen = _first(annotations, PAIRS), _first(annotations, CHOSEN)
    if not (source and names and chosen):
        raise FileNotFoundError(f"--annotations {annotations}: expected {needed}")
    captions, places = _captions_of(source), plain_pickle(chosen)
    texts = []
    for line, name in sorted(numbered_lines(read_text(names)), key=lambda pair: pair[1].strip()):
        name, place = name.strip(), places.get(name.strip())
        if not isinstance(place, int) or not 0 <= place < len(captions[name]):
            raise ValueError(
                f"{names}:{line}: {name} has {len(captions[name])} captions in {source.name}, and {chosen.name} names "
                f"number {place}, from 0"
            )
        texts.append(WantedTexts(name, (captions[name][place],)))
    return texts


def _captions_of(path: Path) -> Mapping[str, list[str]]:
    """The captions of each video, in the order of the file."""
    content, captions = json_of(path, dict), defaultdict(list)
    for key, of_video in CAPTION_KEYS:
        for number, record in enumerate(content.get(key, ())):
            name, caption = (record.get(field) if isinstance(record, dict) else None for field in (of_video, "caption"))
            if not isinstance(name, str) or not isinstance(caption, str):
                expected = f"an object with {of_video} and caption"
                raise ValueError(f"{path}: {key}, record {number}: expected {expected}, found {shown(record)}")
            captions[name].append(caption)
    if not captions:
        raise ValueError(f"{path}: expected an object with annotations or sentences, found {shown(list(content))}")
    return captions


class _PlainUnpickler(pickle.Unpickler):
    """Makes nothing but Python's plain values, so that no code in the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"it holds a {module}.{name}, expected a dict of texts and whole numbers only")


def plain_pickle(path: Path) -> dict[str, int]:
    """A pickled dict of texts to whole numbers; what else a pickle may hold is refused before it is made.

    Raises:
        ValueError: it is another, or damaged.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        LookupError,
        TypeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(f"{path}: not a pickled dict that can be read ({type(error).__name__})") from None
    is_plain = isinstance(content, dict) and all(
        type(key) is str and type(value) is int for key, value in content.items()
    )
    if not is_plain:
        raise ValueError(f"{path}: expected a dict of texts and whole numbers, found {shown(content)}")
    return content


# --- DiDeMo: the sentences of a video are one paragraph


def didemo(annotations: Path) -> list[WantedTexts]:
    """The published table of paragraphs and paths; or ``test_data.json``, whose sentences of a video are joined.

    Raises:
        FileNotFoundError, ValueError: none of them, or not as expected.
    """
    if table := _first(annotations, "DiDeMo_test.tsv", "*.tsv"):
        columns, rows = _rows(table, lambda fields: _is_path(fields[-1]), "caption TAB path")
        caption, path = _places(columns, {"caption": 0, "video": 1})
        return [WantedTexts(bare_name(fields[path]), (fields[caption],)) for _, fields in rows]
    paragraphs: dict[str, list[str]] = defaultdict(list)
    for source in find_annotations(annotations, "test_data.json", "DiDeMo_test.tsv or test_data.json")[:1]:
        for number, record in enumerate(json_of(source, list)):
            video, sentence = (
                record.get(key) if isinstance(record, dict) else None for key in ("video", "description")
            )
            if not isinstance(video, str) or not isinstance(sentence, str):
                raise ValueError(
                    f"{source}: record {number}: expected an object with video and description, found {shown(record)}"
                )
            paragraphs[bare_name(video)].append(sentence.strip())
    return [WantedTexts(name, (" ".join(sentences),)) for name, sentences in paragraphs.items()]


def _is_path(text: str) -> bool:
    """Whether a field can be a video's path, and not a word of a header."""
    return bare_name(text) != text or re.search(r"[/@\d]", text) is not None


# --- LSMDC: the public test set of 1000 clips

CLIP = re.compile(r".+_\d\d\.\d\d\.\d\d\.\d+-\d\d\.\d\d\.\d\d\.\d+")  # MOVIE_START-END


def lsmdc(annotations: Path) -> list[WantedTexts]:
    """A table with tabs, clip first and sentence last; with a header or, as the official one, without.

    Raises:
        FileNotFoundError, ValueError: no such file, or not as expected.
    """
    source = _first(annotations, "LSMDC16_challenge_1000_publictect.csv", "*.csv")
    if source is None:
        raise FileNotFoundError(f"--annotations {annotations}: expected LSMDC16_challenge_1000_publictect.csv")
    columns, rows = _rows(source, lambda fields: CLIP.fullmatch(fields[0]), "clip TAB ... TAB sentence")
    clip, sentence = _places(columns, {"clip": 0, "sentence": -1})
    for line, fields in rows:
        if not CLIP.fullmatch(fields[clip]):
            raise ValueError(f"{source}:{line}: expected MOVIE_START-END of a clip, found {shown(fields[clip])}")
    return [WantedTexts(fields[clip], (fields[sentence],)) for _, fields in rows]


# --- Something-Something V2, multiple choice


def ssv2_mc(annotations: Path) -> list[WantedTexts]:
    """``val.jsonl``: an object a line with ``clip_name``, ``options`` and ``answer``, a number from 0 or its digits.

    Raises:
        FileNotFoundError, ValueError: no such file, or a line is something else.
    """
    texts = []
    for source in find_annotations(annotations, "val.jsonl", "val.jsonl of TVTSv2's multiple choice")[:1]:
        for line, text in numbered_lines(read_text(source)):
            try:
                record = json.loads(text)
                name, options, answer = record["clip_name"], record["options"], int(str(record["answer"]))
                is_right = 0 <= answer < len(options) and all(isinstance(each, str) for each in (name, *options))
            except (ValueError, KeyError, TypeError, RecursionError):
                is_right = False
            if not is_right:
                expected = "an object with clip_name, options and the number of the answer, from 0"
                raise ValueError(f"{source}:{line}: expected {expected}, found {shown(text)}")
            texts.append(WantedTexts(bare_name(name), (str(answer), *options)))
    return texts


# --- files


def _first(annotations: Path, *patterns: str) -> Path | None:
    """The annotation file itself, if it fits the last pattern, or the first file below a folder that fits the first."""
    if annotations.is_dir():
        return next(iter(sorted(annotations.rglob(patterns[0]))), None)
    return annotations if annotations.is_file() and annotations.match(patterns[-1]) else None


def _rows(path: Path, is_row: Callable[[list[str]], Any], form: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, if the first line is a header, and the rows, each with its line; fields have tabs between.

    Such a file has no rule of quotes: only one that is quoted as a whole is taken out of them.

    Args:
        is_row: whether fields are those of a row; else the first line is a header.

    Raises:
        ValueError: a line has fewer than two fields, or another number than the first; nothing is there.
    """
    lines = [(line, [_unquoted(field) for field in text.split("\t")]) for line, text in numbered_lines(read_text(path))]
    for line, fields in lines:
        if len(fields) < 2 or len(fields) != len(lines[0][1]):
            raise ValueError(f"{path}:{line}: expected '{form}' as in the first line, found {shown(fields)}")
    columns = [field.strip().lower() for field in lines[0][1]] if lines and not is_row(lines[0][1]) else []
    rows = lines[bool(columns) :]
    if not rows:
        raise ValueError(f"{path}: expected lines '{form}', found none")
    return columns, rows


def _unquoted(field: str) -> str:
    quoted = re.fullmatch('"((?:[^"]|"")*)"', field)
    return quoted[1].replace('""', '"') if quoted else field


def _places(columns: list[str], wanted: Mapping[str, int]) -> list[int]:
    """Where the wanted columns are: by their names in a header, else as ``wanted`` says."""
    return [columns.index(name) if name in columns else place for name, place in wanted.items()]


TEXT_SETS = {
    "msrvtt": TextSet(msrvtt, "test_1ka.tsv", "video7010.mp4", 1000),
    "didemo": TextSet(didemo, "test.tsv", "54322086@N00_2408598493_274c77d26a.mp4", 0),
    "lsmdc": TextSet(lsmdc, "test.tsv", "1004_Juno/1004_Juno_00.00.32.428-00.00.35.276.avi", 1000),
    "ssv2_mc": TextSet(ssv2_mc, "val_mc.tsv", "78687.webm", 24777),
}
