"""How many videos a second the loaders give, and how many cores feed a GPU: python -m benchmarks.feed --rate 400 102

Training clips of 8 frames through worker processes, from video files (PyAV), packed shards, and cached features. The
rate of a GPU is that of a training step alone, in videos a second, as ``python -m benchmarks.gpu`` gives it.

And end to end: clips from shards, through the loader, to the device and into an update of the weights, beside the same
update on a batch that is there. They take turns. On a CPU a tiny model is trained, which shares the cores with the
loader: there, only what the loader adds can be read off, not whether it is hidden.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from benchmarks import gpu, harness, loader, models, train_step
from datasets.clips.samplers import TrainBatches
from datasets.clips.video import Batch, collate
from utils.cli import count, run_main
from utils.workers import WorkerLoader

WORKERS = (1, 4, 8, 16)
BATCH, LISTED = 8, 2000  # videos of a batch, and of a list
CLIP_BYTES = 3 * models.NUM_FRAMES * 224**2
SOURCES: dict[str, tuple[Callable[[], Dataset], Callable]] = {  # how it is built, how its samples become a batch
    "video files": (lambda: loader.of_files("pyav", LISTED), collate),
    "shards": (lambda: loader.of_shards(LISTED), collate),
    "features": (loader.of_features, lambda batch: batch),
}
TRAINED = gpu.TINY | gpu.TOWERS  # by name; with the videos of a step
TURNS = 3


class EndToEnd(NamedTuple):
    """Videos/s of updates."""

    alone: float  # on a batch that is there
    fed: float  # with loading
    share: float  # fed / alone, median over turns


def main(argv: list[str] | None = None) -> tuple[dict[str, dict[int, float]], EndToEnd]:
    """Measure, and print the tables; returns videos a second by source and number of workers, and end to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=count, nargs="+", default=[300], help="videos/s of GPUs to feed (default: 300)")
    parser.add_argument(
        "--workers", type=count, nargs="+", default=WORKERS, help="worker processes (default: 1 4 8 16)"
    )
    parser.add_argument("--seconds", type=count, default=10, help="of each measurement (default: 10)")
    usual = "ViT-B/16" if torch.cuda.is_available() else "tiny"
    parser.add_argument("--tower", choices=TRAINED, default=usual, help=f"trained end to end (default: {usual})")
    args = parser.parse_args(argv)
    cores = len(os.sched_getaffinity(0))
    rates = {
        name: {workers: videos_per_s(build(), as_batch, workers, args.seconds) for workers in args.workers}
        for name, (build, as_batch) in SOURCES.items()
    }
    sys.stdout.write(report(rates, args.rate, cores))
    workers = _with_a_core_each(args.workers, cores)
    found = end_to_end(args.tower, workers, args.seconds)
    sys.stdout.write(
        f"end to end, {args.tower} on {harness.hardware()['device']}, {workers} workers, {cores} cores: "
        f"{found.fed:.1f} videos/s from shards, {found.alone:.1f} of the step alone: {100 * found.share:.1f} %\n"
    )
    return rates, found


def videos_per_s(dataset: Dataset, as_batch: Callable, workers: int, seconds: float) -> float:
    """What a loader with so many workers gives, once each of them is at work."""
    batches = TrainBatches(len(dataset), BATCH, rank=0, world_size=1, seed=0, num_passes=1000)
    options = {"num_workers": workers, "prefetch_factor": 2, "collate_fn": as_batch}
    feed = WorkerLoader(dataset, BATCH * CLIP_BYTES, 600, batch_sampler=batches, **options)
    try:
        given = iter(feed)
        for _ in range(2 * workers):  # what they prepared while they started
            next(given)
        return _rate(lambda: len(next(given).labels), seconds)
    finally:
        feed.close()


def end_to_end(tower: str, workers: int, seconds: float) -> EndToEnd:
    """Updates on clips from shards beside those on a batch that is there, in turns of so many seconds each."""
    config, batch_size, _ = TRAINED[tower]
    update, there = train_step.update(config, "auto"), models.random_frames(batch_size)
    labels = models.as_loaded(torch.zeros(batch_size, dtype=torch.long))
    dataset = loader.of_shards(LISTED)
    batches = TrainBatches(len(dataset), batch_size, rank=0, world_size=1, seed=0, num_passes=1000)
    options = {"num_workers": workers, "prefetch_factor": 2, "collate_fn": collate}
    options["pin_memory"] = torch.cuda.is_available()
    feed = WorkerLoader(dataset, batch_size * CLIP_BYTES, 600, batch_sampler=batches, **options)

    def alone() -> int:
        update(there, labels)
        return batch_size

    def fed(given: Iterator[Batch]) -> int:
        batch = next(given)
        update(batch.clips.flatten(0, 1), batch.labels)
        return len(batch.labels)

    try:
        given, rates = iter(feed), []
        for _ in range(2 * workers):  # also what the device has to get ready
            fed(given)
        for _ in range(TURNS):
            before = _rate(alone, seconds)
            for _ in range(2 * workers):  # what was prepared meanwhile
                fed(given)
            rates.append((before, _rate(lambda: fed(given), seconds)))
    finally:
        feed.close()
    medians = (statistics.median(turn) for turn in zip(*rates, strict=True))
    return EndToEnd(*medians, statistics.median(of_fed / of_alone for of_alone, of_fed in rates))


def _rate(run: Callable[[], int], seconds: float) -> float:
    """Videos a second of what returns how many it did; the device has done them, too."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    wait()
    start, videos = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        videos += run()
    wait()
    return videos / (time.perf_counter() - start)


def report(rates: dict[str, dict[int, float]], gpu_rates: list[float], cores: int) -> str:
    """Tables of what was measured, and of the cores that feed a GPU.

    A core's share comes of the most workers that have a core each; more of them than cores share these.

    Args:
        gpu_rates: videos/s.
        cores: of this machine.
    """
    counts = list(next(iter(rates.values())))
    heads = [*map(str, counts), *(f"cores for {rate:g} videos/s" for rate in gpu_rates)]
    lines = [
        f"videos/s with so many workers, on {cores} cores",
        f"| source | {' | '.join(heads)} |",
        "|" + "---|" * (len(heads) + 1),
    ]
    for name, found in rates.items():
        most = _with_a_core_each(found, cores)
        of_core = found[most] / min(most, cores)
        cells = [*(f"{rate:.1f}" for rate in found.values()), *(str(math.ceil(rate / of_core)) for rate in gpu_rates)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _with_a_core_each(counts: Iterable[int], cores: int) -> int:
    """The most workers that have a core each, or the fewest."""
    return max((workers for workers in counts if workers <= cores), default=min(counts))


if __name__ == "__main__":
    run_main(main)
