"""Official annotations to the videos that each list wants: one pure function per data set.

Every function takes the annotation files (a file, or a folder that is searched) and the files that are there; only
UCF-101 looks at the latter, whose file names say it all. ``datasets.prepare`` finds the wanted videos.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from datasets.lists.tables import numbered_lines, read_table, read_text
from datasets.lists.video_files import VideoFiles, bare_name, class_key
from utils.text import shown


class Wanted(NamedTuple):
    """A video that a list wants."""

    part: str  # the list: train, val, test_split1, ...
    names: tuple[str, ...]  # file names without suffix, best first; "class/name": only in that class's folder
    class_folder: str  # official name of the class; "": the video is known, but has no public label


class Official(NamedTuple):
    """How the official material of a data set is read."""

    labels: str  # its label file's folder in lists/
    read: Callable[[Path, VideoFiles], list[Wanted]]
    example: str  # of a video file, for errors
    counts: Mapping[str, int] = MappingProxyType({})  # official number of videos a part, where all copies agree
    subsets: tuple[str, ...] = ()  # folders in lists/<labels>/ with fewer classes: further val lists
    needs_annotations: bool = True


ALL = "all"  # the list of all videos with a label, whatever their split, of the merged zero-shot test


def _and_all(wanted: list[Wanted]) -> list[Wanted]:
    """The same, and every video with a label once more in ``ALL``; some are there twice then."""
    return wanted + [video._replace(part=ALL) for video in wanted if video.class_folder]


# --- UCF-101

UCF_NAME = re.compile(r"v_(\w+)_g(\d\d)_c\d\d", re.IGNORECASE)
UCF_TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}


def ucf101(annotations: Path | None, files: VideoFiles) -> list[Wanted]:
    """Three splits by the group number in ``v_Class_gNN_cNN``, and all; official split files must say the same.

    Raises:
        ValueError: the split files differ from the rule (files are named).
    """
    if annotations:
        return _and_all(_ucf101_split_files(annotations))
    names = sorted({bare_name(path) for path in files.paths})
    return _and_all(
        [
            Wanted(_ucf_part(name, split), (name,), UCF_NAME.fullmatch(name)[1])
            for split in UCF_TEST_GROUPS
            for name in names
            if UCF_NAME.fullmatch(name)
        ]
    )


def _ucf_part(name: str, split: int) -> str:
    group = int(UCF_NAME.fullmatch(name)[2])
    return f"{'test' if group in UCF_TEST_GROUPS[split] else 'train'}_split{split}"


def _ucf101_split_files(annotations: Path) -> list[Wanted]:
    paths = find_annotations(annotations, "*list0[123].txt", "trainlist01.txt, testlist01.txt, ...")
    class_ids = _ucf_class_ids(annotations)
    wanted, differences = [], []
    for path in paths:
        part = f"{'test' if path.name.lower().startswith('test') else 'train'}_split{path.stem[-1]}"
        for line_number, line in numbered_lines(read_text(path)):
            video, *label = line.split()
            name = bare_name(video)
            if not UCF_NAME.fullmatch(name) or len(label) > 1:
                raise ValueError(f"{path}:{line_number}: expected 'Class/v_Class_g01_c01.avi [id]', found {line!r}")
            class_folder = UCF_NAME.fullmatch(name)[1]
            is_other_class = label and class_ids and class_ids.get(label[0]) != class_key(class_folder)
            if _ucf_part(name, int(path.stem[-1])) != part or is_other_class:
                differences.append(f"{path.name}:{line_number} {line}")
            wanted.append(Wanted(part, (name,), class_folder))
    if differences:
        raise ValueError(
            f"{annotations}: {len(differences)} lines differ from the rule (test split 1 is groups 1-7, 2 is 8-14, "
            f"3 is 15-21; ids as in classInd.txt): {'; '.join(differences[:5])}"
        )
    return wanted


def _ucf_class_ids(annotations: Path) -> dict[str, str]:
    """``classInd.txt``, if it is there: id -> class key."""
    paths = sorted(annotations.rglob("classInd.txt")) if annotations.is_dir() else []
    rows = [line.split() for path in paths[:1] for _, line in numbered_lines(read_text(path))]
    return {row[0]: class_key(row[-1]) for row in rows}


# --- HMDB-51


def hmdb51(annotations: Path, files: VideoFiles) -> list[Wanted]:
    """``<class>_test_split<k>.txt`` with lines ``name.avi 0|1|2``: 1 trains, 2 tests, 0 does neither in split k.

    All three uses are in ``ALL``.
    """
    wanted = []
    for path in find_annotations(annotations, "*_test_split[123].txt", "<class>_test_split1.txt, ..."):
        class_folder, split = path.stem.rsplit("_test_split", 1)
        for line_number, line in numbered_lines(read_text(path)):
            video, _, use = line.strip().rpartition(" ")
            if use not in ("0", "1", "2"):
                raise ValueError(f"{path}:{line_number}: expected 'name.avi 0|1|2', found {line!r}")
            names = (f"{class_folder}/{bare_name(video.strip())}",)
            wanted.append(Wanted(ALL, names, class_folder))
            if use != "0":
                wanted.append(Wanted(f"{'train' if use == '1' else 'test'}_split{split}", names, class_folder))
    return wanted


# --- Kinetics

KINETICS_PARTS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


def kinetics(annotations: Path, files: VideoFiles) -> list[Wanted]:
    """CSV files with the columns ``label,youtube_id,time_start,time_end,split``; test may lack labels.

    A file is ``ID_000010_000020.*``, or ``ID.*`` where only one clip of that id is annotated.
    """
    clips = []
    for path in find_annotations(
        annotations, "*.csv", "train.csv, val.csv with label,youtube_id,time_start,time_end,split"
    ):
        table = read_table(path, ("youtube_id", "time_start", "time_end", "split"))
        for line, row in zip(table.lines, table.rows, strict=True):
            video, part = row["youtube_id"], KINETICS_PARTS.get(row["split"].lower())
            try:
                start, end = int(float(row["time_start"])), int(float(row["time_end"]))
            except (ValueError, OverflowError):  # the latter of an infinity
                part = None
            label = row.get("label", "")
            if not video or not part or not (label or part == "test"):
                raise ValueError(
                    f"{path}:{line}: expected a label, an id, two times in seconds and train, val or test, "
                    f"found {shown(','.join(row.values()))}"
                )
            clips.append((part, video, f"{video}_{start:06d}_{end:06d}", label))
    clips = list(dict.fromkeys(clips))  # some releases list a clip in two files
    count = Counter(video for _, video, _, _ in clips)
    return [Wanted(part, (name, video) if count[video] == 1 else (name,), label) for part, video, name, label in clips]


# --- Something-Something V2


def something_v2(annotations: Path, files: VideoFiles) -> list[Wanted]:
    """The train, validation and test JSON files: ``id`` and ``template`` with ``[something]``; test has no labels."""
    wanted = []
    parts = {"train": "train", "validation": "val", "test": "test"}
    for path in find_annotations(annotations, "*.json", "something-something-v2-train.json, ...-validation.json"):
        part = parts.get(path.stem.lower().removeprefix("something-something-v2-"))
        if not part:  # labels.json: what the label file of this repository was made from
            continue
        for number, record in enumerate(json_of(path, list)):
            is_object = isinstance(record, dict) and isinstance(record.get("template", ""), str)
            if not is_object or not record.get("id") or (part != "test" and not record.get("template")):
                raise ValueError(
                    f"{path}: record {number}: expected an object with id and template, found {shown(record)}"
                )
            template = record.get("template", "").replace("[", "").replace("]", "")
            wanted.append(Wanted(part, (str(record["id"]),), template))
    return wanted


# --- ActivityNet


def activitynet(annotations: Path, files: VideoFiles) -> list[Wanted]:
    """``activity_net.v1-3.min.json``; a whole video gets the class that fills most of its annotated seconds.

    Videos are not cut. Few have segments of several classes; a tie goes to the first name. Testing has no labels.
    """
    wanted = []
    parts = {"training": "train", "validation": "val", "testing": "test"}
    for path in find_annotations(annotations, "activity_net*.json", "activity_net.v1-3.min.json")[:1]:
        database = json_of(path, dict).get("database")
        if not isinstance(database, dict):
            raise ValueError(f"{path}: expected an object with the key database")
        for video, record in database.items():
            if not isinstance(record, dict) or str(record.get("subset")) not in parts:
                raise ValueError(
                    f"{path}: {shown(video)}: expected subset training, validation or testing, found {shown(record)}"
                )
            part = parts[record["subset"]]
            label = "" if part == "test" else _longest_label(f"{path}: {video}", record.get("annotations", []))
            wanted.append(Wanted(part, (f"v_{video}", video), label))
    return _and_all(wanted)


def _longest_label(where: str, segments: list[dict]) -> str:
    seconds: dict[str, float] = defaultdict(float)
    for segment in segments if isinstance(segments, list) else [segments]:
        try:
            start, end = map(float, segment["segment"])
            seconds[str(segment["label"])] += end - start
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"{where}: expected a label and a segment of two times, found {shown(segment)}") from None
    if not seconds:
        raise ValueError(f"{where}: expected annotations with segment and label, found none")
    return min(seconds, key=lambda label: (-seconds[label], label))


# --- files


def find_annotations(annotations: Path, pattern: str, expected: str) -> list[Path]:
    """The annotation file itself, or the files below a folder that fit a pattern; sorted."""
    paths = sorted(annotations.rglob(pattern)) if annotations.is_dir() else [annotations]
    if not paths or not paths[0].is_file():
        raise FileNotFoundError(f"--annotations {annotations}: expected {expected}")
    return paths


def json_of(path: Path, kind: type) -> Any:
    """What a JSON file holds, a list or an object (``kind``)."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise ValueError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(content, kind):
        expected = "a list" if kind is list else "an object"
        raise ValueError(f"{path}: expected {expected}, found {type(content).__name__}")
    return content


SPLITS = (1, 2, 3)
KINETICS_EXAMPLE = "abseiling/-3B32lodo2M_000059_000069.mp4 or -3B32lodo2M.mp4"
OFFICIAL = {
    "ucf101": Official(
        "ucf101",
        ucf101,
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        {"train_split1": 9537, "test_split1": 3783, "train_split2": 9586, "test_split2": 3734, "train_split3": 9624,
         "test_split3": 3696, ALL: 13320},
        needs_annotations=False,
    ),
    "hmdb51": Official(
        "hmdb51",
        hmdb51,
        "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        {f"{part}_split{split}": count for part, count in (("train", 3570), ("test", 1530)) for split in SPLITS}
        | {ALL: 6766},
    ),
    "kinetics400": Official("kinetics400", kinetics, KINETICS_EXAMPLE),
    "kinetics600": Official(
        "kinetics600", kinetics, KINETICS_EXAMPLE, subsets=tuple(f"zero_shot_split{split}" for split in SPLITS)
    ),
    "something-v2": Official("something_v2", something_v2, "78687.webm", {"train": 168913, "val": 24777}),
    "activitynet": Official("activitynet", activitynet, "v_QOlSCBRmfWY.mp4", {"train": 10024, "val": 4926, ALL: 14950}),
}  # fmt: skip
