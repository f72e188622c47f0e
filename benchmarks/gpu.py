"""What one GPU does in a few minutes, and its section of docs/benchmarks.md: python -m benchmarks.gpu --minutes 6

Training steps of the published rendering and of ours, by what is recomputed, eager and compiled; tests of 4 x 3 views;
and what the device itself reaches at the layers' shapes. Figures are kept in docs/benchmarks_gpu.json after each case,
and those of the same device and torch are not measured again: a machine that is lent for less time is enough. The
section is written after each case, too.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from benchmarks import ceilings, harness, models, train_step
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
test; and the ceilings at the layers' shapes in bf16: TFLOP/s of products and attention (its scores computed again in
the backward pass), TB/s of a copy, read and written. Recomputation counts as no work of a step.

`% of ceiling`: as if products and attention ran as fast as alone, and everything else took no time. `MFU, %`: of the
device's data sheet, dense bf16. `first s`: until the first runs were done, compilation included.
"""
HEAD = (
    "| case | a second | x published | TFLOP/s | % of ceiling | MFU, % | peak GiB | first s |",
    "|---|---|---|---|---|---|---|---|",
)
VIEWS = 12  # 4 clips x 3 crops
WARM_UP, RUNS = 3, 5
REPEATS = 10  # of a ceiling in a run: one of them alone takes less time than to wait for it
FORWARD, TRAINED = 2, 6  # products of attention in a block
RECOMPUTED = 1  # and one more in fused attention's backward pass
PUBLISHED = "published"
TRAINED_ATTENTION, TESTED_ATTENTION = "attention, training", "attention, test"
# (configuration, videos of a training step, videos of a test batch); as published
TOWERS = {"ViT-B/16": (models.VIT_B16, 64, 8), "ViT-L/14": (models.VIT_L14, 48, 4)}
TINY = {"tiny": (models.TINY, 2, 1)}

Build = Callable[[], Callable[[], object]]
Figures = dict[str, dict[str, Any]]  # by case


class Case(NamedTuple):
    """What is measured."""

    name: str  # tower, kind: way
    build: Build
    units: float  # of a run
    operations: float  # of a unit
    attention: float | None = None  # its share of the operations; None: a ceiling


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
    for case in cases(TINY if args.tiny else TOWERS):
        if case.name in figures or time.monotonic() >= end:
            continue
        figures[case.name] = measured(case.build, case.units, case.operations) | {"attention": case.attention}
        args.figures.write_text(json.dumps(figures, indent=2) + "\n")
        write_section(args.page, figures)
        sys.stdout.write(f"{case.name}: {figures[case.name]}\n")
    write_section(args.page, figures)
    return figures


def write_section(page: Path, figures: Figures) -> None:
    """Put the section in the place of an older one, at the page's end."""
    text = page.read_text() if page.exists() else ""
    page.write_text(text.partition(TITLE)[0] + section(figures))


def read(path: Path) -> Figures:
    """Figures that were kept, or none."""
    return json.loads(path.read_text()) if path.exists() else {}


def cases(towers: dict[str, tuple[CLIPConfig, int, int]]) -> list[Case]:
    """All that is measured, the most telling first."""
    found: list[Case] = []
    for tower, (config, batch, tested) in towers.items():
        clips = tested * VIEWS
        found += ceiling_cases(tower, config, batch * models.NUM_FRAMES, clips * models.NUM_FRAMES)
        work = models.training_flops(config)
        attention = ceilings.attention_share(config, models.NUM_FRAMES, work, TRAINED)
        step = partial(train_step.ours, config, batch, "auto")
        ways = {PUBLISHED: partial(train_step.baseline, config, batch)}
        ways |= {f"recompute {name}": partial(step, name) for name in RECOMPUTE}
        ways |= {f"recompute {name}, compiled": partial(step, name, True) for name in RECOMPUTE}
        found += [Case(f"{tower}, training: {way}", build, batch, work, attention) for way, build in ways.items()]
        work = models.encoding_flops(config)
        attention = ceilings.attention_share(config, models.NUM_FRAMES, work, FORWARD)
        ways = {PUBLISHED: partial(published_test, config, clips), "ours": partial(our_test, config, clips),
                "ours, compiled": partial(our_test, config, clips, True)}  # fmt: skip
        found += [Case(f"{tower}, test 4 x 3: {way}", build, clips, work, attention) for way, build in ways.items()]
    return found


def ceiling_cases(tower: str, config: CLIPConfig, trained: int, tested: int) -> list[Case]:
    """What the device reaches in bf16 at a block's shapes.

    Args:
        trained, tested: frames of a batch.
    """
    rows, shapes = trained * ceilings.tokens_of(config), ceilings.product_shapes(config)
    found = [
        Case(f"{tower}, ceiling: product {name}", _repeated(ceilings.product, rows, *shapes[name]), REPEATS, operations)
        for name, operations in ceilings.product_operations(config, trained).items()
    ]
    for name, frames, is_training in ((TRAINED_ATTENTION, trained, True), (TESTED_ATTENTION, tested, False)):
        products = TRAINED + RECOMPUTED if is_training else FORWARD
        build = _repeated(ceilings.attention, config, frames, is_training)
        operations = products * ceilings.attention_operations(config, frames)
        found.append(Case(f"{tower}, ceiling: {name}", build, REPEATS, operations))
    terabytes = REPEATS * ceilings.copied_bytes(config, trained) / 1e12
    return [*found, Case(f"{tower}, ceiling: copy", _repeated(ceilings.copy, config, trained), terabytes, 0.0)]


def _repeated(build: Callable[..., Callable[[], object]], *args: object) -> Build:
    """Builds what runs so often."""

    def built() -> Callable[[], object]:
        run = build(*args)
        return lambda: [run() for _ in range(REPEATS)] and None

    return built


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
    form = ExitStack()  # left when ``run`` is dropped: as long as that lives the model is in its form for tests
    form.enter_context(model.under_test(precision.half))

    @torch.inference_mode()
    def run(_form: ExitStack = form) -> torch.Tensor:
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


def ceiling_of(case: str, figures: Figures) -> float | None:
    """TFLOP/s of a case whose products and attention ran as fast as alone; None where these were not measured."""
    tower, is_training, share = case.partition(",")[0], ", training:" in case, figures[case].get("attention")
    names = [f"product {name}" for name in ceilings.product_shapes(models.TINY)]
    names.append(TRAINED_ATTENTION if is_training else TESTED_ATTENTION)
    rows = [figures.get(f"{tower}, ceiling: {name}", {}) for name in names]
    if share is None or not all("per_s" in row for row in rows):
        return None
    *products, attention = rows
    work = sum(row["tflop_per_s"] / row["per_s"] for row in products)
    products_s = (1 - share) / (work / sum(1 / row["per_s"] for row in products))
    counted = TRAINED / (TRAINED + RECOMPUTED) if is_training else 1.0
    return 1 / (products_s + share / (counted * attention["tflop_per_s"]))


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
            lines.append(f"| {name} | out of memory | | | | | | |")
            continue
        reference = figures.get(f"{name.partition(':')[0]}: {PUBLISHED}", {}).get("per_s")
        times, ceiling, rate = reference and row["per_s"] / reference, ceiling_of(name, figures), row["tflop_per_s"]
        cells = [
            f"{row['per_s']:.1f}" if row["per_s"] >= 10 else f"{row['per_s']:.2f}",
            f"{times:.2f}" if times else "",
            f"{rate:.1f}" if rate else "",  # a copy has no operations
            f"{100 * rate / ceiling:.0f}" if ceiling else "",
            f"{100e12 * rate / peak:.0f}" if peak and rate else "",
            f"{row['peak_gib']:.1f}",
            f"{row['first_s']:.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_main(main)
