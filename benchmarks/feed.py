"""How many videos a second the loaders give, and how many cores feed a GPU: python -m benchmarks.feed --rate 300

Training clips of 8 frames through worker processes, from video files (PyAV), packed shards, and cached features. The
rate of a GPU is that of a training step alone, in videos a second.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable

from torch.utils.data import Dataset

from benchmarks import loader, models
from datasets.clips.samplers import TrainBatches
from datasets.clips.video import collate
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


def main(argv: list[str] | None = None) -> dict[str, dict[int, float]]:
    """Measure, and print the tables; returns videos a second by source and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=count, default=300, help="videos/s of a GPU to feed (default: 300)")
    parser.add_argument(
        "--workers", type=count, nargs="+", default=WORKERS, help="worker processes (default: 1 4 8 16)"
    )
    parser.add_argument("--seconds", type=count, default=10, help="of each measurement (default: 10)")
    args = parser.parse_args(argv)
    rates = {
        name: {workers: videos_per_s(build(), as_batch, workers, args.seconds) for workers in args.workers}
        for name, (build, as_batch) in SOURCES.items()
    }
    sys.stdout.write(report(rates, args.rate, len(os.sched_getaffinity(0))))
    return rates


def videos_per_s(dataset: Dataset, as_batch: Callable, workers: int, seconds: float) -> float:
    """What a loader with so many workers gives, once each of them is at work."""
    batches = TrainBatches(len(dataset), BATCH, rank=0, world_size=1, seed=0, num_passes=1000)
    options = {"num_workers": workers, "prefetch_factor": 2, "collate_fn": as_batch}
    feed = WorkerLoader(dataset, BATCH * CLIP_BYTES, 600, batch_sampler=batches, **options)
    try:
        given = iter(feed)
        for _ in range(2 * workers):  # what they prepared while they started
            next(given)
        start, videos = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            videos += len(next(given).labels)
        return videos / (time.perf_counter() - start)
    finally:
        feed.close()


def report(rates: dict[str, dict[int, float]], gpu_rate: float, cores: int) -> str:
    """Tables of what was measured, and of the cores that feed a GPU.

    A core's share comes of the most workers that have a core each; more of them than cores share these.

    Args:
        gpu_rate: videos/s.
        cores: of this machine.
    """
    counts = list(next(iter(rates.values())))
    lines = [
        f"videos/s with so many workers, on {cores} cores",
        f"| source | {' | '.join(map(str, counts))} | cores for {gpu_rate:g} videos/s |",
        "|" + "---|" * (len(counts) + 2),
    ]
    for name, found in rates.items():
        most = max((workers for workers in found if workers <= cores), default=min(found))
        needed = math.ceil(gpu_rate / (found[most] / min(most, cores)))
        lines.append(f"| {name} | {' | '.join(f'{rate:.1f}' for rate in found.values())} | {needed} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_main(main)
