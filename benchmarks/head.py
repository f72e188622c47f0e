"""The temporal head alone, on ready frame features: a test's forward pass, and a training step."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks import harness, models
from benchmarks.harness import Benchmark, Measurement
from modules.heads.experts import merged_experts

CALLS = 20  # a timed run; experts are merged once in ours, at every call in the baseline


def features(batch_size: int) -> torch.Tensor:
    """[B, T, D]"""
    return torch.randn(batch_size, models.NUM_FRAMES, models.VIT_B16.embed_dim, device=harness.device())


def ours_test(batch_size: int) -> Callable[[], object]:
    head, x = models.our_model(models.VIT_B16).head.eval(), features(batch_size)

    @torch.inference_mode()
    def run() -> None:
        with merged_experts(head):
            for _ in range(CALLS):
                head(x)

    return run


def baseline_test(batch_size: int) -> Callable[[], object]:
    head, x = models.baseline_head(models.VIT_B16).eval(), features(batch_size)

    @torch.no_grad()
    def run() -> None:
        for _ in range(CALLS):
            head(x)

    return run


def training(build: Callable[[], Callable], batch_size: int) -> Callable[[], object]:
    """Forward and backward of both passes; ``build`` makes what runs them."""
    head, x = build(), features(batch_size).requires_grad_()
    mixing = models.draws(models.VIT_B16)

    def run() -> None:
        for _ in range(CALLS):
            head(x, mixing).square().mean().backward()

    return run


def main(argv: list[str] | None = None) -> list[Measurement]:
    test = {harness.BASELINE: partial(baseline_test, 4), "ours": partial(ours_test, 4)}
    results = harness.run(Benchmark("head B/16, test", "benchmarks.head", "clips", 4 * CALLS, test), argv)
    ours, baseline = (
        partial(training, build, 16)
        for build in (
            lambda: models.our_model(models.VIT_B16).head.routes,
            lambda: models.baseline_head(models.VIT_B16),
        )
    )
    train = {harness.BASELINE: baseline, "ours": ours}
    return results + harness.run(Benchmark("head B/16, train", "benchmarks.head", "clips", 16 * CALLS, train), argv)


if __name__ == "__main__":
    main()
