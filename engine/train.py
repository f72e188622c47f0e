"""The training loop: epochs of steps, validation, checkpoints."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.checkpoint import save_checkpoint, weights_of
from utils.distributed import gather, is_main, rank, sum_over_processes, world_size, wrap_ddp
from utils.logger import MetricWriter, progress
from utils.precision import Precision
from utils.run_folder import BEST_CHECKPOINT, CHECKPOINT
from utils.solver import set_lr

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.05  # of an epoch's videos
LossFn = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass
class TrainState:
    """Everything that training changes; what a checkpoint holds."""

    model: nn.Module  # a VideoCLIP
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0  # epochs finished
    best_top1: float = -1.0

    def content(self) -> dict:
        """As checkpoint: the four published keys, where ``epoch`` is the last finished one, and ours."""
        return {
            "epoch": self.epoch - 1,
            **weights_of(self.model),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scaler_state_dict": self.scaler.state_dict(),
            "best_top1": self.best_top1,
        }

    def resume(self, checkpoint: dict) -> None:
        """Continue after the checkpoint's epoch; its weights are loaded separately.

        Raises:
            ValueError: a checkpoint without optimizer state, such as a released one.
        """
        missing = [key for key in ("scaler_state_dict", "best_top1") if key not in checkpoint]
        if missing or not checkpoint["optimizer_state_dict"]:
            raise ValueError("resume: the checkpoint has no training state; to start from its weights use pretrain")
        self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        self.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        self.epoch = checkpoint["epoch"] + 1
        self.best_top1 = checkpoint["best_top1"]


@dataclass(frozen=True)
class Training:
    """What training needs and does not change."""

    loader: DataLoader  # its batch_sampler is a TrainBatches
    classes: Tensor  # class features [K, D], or tokens [K, M, 77]
    loss: LossFn  # (VideoOutput, labels) -> loss, parts
    lr_at: Callable[[float], float]  # epoch with fraction -> lr
    validate: Callable[[], dict[str, float]]  # top1 and top5 of the model as it is
    precision: Precision
    epochs: int
    accumulation: int
    seed: int
    print_freq: int
    eval_freq: int
    folder: Path
    metadata: dict = field(default_factory=dict)  # plain values that checkpoints carry along


def train(state: TrainState, run: Training) -> dict[str, float]:
    """Train to the last epoch; returns the last validation's figures and ``best_top1``."""
    ddp = wrap_ddp(state.model, run.precision.device)
    writer = MetricWriter(run.folder)
    figures: dict[str, float] = {}
    while state.epoch < run.epochs:
        train_epoch(ddp, state, run, writer)
        state.epoch += 1
        _remember_train_classes(state.model, run.classes)
        is_best = False
        if state.epoch % run.eval_freq == 0 or state.epoch == run.epochs:
            figures = run.validate()
            is_best = figures["top1"] > state.best_top1
            state.best_top1 = max(figures["top1"], state.best_top1)
            logger.info("epoch %d: top1 %.2f top5 %.2f", state.epoch, figures["top1"], figures["top5"])
            step = state.epoch * len(run.loader)
            writer.write(step, {f"val/{name}": value for name, value in figures.items()} | {"epoch": state.epoch})
        if is_main():
            content = state.content() | run.metadata
            save_checkpoint(run.folder / CHECKPOINT, content)
            if is_best:
                save_checkpoint(run.folder / BEST_CHECKPOINT, content)
    writer.close()
    return figures | {"best_top1": state.best_top1}


def train_epoch(ddp: nn.Module, state: TrainState, run: Training, writer: MetricWriter) -> None:
    """One pass over the training videos."""
    device, num_steps = run.precision.device, len(run.loader)
    run.loader.batch_sampler.set_epoch(state.epoch)
    state.model.train()
    meter = _Meter(device)
    failed: set[str] = set()
    for step, batch in enumerate(progress(run.loader, f"epoch {state.epoch + 1}/{run.epochs}")):
        meter.data_arrived()
        failed |= _report_failures(batch)
        rates = set_lr(state.optimizer, run.lr_at(state.epoch + step / num_steps))
        window = _accumulation_window(step, num_steps, run.accumulation)
        generator = step_generator(run.seed, rank(), state.epoch * num_steps + step)
        frames = batch.frames[:, 0].to(device, non_blocking=True)  # one view a clip
        labels = batch.labels.to(device, non_blocking=True)
        mixing = state.model.draw_mixing(generator)
        with _no_sync(ddp, skip=step + 1 < window.stop), run.precision.autocast():
            output = ddp(frames, run.classes, mixing if mixing is None else mixing.to(device))
            loss, parts = run.loss(output, labels)
            state.scaler.scale(loss / len(window)).backward()
        if step + 1 == window.stop:
            state.scaler.step(state.optimizer)
            state.scaler.update()
            state.optimizer.zero_grad(set_to_none=True)
        meter.add(len(labels), {"loss": loss.detach(), **parts, "logit_scale": output.logit_scale.detach()})
        if (step + 1) % run.print_freq == 0 or step + 1 == num_steps:
            metrics = meter.read() | rates
            _check_finite(metrics["loss"], state.epoch, step)
            writer.write(state.epoch * num_steps + step + 1, {f"train/{k}": v for k, v in metrics.items()})
            _log(f"epoch {state.epoch + 1}/{run.epochs} step {step + 1}/{num_steps}", metrics)
    _check_failures(failed, run.loader)


def step_generator(seed: int, rank: int, step: int) -> torch.Generator:
    """CPU generator of one training step: the expert draws depend on (seed, rank, step) alone."""
    key = np.random.SeedSequence((seed, rank, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> np.uint64(1)))


@torch.no_grad()
def _remember_train_classes(model: nn.Module, classes: Tensor) -> None:
    """Store the class features as they are now; they change where the text tower trains."""
    model.eval()
    model.remember_train_classes(model.class_features(classes))


def _accumulation_window(step: int, num_steps: int, accumulation: int) -> range:
    """The steps whose gradients are summed into one update; the epoch's last window may be shorter."""
    start = step - step % accumulation
    return range(start, min(start + accumulation, num_steps))


def _no_sync(ddp: nn.Module, skip: bool) -> contextlib.AbstractContextManager:
    """Skip averaging gradients over processes, for all but the last step of a window."""
    return ddp.no_sync() if skip and hasattr(ddp, "no_sync") else contextlib.nullcontext()


class _Meter:
    """Means since the last reading, summed on the device: reading is the only synchronisation."""

    def __init__(self, device: torch.device):
        self._device = device
        self._last_time = time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._videos = self._steps = 0
        self._data_s, self._start = 0.0, time.perf_counter()

    def data_arrived(self) -> None:
        """A batch came out of the loader: count the time since the step before as waiting."""
        self._data_s += time.perf_counter() - self._last_time

    def add(self, num_videos: int, values: dict[str, Tensor]) -> None:
        """Count one step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._videos += num_videos
        self._steps += 1
        self._last_time = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Means over steps and processes, videos/s of all processes, share of time waiting for data."""
        names = list(self._sums)
        sums = torch.stack([self._sums[name].float() for name in names])
        means = sum_over_processes(sums / self._steps) / world_size()
        metrics = dict(zip(names, means.tolist(), strict=True))
        elapsed_s = time.perf_counter() - self._start
        metrics["videos_per_s"] = world_size() * self._videos / elapsed_s
        metrics["data_share"] = self._data_s / elapsed_s
        self._reset()
        return metrics


def _log(where: str, metrics: dict[str, float]) -> None:
    logger.info("%s  %s", where, "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))


def _check_finite(loss: float, epoch: int, step: int) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} at or before epoch {epoch + 1}, step {step + 1}; lower solver.lr")


def _report_failures(batch) -> set[str]:
    """Log the videos of a batch that could not be read; returns their paths."""
    for path, reason in batch.failures:
        logger.warning("unreadable, replaced by another video: %s (%s)", path, reason)
    if batch.frames is None:
        raise ValueError(f"no video of a batch could be read, the last was {batch.failures[-1].path}")
    return {failure.path for failure in batch.failures}


def _check_failures(failed: set[str], loader: DataLoader) -> None:
    """Stop when more than 5 % of the videos could not be read in an epoch, over all processes."""
    num_failed, num_videos = len(set().union(*gather(failed))), len(loader.dataset)
    if num_failed:
        logger.warning("%d of %d videos of this epoch could not be read", num_failed, num_videos)
    if num_failed > MAX_FAILED_SHARE * num_videos:
        raise ValueError(
            f"{num_failed} of {num_videos} training videos could not be read, more than {MAX_FAILED_SHARE:.0%}; "
            "check data.train_root and the files named above"
        )
