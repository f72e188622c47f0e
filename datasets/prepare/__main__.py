"""Write list files from official annotations, or from a folder per class.

    python -m datasets.prepare kinetics400 --videos data/kinetics400 --annotations DIR --out lists/kinetics400
    python -m datasets.prepare msrvtt --videos data/msrvtt --annotations DIR --out lists/msrvtt
    python -m datasets.prepare folder --videos DIR --out lists/mine
    python -m datasets.prepare transcripts lists/yttemporal/train.txt --annotations DIR --out lists/yttemporal/train

Labels are those of the label files in ``lists/``. The report says what was found, what is missing and what is not
wanted; all names are in ``prepare_report.json`` beside the lists.
"""

import argparse
import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets.lists.captions import list_text, read_captions, read_choices
from datasets.lists.class_folders import SPLIT_SEED, read_class_folders
from datasets.lists.labels import read_label_table
from datasets.lists.records import VideoList, read_video_list, write_video_list
from datasets.lists.video_files import VIDEO_SUFFIXES, VideoFiles, class_key
from datasets.prepare.matching import Match, match, part_folders
from datasets.prepare.official import OFFICIAL, Official, Wanted
from datasets.prepare.summary import list_entry, summary
from datasets.prepare.texts import TEXT_SETS
from datasets.prepare.training_texts import TRAINING_SETS, prepare_training, training_summary
from datasets.prepare.transcripts import prepare_transcripts
from utils.cli import run_main
from utils.files import write_text

LISTS = Path(__file__).resolve().parents[2] / "lists"
REPORT = "prepare_report.json"
MOST_WORKERS = 1024


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m datasets.prepare", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name in (*OFFICIAL, *TEXT_SETS, *TRAINING_SETS, "folder"):
        command = commands.add_parser(name)
        command.add_argument("--videos", type=Path, required=True, help="folder that holds the videos, at any depth")
        command.add_argument("--out", type=Path, required=True, help="folder of the lists")
        if name == "folder":
            command.add_argument("--val_share", type=float, default=0.2, help="of each class (default: %(default)s)")
            command.add_argument("--seed", type=int, default=SPLIT_SEED, help="of the split (default: %(default)s)")
        else:
            needed = name not in OFFICIAL or OFFICIAL[name].needs_annotations
            command.add_argument("--annotations", type=Path, required=needed, help="official files, or their folder")
    cores = len(os.sched_getaffinity(0))
    command = commands.add_parser("transcripts", help="words aligned to their times, once and for all")
    command.add_argument("list", metavar="LIST", type=Path, help="a path a line, or a table with the column Name")
    command.add_argument("--annotations", type=Path, required=True, help="folder of SUBSET/annotations/ID.json")
    command.add_argument("--out", type=Path, required=True, help="folder to write; one that was begun is continued")
    command.add_argument("--workers", type=int, default=cores, help="processes; 0: this one (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Write the lists; prints a summary, and returns what ``prepare_report.json`` holds."""
    args = parse_args(argv)
    if args.dataset == "transcripts":
        if not 0 <= args.workers <= MOST_WORKERS:
            raise ValueError(f"--workers: expected 0 to {MOST_WORKERS}, found {args.workers}")
        report = prepare_transcripts(args.list, args.annotations, args.out, args.workers)
        left_out = f", {len(report['failed']):,} left out (failed.txt says why)" if report["failed"] else ""
        sys.stdout.write(f"transcripts of {report['num_videos']:,} videos{left_out}; data.sources: list: {args.out}\n")
        return report
    if args.dataset == "folder":
        if not 0.0 < args.val_share < 1.0:
            raise ValueError(f"--val_share: expected a share between 0 and 1, found {args.val_share}")
        report = prepare_folder(args.videos, args.out, args.val_share, args.seed)
    elif args.dataset in TEXT_SETS:
        report = prepare_texts(args.dataset, args.videos, args.annotations, args.out)
    elif args.dataset in TRAINING_SETS:
        report = prepare_training(args.dataset, args.videos, args.annotations, args.out)
    else:
        report = prepare_official(args.dataset, args.videos, args.annotations, args.out)
    write_text(args.out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write((training_summary if args.dataset in TRAINING_SETS else summary)(report, args.out / REPORT))
    return report


def prepare_folder(videos: Path, out: Path, val_share: float, seed: int) -> dict[str, Any]:
    """Lists and label file of a folder per class, see ``read_class_folders``."""
    split = read_class_folders(videos, val_share, seed)
    split.write(out)
    lists = {
        f"{part}.txt": list_entry(videos, split.folders, pairs, [], split.videos(part).fingerprint())
        for part, pairs in split.parts.items()
    }
    num_files = sum(len(pairs) for pairs in split.parts.values())
    return {"dataset": "folder", "videos": str(videos), "num_files": num_files, "lists": lists}


def prepare_official(name: str, videos: Path, annotations: Path | None, out: Path) -> dict[str, Any]:
    """Lists of one of the data sets of ``datasets.prepare.official``.

    Raises:
        FileNotFoundError, ValueError: videos or annotations missing or not as expected; a class that the label file
            does not have; no wanted video found at all.
    """
    official, files = OFFICIAL[name], VideoFiles(videos)
    wanted = list(dict.fromkeys(official.read(annotations, files)))
    _check_classes(wanted, LISTS / official.labels / "labels.csv")
    folders = part_folders(wanted, files)
    matches = match(wanted, files, folders)
    if not any(found.path for found in matches if found.wanted.class_folder):
        raise ValueError(_no_video(name, official.example, files))
    lists = {}
    for path, part, label_file in _lists(official, wanted):
        mine = [found for found in matches if found.wanted.part == part]
        lists[path] = _write_list(out / path, mine, videos, folders[part], label_file)
        lists[path]["official"] = official.counts.get(part) if path == f"{part}.txt" else None
    known = {path for found in matches for path in (found.path, *found.others)}
    return {
        "dataset": name,
        "videos": str(videos),
        "num_files": len(files),
        "lists": lists,
        "duplicates": {found.path: found.others for found in matches if found.others},
        "extra": [path for path in files.paths if path not in known],
        "num_unlisted": len({video.names for video in wanted} - {v.names for v in wanted if v.class_folder}),
    }


def prepare_texts(name: str, videos: Path, annotations: Path, out: Path) -> dict[str, Any]:
    """The list of one of the data sets of ``datasets.prepare.texts``; videos that are missing are not in it.

    Raises:
        FileNotFoundError, ValueError: videos or annotations missing or not as expected; no wanted video found at all.
    """
    text_set, files = TEXT_SETS[name], VideoFiles(videos)
    wanted = text_set.read(annotations)
    found = {each.name: files.find(each.name) for each in wanted}
    lines = [(found[each.name][0], *each.fields) for each in wanted if found[each.name]]
    if not lines:
        raise ValueError(_no_video(name, text_set.example, files))
    path = out / text_set.list_name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, list_text(lines))
    read = read_choices if name.endswith("_mc") else read_captions
    entry = {
        "root": str(videos),
        "num_videos": sum(bool(paths) for paths in found.values()),
        "num_missing": sum(not paths for paths in found.values()),
        "num_lines": len(lines),
        "official": text_set.count,
        "fingerprint": read(path, videos, "data.val_").fingerprint(),
        "missing": {"videos": [each for each, paths in found.items() if not paths]},
    }
    known = {path for paths in found.values() for path in paths}
    return {
        "dataset": name,
        "videos": str(videos),
        "num_files": len(files),
        "lists": {text_set.list_name: entry},
        "duplicates": {paths[0]: paths[1:] for paths in found.values() if len(paths) > 1},
        "extra": [path for path in files.paths if path not in known],
    }


def _no_video(name: str, example: str, files: VideoFiles) -> str:
    found = files.paths[0] if files.paths else f"no file with {' '.join(sorted(VIDEO_SUFFIXES))}"
    return f"{files.root}: no video of {name} is here; expected {example}, found {found}"


def _lists(official: Official, wanted: list[Wanted]) -> list[tuple[str, str, Path]]:
    """Path below ``--out``, part and label file of every list."""
    folder = LISTS / official.labels
    parts = sorted({video.part for video in wanted if video.class_folder})
    lists = [(f"{part}.txt", part, folder / "labels.csv") for part in parts]
    if "val" in parts:
        lists += [(f"{subset}/val.txt", "val", folder / subset / "labels.csv") for subset in official.subsets]
    return lists


def _write_list(path: Path, matches: list[Match], videos: Path, folder: str, label_file: Path) -> dict[str, Any]:
    """Write the videos of the label file's classes, unless there are none; returns the list's entry of the report.

    Paths start from ``videos/folder``.
    """
    root, prefix = (videos / folder, f"{folder}/") if folder else (videos, "")
    classes, _ = read_label_table(label_file, "folder")
    labels = {class_key(name): label for label, name in enumerate(classes)}
    lines, missing = [], []
    for wanted, found, _ in matches:
        label = labels.get(class_key(wanted.class_folder))
        if label is not None and found:
            lines.append((found.removeprefix(prefix), label))
        elif label is not None:
            missing.append((wanted.names[0], label))
    fingerprint = ""
    if lines:
        write_video_list(path, VideoList.of_pairs("", sorted(lines)))
        fingerprint = read_video_list(path, root, "video", len(classes), key="val").fingerprint()
    return list_entry(root, classes, lines, missing, fingerprint)


def _check_classes(wanted: list[Wanted], label_file: Path) -> None:
    folders = {class_key(folder): folder for folder in read_label_table(label_file, "folder")[0]}
    for video in wanted:
        key = class_key(video.class_folder)
        if video.class_folder and key not in folders:
            nearest = difflib.get_close_matches(key, folders, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{video.names[0]}: class {video.class_folder!r} is not in {label_file}; the nearest is "
                f"{folders[nearest]!r}. Are these the annotations of this data set?"
            )


if __name__ == "__main__":
    run_main(main)
