"""What one GPU does in a few minutes, and its section of docs/benchmarks.md: python -m benchmarks.gpu --minutes 6

Training steps of the published rendering and of ours, by what is recomputed, eager and compiled; tests of 4 x 3 views;
and what the device itself reaches at the layers' shapes. Figures are kept in docs/benchmarks_gpu.json after each case,
and those of the same device and torch are not measured again: a machine that is lent for less time is enough.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import harness, models, train_step
from clip.blocks import RECOMPUTE
from clip.model import CLIPConfig
from engine.flops import peak_flops
from modules.compile import compile_blocks
from utils.cli import count, run_main
from utils.precision import resolve_precision

DOCS = Path(__file__).parents[1] / "docs"
FIGURES, PAGE = DOCS / "benchmarks_gpu.json", DOCS / "benchmarks.md"
TITLE = "## GPU"
INTRODUCTION = """What `python -m benchmarks.gpu` measured, without loading: videos/s of a training step, clips/s of a
test, and TFLOP/s of products and attention at the layers' shapes. `first s`: until the first runs were done,
compilation included.
"""
HEAD = (
    "| case | a second | x published | TFLOP/s | % of bf16 peak | peak GiB | first s |",
    "|---|---|---|---|---|---|---|",
)
VIEWS = 12  # 4 clips x 3 crops
WARM_UP, RUNS = 3, 5
PUBLISHED = "published"
# (configuration, videos of a training step, videos of a test batch); as published
TOWERS = {"ViT-B/16": (models.VIT_B16, 64, 8), "ViT-L/14": (models.VIT_L14, 48, 4)}
TINY = {"tiny": (models.TINY, 2, 1)}

Figures = dict[str, dict[str, Any]]  # by case
Case = tuple[str, Callable[[], Callable[[], object]], int, float]  # name, what builds it, units a run, operations each


def main(argv: list[str] | None = None) -> Figures:
    """Measure what is not measured yet, as far as the time goes, and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=count, default=6, help="no case begins later (default: 6)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, also on a CPU: to try this command")
    parser.add_argument("--figures", type=Path, default=FIGURES, help=f"kept figures (default: {FIGURES.name})")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"page with the section (default: {PAGE.name})")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available() and not args.tiny:
        raise ValueError("benchmarks.gpu: expected a CUDA device, found none; --tiny tries the command on a CPU")
    end, facts = time.monotonic() + 60 * args.minutes, harness.hardware()
    kept = read(args.figures)
    figures = kept if kept.get("hardware") == facts else {"hardware": facts}
    for name, build, units, operations in cases(TINY if args.tiny else TOWERS):
        if name in figures or time.monotonic() >= end:
            continue
        figures[name] = measured(build, units, operations)
        args.figures.write_text(json.dumps(figures, indent=2) + "\n")
        sys.stdout.write(f"{name}: {figures[name]}\n")
    text = args.page.read_text() if args.page.exists() else ""
    args.page.write_text(text.partition(TITLE)[0] + section(figures))
    return figures


def read(path: Path) -> Figures:
    """Figures that were kept, or none."""
    return json.loads(path.read_text()) if path.exists() else {}


def cases(towers: dict[str, tuple[CLIPConfig, int, int]]) -> list[Case]:
    """All that is measured, the most telling first."""
    found: list[Case] = []
    for tower, (config, batch, tested) in towers.items():
        work = models.training_flops(config)
        step = partial(train_step.ours, config, batch, "auto")
        ways = {PUBLISHED: partial(train_step.baseline, config, batch)}
        ways |= {f"recompute {name}": partial(step, name) for name in RECOMPUTE}
        ways |= {f"recompute {name}, compiled": partial(step, name, True) for name in RECOMPUTE}
        found += [(f"{tower}, training: {way}", build, batch, work) for way, build in ways.items()]
        clips, work = tested * VIEWS, models.encoding_flops(config)
        ways = {PUBLISHED: partial(published_test, config, clips), "ours": partial(our_test, config, clips),
                "ours, compiled": partial(our_test, config, clips, True)}  # fmt: skip
        found += [(f"{tower}, test 4 x 3: {way}", build, clips, work) for way, build in ways.items()]
        found += ceilings(tower, config, batch * models.NUM_FRAMES)
    return found


def measured(build: Callable[[], Callable[[], object]], units: int, operations: float) -> dict[str, float]:
    """Median of a few runs after the first ones; an out-of-memory is a figure, too."""
    is_gpu = torch.cuda.is_available()
    wait = torch.cuda.synchronize if is_gpu else (lambda: None)
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        run = build()
        for _ in range(WARM_UP):
            run()
        wait()
        first_s, times = time.perf_counter() - start, []
        for _ in range(RUNS):
            start = time.perf_counter()
            run()
            wait()
            times.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    rate = units / statistics.median(times)
    peak = torch.cuda.max_memory_allocated() / 2**30 if is_gpu else 0.0
    return {"per_s": rate, "tflop_per_s": rate * operations / 1e12, "peak_gib": peak, "first_s": first_s}


@torch.inference_mode()
def our_test(config: CLIPConfig, clips: int, is_compiled: bool = False) -> Callable[[], object]:
    """Clips to scores, as tests compute them."""
    model, precision = models.our_model(config).eval(), resolve_precision("auto", harness.device())
    if is_compiled:
        compile_blocks(model, precision.device)
    frames = models.random_frames(clips)
    model.under_test(precision.half).__enter__()  # for good: this model is made for this

    @torch.inference_mode()
    def run() -> torch.Tensor:
        with precision.autocast():
            video = model.encode(frames.to(precision.device, non_blocking=True))
            return model.score(video, model.classes.encode(model.towers))

    return run


def published_test(config: CLIPConfig, clips: int) -> Callable[[], object]:
    """The same as the published code does it: normalised fp32 frames, no autocast in its evaluation."""
    vision, head = models.baseline_vision(config).eval(), models.baseline_head(config).eval()
    images = models.as_loaded((models.random_frames(clips).float() / 255 - 0.45) / 0.27)
    classes = models.class_features(config)

    @torch.no_grad()
    def run() -> torch.Tensor:
        x = vision(images.to(harness.device(), non_blocking=True).flatten(0, 1)).unflatten(0, images.shape[:2])
        return F.normalize(head(x)[0].mean(1), dim=-1) @ classes.T

    return run


def ceilings(tower: str, config: CLIPConfig, frames: int) -> list[Case]:
    """What the device reaches in half precision at a block's shapes, of the frames of a training step."""
    width, tokens = config.vision_width, 1 + (config.image_size // config.patch_size) ** 2
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    found: list[Case] = [
        (f"{tower}, ceiling: product {name}", partial(_product, frames * tokens, *shape), 1,
         2.0 * frames * tokens * shape[0] * shape[1])
        for name, shape in shapes.items()
    ]  # fmt: skip
    attention = partial(_attention, frames, config.vision_heads, tokens, width // config.vision_heads)
    # Two products forward, five backward (the scores are computed again).
    found.append((f"{tower}, ceiling: attention", attention, 1, 7 * 2.0 * frames * tokens**2 * width))
    return found


def _product(rows: int, depth: int, width: int) -> Callable[[], object]:
    left, right = (torch.randn(*shape, device=harness.device(), dtype=torch.bfloat16)
                   for shape in ((rows, depth), (width, depth)))  # fmt: skip
    return lambda: left @ right.T


def _attention(frames: int, heads: int, tokens: int, head_width: int) -> Callable[[], object]:
    shape = (frames, heads, tokens, head_width)
    parts = [torch.randn(shape, device=harness.device(), dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(shape, device=harness.device(), dtype=torch.bfloat16)
    return lambda: torch.autograd.grad(F.scaled_dot_product_attention(*parts), parts, gradient)


def section(figures: Figures) -> str:
    """The Markdown section; it ends the page. Empty without figures."""
    if not figures:
        return ""
    facts, peak = figures["hardware"], peak_flops(harness.device()) if torch.cuda.is_available() else None
    lines = [TITLE, "", INTRODUCTION, ", ".join(f"{name} {value}" for name, value in facts.items()), "", *HEAD]
    for name, row in figures.items():
        if name == "hardware":
            continue
        if "out_of_memory" in row:
            lines.append(f"| {name} | out of memory | | | | | |")
            continue
        reference = figures.get(f"{name.partition(':')[0]}: {PUBLISHED}", {}).get("per_s")
        times = f"{row['per_s'] / reference:.2f}" if reference else ""
        share = f"{100e12 * row['tflop_per_s'] / peak:.0f}" if peak else ""
        lines.append(
            f"| {name} | {row['per_s']:.1f} | {times} | {row['tflop_per_s']:.1f} | {share} | {row['peak_gib']:.1f} | "
            f"{row['first_s']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_main(main)
