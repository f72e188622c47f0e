"""Decode every video of a list and say what is wrong: python -m datasets.check configs/k400/vitb16_8f.yaml

Takes a configuration (both its lists) or a list file of videos with --root. Writes report.json, report.md and the lists
without their unreadable videos to --out; exit status 1 if there are any.
"""

import argparse
import hashlib
import os
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from datasets.build import build_source, decoder_of
from datasets.check.isolated import Lost, run_isolated
from datasets.check.summary import Examined, Findings, place, write_findings
from datasets.clips.video import VideoSource
from datasets.decode.decoders import AUTO, DECODERS, PYAV
from datasets.decode.probe import Facts, diagnosed, probe
from datasets.decode.readers import Reader, UnreadableVideo, open_regular, reason_of
from datasets.lists.captions import has_texts
from datasets.lists.records import VideoList
from datasets.read import read_lists, read_text_videos, read_videos
from datasets.sources.build import read_sources
from utils.cli import count, run_main, seconds
from utils.config import DataConfig, load_config
from utils.logger import progress, setup_logging

CHUNK_BYTES = 128 * 2**20  # of pixels decoded in one call
OTHER_PICTURE = 16  # mean difference in grey levels beyond which two decoders show different frames
ANY_LABEL = 2**31
NO_LIMIT = 0  # of time, within a process that has one


@dataclass(frozen=True)
class Plan:
    """What to do with every video."""

    decoder: str | None  # None: folders of frames
    num_segments: int
    every_frame: bool


def main(argv: list[str] | None = None) -> int:
    """Check, report and return the exit status."""
    args = parse_args(argv)
    setup_logging()
    config, lists, class_names = _read_lists(args)
    plan = Plan(decoder_of(config), config.num_segments, args.frames == "all")
    sources = {name: build_source(config, videos) for name, videos in lists.items()}
    start = time.monotonic()
    examined = _examine_all(sources, plan, args)
    same = _same_content(examined, args)
    run = {
        "checked": args.target,
        "decoder": plan.decoder,
        "frames": args.frames,
        "videos_per_s": round(len(examined) / (time.monotonic() - start), 1),
    }
    out = args.out or Path("exps", "check", Path(args.target).stem)
    sys.stdout.write(write_findings(out, Findings(lists, examined, same), class_names, plan.num_segments, run))
    return int(any(video.reason for video in examined.values()))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m datasets.check", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", metavar="CONFIG|LIST", help="YAML configuration, or a list file of videos")
    parser.add_argument("--root", default="", help="folder that the paths of LIST start from")
    parser.add_argument("--out", type=Path, help="folder of the report (default: exps/check/NAME)")
    parser.add_argument("--workers", type=count, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--decoder", choices=(AUTO, *DECODERS), help="instead of the configuration's")
    parser.add_argument("--frames", choices=("all", "sample"), default="all", help="decode all, or num_segments")
    parser.add_argument("--timeout_s", type=seconds, default=300, help="most that one video may take; 0: no limit")
    return parser.parse_args(argv)


def _read_lists(args: argparse.Namespace) -> tuple[DataConfig, dict[str, VideoList], list[str]]:
    """The configuration, its lists by name (a single one is named ``list``), and the class names, if known."""
    if Path(args.target).suffix not in (".yaml", ".yml"):
        config = DataConfig(val_list=args.target, val_root=args.root, decoder=args.decoder or AUTO)
        is_of_texts = has_texts(args.target)
        videos = read_text_videos(config) if is_of_texts else read_lists(config, "val", ANY_LABEL)
        return config, {"list": videos}, []
    if args.root:
        raise ValueError("--root goes with a list file; a configuration names its roots")
    config = load_config(args.target, [f"data.decoder={args.decoder}"] if args.decoder else []).data
    if config.sources:
        found = {f"source_{number}": source for number, source in enumerate(read_sources(config))}
        lists = {name: source.texts.videos for name, source in found.items() if source.data.modality == "video"}
        return config, lists | {"val": read_text_videos(config)}, []
    if config.modality not in ("video", "RGB"):
        raise ValueError(f"data.modality is {config.modality}: check reads videos, or folders of frames")
    parts = tuple(name for name in ("train", "val") if config.folder or getattr(config, f"{name}_list"))
    class_names, videos = read_videos(replace(config, shot=0), parts)  # all videos of a few-shot training
    return config, videos, class_names


# --- in the workers


def _examine(sources: dict[str, VideoSource], plan: Plan, job: tuple[str, int]) -> Examined:
    part, index = job
    path = Path(place(sources[part].videos, index))
    try:
        facts = probe(path, sources[part].max_pixels) if plan.decoder else Facts()
        reader = sources[part].open(index)
        if not plan.decoder:
            _measure_folder(path, reader, facts)
        elif reader.num_frames != facts.num_frames:
            facts.notes.append(f"{plan.decoder} counts {reader.num_frames} frames, the file holds {facts.num_frames}")
            facts.num_frames = reader.num_frames
        sample = np.linspace(0, reader.num_frames - 1, plan.num_segments).astype(np.int64)
        frames = reader.read(sample)
        if plan.decoder not in (None, PYAV):
            _compare(frames, sources[part], index, sample, plan.decoder, facts)
        if plan.every_frame:
            _decode_all(reader, facts)
    except UnreadableVideo as error:
        return Examined(reason=diagnosed(path, error, NO_LIMIT) if plan.decoder else str(error))
    except OSError as error:  # of a folder
        return Examined(reason=reason_of(error))
    return Examined(facts)


def _measure_folder(path: Path, reader: Reader, facts: Facts) -> None:
    facts.num_frames = reader.num_frames
    facts.height, facts.width = reader.read(np.zeros(1, dtype=np.int64)).shape[-2:]
    facts.num_bytes = sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())


def _decode_all(reader: Reader, facts: Facts) -> None:
    """Read every frame, in portions that fit the memory."""
    indices = np.arange(reader.num_frames)
    for chunk in np.array_split(indices, 1 + len(indices) * facts.width * facts.height * 3 // CHUNK_BYTES):
        reader.read(chunk)


def _compare(found: Tensor, source: VideoSource, index: int, sample: np.ndarray, decoder: str, facts: Facts) -> None:
    """Note frames that the decoder finds elsewhere than PyAV does; ``found``: its frames at ``sample``."""
    exact = replace(source, decoder=PYAV).open(index)
    if sample[-1] >= exact.num_frames:
        return
    expected = exact.read(sample)
    if found.shape != expected.shape:
        facts.notes.append(f"{decoder} and pyav show pictures of different sizes")
        return
    differences = (found.float() - expected.float()).abs().mean(dim=(1, 2, 3))
    if num_wrong := int((differences > OTHER_PICTURE).sum()):
        facts.notes.append(f"{decoder} shows other frames than asked for ({num_wrong} of {len(sample)}); pyav is exact")


def _hash(path: str) -> str:
    """Of a file's content; empty if it cannot be read any more."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as descriptor:
            while block := os.read(descriptor, 2**20):
                digest.update(block)
    except (UnreadableVideo, OSError):
        return ""
    return digest.hexdigest()


# --- in the main process


def _examine_all(sources: dict[str, VideoSource], plan: Plan, args: argparse.Namespace) -> dict[str, Examined]:
    """Every file of all lists once, by its place."""
    jobs = {place(s.videos, i): (name, i) for name, s in sources.items() for i in range(len(s.videos))}
    places = list(jobs)
    examined = {}
    outcomes = run_isolated(partial(_examine, sources, plan), list(jobs.values()), args.workers, args.timeout_s)
    for number, outcome in progress(outcomes, "check", len(jobs), every=max(len(jobs) // 10, 1000)):
        examined[places[number]] = Examined(reason=outcome.reason) if isinstance(outcome, Lost) else outcome
    return {name: examined[name] for name in places}


def _same_content(examined: dict[str, Examined], args: argparse.Namespace) -> list[list[str]]:
    """Groups of readable files with the same bytes; only files of one size are read."""
    by_size = defaultdict(list)
    for path, video in examined.items():
        if not video.reason and os.path.isfile(path):
            by_size[video.facts.num_bytes].append(path)
    candidates = [path for group in by_size.values() if len(group) > 1 for path in group]
    by_hash = defaultdict(list)
    for number, outcome in run_isolated(_hash, candidates, args.workers, args.timeout_s):
        if outcome and not isinstance(outcome, Lost):
            by_hash[outcome].append(candidates[number])
    return sorted(sorted(group) for group in by_hash.values() if len(group) > 1)


if __name__ == "__main__":
    from datasets.check import __main__ as module  # processes that are not forked know no function of a ``-m`` package

    run_main(lambda: sys.exit(module.main()))
