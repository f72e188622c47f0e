"""Frames to frame features: ViT-B/16 and, on CUDA, ViT-L/14."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch

from benchmarks import ceilings, harness, models
from benchmarks.harness import Benchmark, Measurement
from modules.compile import compile_blocks
from utils.precision import resolve_precision


def ours(config, frames: torch.Tensor, choice: str, is_compiled: bool = False) -> Callable[[], object]:
    model, precision = models.our_model(config).eval(), resolve_precision(choice, harness.device())
    if is_compiled:
        compile_blocks(model, precision.device)
    form = ExitStack()  # left when ``encode`` is dropped: as long as that lives the model is in its form for tests
    form.enter_context(model.under_test(precision.half))

    @torch.inference_mode()
    def encode(_form: ExitStack = form) -> torch.Tensor:
        with precision.autocast():
            return model.encode(frames.to(harness.device(), non_blocking=True))

    return encode


def baseline(config, frames: torch.Tensor) -> Callable[[], object]:
    vision = models.baseline_vision(config).eval()
    choice = "fp16" if torch.cuda.is_available() else "fp32"
    precision = resolve_precision(choice, harness.device())
    images = models.as_loaded((frames.flatten(0, 1).float() / 255 - 0.45) / 0.27)  # arrives normalised, in fp32

    @torch.no_grad()
    def encode() -> torch.Tensor:
        with precision.autocast():
            return vision(images.to(harness.device(), non_blocking=True))

    return encode


def benchmark(name: str, config, batch_size: int) -> Benchmark:
    """Encode ``batch_size`` clips of 8 frames."""
    frames = models.random_frames(batch_size)
    contenders = {harness.BASELINE: partial(baseline, config, frames)}
    contenders |= {f"ours {choice}": partial(ours, config, frames, choice) for choice in ("fp32", "auto")}
    if torch.cuda.is_available():
        contenders["ours auto, compiled"] = partial(ours, config, frames, "auto", True)
    flops = partial(models.encoding_flops, config)
    products = ceilings.of_products(config, batch_size * models.NUM_FRAMES)
    return Benchmark(f"encode {name}, 8 frames", "benchmarks.encode", "clips", batch_size, contenders, flops, products)


def main(argv: list[str] | None = None) -> list[Measurement]:
    if not torch.cuda.is_available():
        return harness.run(benchmark("ViT-B/16", models.VIT_B16, 4), argv)
    large = harness.run(benchmark("ViT-L/14", models.VIT_L14, 64), argv)
    return large + harness.run(benchmark("ViT-B/16", models.VIT_B16, 128), argv)


if __name__ == "__main__":
    main()
