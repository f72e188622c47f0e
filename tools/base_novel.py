"""Base-to-novel: halve the classes, the base half to train on, the novel half to test on unseen classes.

    python -m tools.base_novel --labels lists/hmdb51/labels.csv --train lists/hmdb51/train_split1.txt \\
        --val lists/hmdb51/test_split1.txt --out lists/hmdb51/base_novel
"""

import argparse
import csv
import logging
from pathlib import Path

import numpy as np

from datasets.lists.labels import read_label_table
from datasets.lists.records import VideoList, read_video_list, write_video_list
from datasets.lists.tables import Table
from utils.cli import run_main
from utils.logger import setup_logging

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Write ``{base,novel}_labels.csv``, ``base_train.txt``, ``{base,novel}_val.txt``; in each, labels count from 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="label CSV of all classes")
    parser.add_argument("--train", type=Path, required=True, help="train list of all classes")
    parser.add_argument("--val", type=Path, required=True, help="test list of all classes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--base", type=Path, help="label CSV that names the base classes (default: the more frequent)")
    parser.add_argument("--modality", choices=("video", "RGB"), default="video", help="form of the lists")
    args = parser.parse_args(argv)
    setup_logging()
    class_names, table = read_label_table(args.labels)
    train, val = (
        read_video_list(getattr(args, part), "", args.modality, len(class_names), key=part) for part in ("train", "val")
    )
    for part, videos in (("train", train), ("val", val)):
        videos.check_one_label(f"--{part}", "base to novel")
    base = named_classes(args.base, class_names) if args.base else frequent_half(train.labels, len(class_names))
    novel = np.setdiff1d(np.arange(len(class_names)), base)
    args.out.mkdir(parents=True, exist_ok=True)
    for part, classes in (("base", base), ("novel", novel)):
        write_labels(args.out / f"{part}_labels.csv", table, classes)
        write_video_list(args.out / f"{part}_val.txt", of_classes(val, classes))
    write_video_list(args.out / "base_train.txt", of_classes(train, base))
    logger.info("wrote %s: %d base and %d novel classes", args.out, len(base), len(novel))


def frequent_half(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The more frequent half of the classes, rounded up: sorted int64 [ceil(K / 2)].

    Of equally frequent classes those with the higher label are base: so it is in the published halves of HMDB-51,
    where all classes have as many videos.
    """
    by_frequency = np.argsort(np.bincount(labels, minlength=num_classes), kind="stable")
    return np.sort(by_frequency[num_classes // 2 :])


def named_classes(path: Path, class_names: list[str]) -> np.ndarray:
    """Labels of the classes that a label CSV names, sorted int64.

    Raises:
        ValueError: a name is not among ``class_names``.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    names, _ = read_label_table(path)
    if unknown := [name for name in names if name not in labels]:
        raise ValueError(f"{path}: {len(unknown)} names are not in the label file, the first is {unknown[0]!r}")
    return np.array(sorted(labels[name] for name in names))


def of_classes(videos: VideoList, classes: np.ndarray) -> VideoList:
    """The videos of ``classes`` (sorted labels), in list order, with labels counted from 0.

    Raises:
        ValueError: there are none.
    """
    kept = videos.take(np.flatnonzero(np.isin(videos.labels, classes)))
    if not len(kept):
        raise ValueError(f"no video of the classes {classes.tolist()} in the list")
    return VideoList(kept.root, kept.paths, np.searchsorted(classes, kept.labels), kept.num_frames)


def write_labels(path: Path, table: Table, classes: np.ndarray) -> None:
    """The rows (by id) of a label table, with all columns, for ``classes``, with ids counted from 0."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.rows[label] | {"id": new} for new, label in enumerate(classes.tolist()))


if __name__ == "__main__":
    run_main(main)
