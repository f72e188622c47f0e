"""Pack the videos of a list into shards for fast reading: python -m datasets.pack LIST --root DIR --out DIR

LIST has ``path label`` or ``path TAB caption`` in each line, or is a folder of transcripts.
"""

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path

from datasets.lists.captions import has_texts, list_text, read_either
from datasets.lists.records import VideoList, read_video_list
from datasets.lists.transcripts import read_transcripts
from datasets.pack.frames import ALL_FRAMES, FAILED, LIST
from datasets.pack.shards import VERSION, Settings
from datasets.pack.writer import pack_shards
from utils.cli import run_main
from utils.files import PART, claim_folder, remove_parts, write_text
from utils.logger import setup_logging

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
# Least and most of an argument.
LIMITS = {
    "short_side": (0, 10_000), "frames": (0, 1_000_000), "workers": (0, 1024), "shard_size_mb": (1, 1_000_000),
    "quality": (1, 100),
}  # fmt: skip


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m datasets.pack", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("list", metavar="LIST", type=Path, help="list file, or folder of transcripts")
    parser.add_argument("--root", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; one that was begun is continued")
    parser.add_argument("--short_side", type=int, default=256, help="pixels; larger is made smaller; 0: keep (256)")
    parser.add_argument("--frames", type=int, default=ALL_FRAMES, help="frames kept of each video (0: all)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs (90)")
    parser.add_argument("--shard_size_mb", type=int, default=256, help="about this size a shard (256)")
    parser.add_argument("--workers", type=int, default=cores, help=f"processes; 0: this one ({cores})")
    args = parser.parse_args(argv)
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if not least <= value <= most:
            parser.error(f"--{name}: expected {least} to {most}, found {value}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Pack; ends with exit status 1 if videos had to be left out."""
    args = parse_args(argv)
    setup_logging()
    videos = _read_list(args.list, args.root)
    if args.out.resolve() == args.root.resolve():
        raise ValueError(f"--out {args.out} is --root itself; its videos would be overwritten")
    noted = args.out / SETTINGS
    if args.out.exists() and not noted.exists() and any(path.suffix != PART for path in args.out.iterdir()):
        raise ValueError(f"--out {args.out} holds other files (no {SETTINGS}); choose a new folder")
    root, order = str(args.root.resolve()), videos.order_fingerprint()
    settings = Settings(VERSION, order, root, args.short_side, args.frames, args.quality, args.shard_size_mb)
    claim_folder(noted, dataclasses.asdict(settings))
    remove_parts(args.out)
    pack_shards(videos, settings, args.out, args.workers)
    if has_texts(args.list):
        write_packed_captions(args.list, args.out)
    remove_parts(args.out)
    logger.info("packed into %s; data.*_list: %s", args.out, args.out / LIST)
    if (args.out / FAILED).exists():
        num_failed = len((args.out / FAILED).read_text().splitlines())
        logger.error("%d videos cannot be read and were left out, see %s", num_failed, args.out / FAILED)
        sys.exit(1)


def write_packed_captions(source: Path, out: Path) -> None:
    """Write the list of texts, without those of videos that could not be packed, in the place of one of labels."""
    failed = out / FAILED
    left_out = {line.partition("\t")[0] for line in failed.read_text().splitlines()} if failed.exists() else set()
    lines = read_either(source, "", "data.train_").lines()
    write_text(out / LIST, list_text([line for line in lines if line[0] not in left_out]))


def _read_list(path: Path, root: Path) -> VideoList:
    if not root.is_dir():
        raise FileNotFoundError(f"--root {root}: no such folder")
    if path.is_dir():
        return read_transcripts(path, root, "data.train_").videos
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list file")
    if has_texts(path):
        return read_either(path, root, "data.train_").videos
    return read_video_list(path, root, "video", num_classes=sys.maxsize, key="train")


if __name__ == "__main__":
    run_main(main)
