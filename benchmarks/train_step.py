"""One training step: encode, both passes of the head, loss, backward, AdamW."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import ceilings, harness, models
from benchmarks.harness import Benchmark, Measurement
from clip.blocks import FULL, LIGHT, NONE, set_recompute
from engine.failures import can_wait, put_off, settle, stop_if_wrong, verdict_of
from engine.optim import build_optimizer
from engine.sharding import clip_gradients
from engine.state import TrainState
from modules.compile import compile_blocks
from modules.systems.base import Batch, Draws
from utils.config import SolverConfig
from utils.precision import resolve_precision


def ours(
    config, batch_size: int, choice: str, recompute: str = NONE, is_compiled: bool = False
) -> Callable[[], object]:
    step = update(config, choice, recompute, is_compiled)
    frames, labels = models.random_frames(batch_size), models.as_loaded(torch.arange(batch_size))
    return lambda: step(frames, labels)


def update(
    config, choice: str, recompute: str = NONE, is_compiled: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A step on uint8 clips [B, T, 3, 224, 224] and labels [B], as a loader gives them."""
    precision = resolve_precision(choice, harness.device())
    model = models.our_model(config).train()
    set_recompute(model, recompute)
    if is_compiled:
        compile_blocks(model, precision.device)
    optimizer, draws = build_optimizer(model.groups(), SolverConfig()), Draws(torch.Generator().manual_seed(0))
    scaler, parameters = precision.grad_scaler(), list(model.parameters())
    state = TrainState(model, optimizer, scaler)

    def step(frames: torch.Tensor, labels: torch.Tensor) -> None:
        clips, targets = (part.to(precision.device, non_blocking=True) for part in (frames, labels))
        with precision.autocast():
            loss = model(Batch(clips, labels=targets), draws).total
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = clip_gradients(parameters, torch.inf)
        verdict = verdict_of(state, norm, [{"loss": loss.detach()}])  # as engine.train does
        settle(state, Path(), {})
        if can_wait(state, precision.device):
            put_off(state, verdict)
        else:
            stop_if_wrong(verdict, state, Path(), {})
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def baseline(config, batch_size: int) -> Callable[[], object]:
    precision = resolve_precision("fp16" if torch.cuda.is_available() else "fp32", harness.device())
    vision, head = models.baseline_vision(config).train(), models.baseline_head(config).train()
    classes, scaler = models.class_features(config), precision.grad_scaler()
    optimizer = torch.optim.AdamW([*vision.parameters(), *head.parameters()], lr=5e-5, weight_decay=0.2)
    images = models.as_loaded((models.random_frames(batch_size).float() / 255 - 0.45) / 0.27)
    labels = torch.arange(batch_size).to(precision.device)

    def step() -> None:
        mixing = models.draws(config)
        with precision.autocast():
            x = vision(images.to(precision.device, non_blocking=True).flatten(0, 1)).unflatten(0, images.shape[:2])
            expert, merged = head(x, mixing)
            logits = [F.normalize(y.mean(1), dim=-1) @ classes.T for y in (expert, merged)]
            loss = F.cross_entropy(14 * logits[0], labels) + 0.5 * F.cross_entropy(14 * logits[1], labels)
            loss = loss + 0.1 * F.mse_loss(merged, x)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def benchmark(name: str, config, batch_size: int) -> Benchmark:
    """Train on ``batch_size`` clips of 8 frames."""
    contenders = {harness.BASELINE: partial(baseline, config, batch_size)}
    contenders |= {f"ours {choice}": partial(ours, config, batch_size, choice) for choice in ("fp32", "auto")}
    contenders |= {
        f"ours fp32, recompute {name}": partial(ours, config, batch_size, "fp32", name) for name in (LIGHT, FULL)
    }
    if torch.cuda.is_available():
        contenders["ours auto, compiled"] = partial(ours, config, batch_size, "auto", is_compiled=True)
    flops, name = partial(models.training_flops, config), f"training step {name}, 8 frames"
    products = ceilings.of_products(config, batch_size * models.NUM_FRAMES)
    return Benchmark(name, "benchmarks.train_step", "videos", batch_size, contenders, flops, products)


def main(argv: list[str] | None = None) -> list[Measurement]:
    if not torch.cuda.is_available():
        return harness.run(benchmark("ViT-B/16", models.VIT_B16, 2), argv)
    large = harness.run(benchmark("ViT-L/14", models.VIT_L14, 16), argv)
    return large + harness.run(benchmark("ViT-B/16", models.VIT_B16, 32), argv)


if __name__ == "__main__":
    main()
