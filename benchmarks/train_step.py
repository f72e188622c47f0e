"""One training step: encode, both passes of the head, loss, backward, AdamW."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks import harness, models
from benchmarks.harness import Benchmark, Measurement
from modules.losses import video_loss
from utils.config import SolverConfig
from utils.precision import resolve_precision
from utils.solver import build_optimizer


def ours(config, batch_size: int, choice: str, grad_checkpointing: bool = False) -> Callable[[], object]:
    precision = resolve_precision(choice, harness.device())
    model = models.our_model(config).train()
    model.clip.visual.transformer.grad_checkpointing = grad_checkpointing
    optimizer, classes = build_optimizer(model, SolverConfig()), models.class_features(config)
    scaler = precision.grad_scaler()
    frames, labels = models.random_frames(batch_size), torch.arange(batch_size)

    def step() -> None:
        mixing = models.draws(config)
        with precision.autocast():
            output = model(frames.to(precision.device, non_blocking=True), classes, mixing)
            loss, _ = video_loss(output, labels.to(precision.device))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def baseline(config, batch_size: int) -> Callable[[], object]:
    precision = resolve_precision("fp16" if torch.cuda.is_available() else "fp32", harness.device())
    vision, head = models.baseline_vision(config).train(), models.baseline_head(config).train()
    classes, scaler = models.class_features(config), precision.grad_scaler()
    optimizer = torch.optim.AdamW([*vision.parameters(), *head.parameters()], lr=5e-5, weight_decay=0.2)
    images = (models.random_frames(batch_size).float() / 255 - 0.45) / 0.27
    labels = torch.arange(batch_size).to(precision.device)

    def step() -> None:
        mixing = models.draws(config)
        with precision.autocast():
            x = vision(images.to(precision.device).flatten(0, 1)).unflatten(0, images.shape[:2])
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
    contenders["ours fp32, checkpointing"] = partial(ours, config, batch_size, "fp32", True)
    return Benchmark(f"training step {name}, 8 frames", "benchmarks.train_step", "videos", batch_size, contenders)


def main(argv: list[str] | None = None) -> list[Measurement]:
    if torch.cuda.is_available():
        return harness.run(benchmark("ViT-L/14", models.VIT_L14, 32), argv)
    return harness.run(benchmark("ViT-B/16", models.VIT_B16, 2), argv)


if __name__ == "__main__":
    main()
