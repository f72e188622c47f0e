"""Recall and ranks of as many texts as videos: similarities in blocks beside the whole table at once.

``--size 100000`` runs ours once, without a baseline: the whole table alone would take 40 GB.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import harness
from benchmarks.harness import Benchmark, Measurement
from engine.protocols.retrieval import figures_of_embeddings
from utils.cli import keep_freed_memory

WIDTH = 512
SIZE = 4_000


def embeddings(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of as many texts as videos, [N, D] each; pairs are about as close as those of CLIP."""
    generator = torch.Generator().manual_seed(0)
    texts, noise = torch.randn(2, size, WIDTH, generator=generator)
    return texts, texts + 6.0 * noise


def baseline(size: int) -> Callable[[], object]:
    """As the published code works: the whole table, each row and each column sorted, the pair looked for in it."""
    texts, videos = embeddings(size)

    def run() -> list[float]:
        table = (F.normalize(texts, dim=-1) @ F.normalize(videos, dim=-1).T).numpy()
        places = []
        for each in (table, table.T):
            own = -np.diagonal(each)[:, None]
            places.append(float((np.sort(-each, axis=1) < own).sum(axis=1).mean()))
        return places

    return run


def ours(size: int, dual_softmax: float) -> Callable[[], object]:
    """Figures in blocks."""
    texts, videos = embeddings(size)
    return lambda: figures_of_embeddings(texts, videos, dual_softmax=dual_softmax)


def run_once(size: int, dual_softmax: float) -> None:
    """One timed run in this process."""
    keep_freed_memory()  # as utils.cli.run_main does
    function = ours(size, dual_softmax)
    start = time.perf_counter()
    found = function()
    elapsed_s = time.perf_counter() - start
    figures = ", ".join(f"{name} {value:.2f}" for name, value in found["t2v"].items())
    sys.stdout.write(
        f"{size} x {size}, lambda {dual_softmax:g}: {elapsed_s:.0f} s, peak {harness.peak_mib():.0f} MiB ({figures})\n"
    )


def main(argv: list[str] | None = None) -> list[Measurement]:
    """Measure, or with ``--size`` run once."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--size", type=int, help="texts, and videos")
    parser.add_argument("--dual_softmax", type=float, default=100.0, help="lambda of the run with --size; 0: none")
    args, others = parser.parse_known_args(argv)
    if args.size:
        run_once(args.size, args.dual_softmax)
        return []
    contenders = {
        harness.BASELINE: partial(baseline, SIZE),
        "ours": partial(ours, SIZE, 0.0),
        "ours, with dual softmax": partial(ours, SIZE, 100.0),
    }
    return harness.run(
        Benchmark(f"ranks of {SIZE} x {SIZE}", "benchmarks.retrieval", "pairs", SIZE, contenders), others
    )


if __name__ == "__main__":
    main()
