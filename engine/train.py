"""The training loop: epochs of steps, validation, checkpoints."""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.checkpoint import CheckpointStore, publish, save_checkpoint, weights_of
from utils.distributed import any_process, gather, is_main, rank, sum_over_processes, world_size, wrap_ddp
from utils.logger import MetricWriter, progress
from utils.precision import Precision
from utils.run_folder import BEST_CHECKPOINT, CHECKPOINT, NON_FINITE_CHECKPOINT
from utils.signals import StopRequest, stop_requests
from utils.solver import set_lr

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.05  # of an epoch's videos
LossFn = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass
class TrainState:
    """Everything that training changes; what a checkpoint holds.

    Random numbers are not part of it: those of a step depend on (seed, rank, step), those of a sample on
    (seed, epoch, index), so a run that continues draws what it would have drawn.
    """

    model: nn.Module  # a VideoCLIP
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0  # epochs finished
    step: int = 0  # steps done of the epoch after these
    best_top1: float = -1.0

    def content(self) -> dict:
        """As checkpoint: the four published keys, where ``epoch`` is the last finished one, and ours."""
        return {
            "epoch": self.epoch - 1,
            **weights_of(self.model),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scaler_state_dict": self.scaler.state_dict(),
            "step": self.step,
            "best_top1": self.best_top1,
        }

    def resume(self, checkpoint: dict) -> None:
        """Continue where the checkpoint was written; its weights are loaded separately.

        Raises:
            ValueError: a checkpoint without optimizer state, such as a released one.
        """
        missing = [key for key in ("scaler_state_dict", "step", "best_top1") if key not in checkpoint]
        if missing or not checkpoint["optimizer_state_dict"]:
            raise ValueError("resume: the checkpoint has no training state; to start from its weights use pretrain")
        # Weight decay, lr ratios and the like are the configuration's, not the checkpoint's.
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        if checkpoint["scaler_state_dict"]:  # empty in other precisions than fp16
            self.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        self.epoch, self.step = checkpoint["epoch"] + 1, checkpoint["step"]
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
    clip_grad_norm: float
    seed: int
    print_freq: int
    eval_freq: int
    save_minutes: float
    folder: Path
    store: CheckpointStore
    metadata: dict = field(default_factory=dict)  # plain values that checkpoints carry along


def train(state: TrainState, run: Training) -> dict[str, float]:
    """Train to the last epoch; returns the last validation's figures and ``best_top1``.

    SIGTERM and SIGINT save the state and end the process with 128 + signal.
    """
    ddp = wrap_ddp(state.model, run.precision.device)
    writer = MetricWriter(run.folder)
    figures: dict[str, float] = {}
    with stop_requests() as stop:
        while state.epoch < run.epochs:
            train_epoch(ddp, state, run, writer, stop)
            state.epoch, state.step = state.epoch + 1, 0
            _remember_train_classes(state.model, run.classes)
            is_best = False
            if state.epoch % run.eval_freq == 0 or state.epoch == run.epochs:
                figures = run.validate()
                is_best = figures["top1"] > state.best_top1
                state.best_top1 = max(figures["top1"], state.best_top1)
                logger.info("epoch %d: top1 %.2f top5 %.2f", state.epoch, figures["top1"], figures["top5"])
                writer.write(state.epoch * len(run.loader), {f"val/{name}": x for name, x in figures.items()})
            if is_main():
                checkpoint = _save(state, run)
                publish(checkpoint, run.folder / CHECKPOINT)
                if is_best:
                    publish(checkpoint, run.folder / BEST_CHECKPOINT)
    writer.close()
    return figures | {"best_top1": state.best_top1}


def train_epoch(ddp: nn.Module, state: TrainState, run: Training, writer: MetricWriter, stop: StopRequest) -> None:
    """The rest of an epoch, from ``state.step`` on."""
    num_steps, last_save = len(run.loader), time.monotonic()
    run.loader.batch_sampler.set_epoch(state.epoch, state.step)
    state.model.train()
    meter = _Meter()
    failed: set[str] = set()
    for batch in progress(_batches(run.loader), f"epoch {state.epoch + 1}/{run.epochs}", num_steps, state.step):
        meter.data_arrived()
        failed |= _report_failures(batch)
        window = _accumulation_window(state.step, num_steps, run.accumulation)
        rates = set_lr(state.optimizer, run.lr_at(state.epoch + state.step / num_steps))
        values = _backward(ddp, batch, state, run, window)
        state.step += 1
        if state.step == window.stop:
            values["grad_norm"] = _update(state, run, values)
        meter.add(len(batch.labels), values)
        if state.step < window.stop or not _is_due(window, run.print_freq, num_steps):
            continue
        metrics = meter.read() | rates
        writer.write(state.epoch * num_steps + state.step, {f"train/{k}": v for k, v in metrics.items()})
        _log(f"epoch {state.epoch + 1}/{run.epochs} step {state.step}/{num_steps}", metrics)
        must_stop = any_process(bool(stop.signum))
        if is_main() and (must_stop or time.monotonic() - last_save >= 60 * run.save_minutes):
            _save(state, run)
            last_save = time.monotonic()
        if must_stop:
            logger.warning(
                "stopped by a signal after epoch %d, step %d; resume=auto continues", state.epoch, state.step
            )
            raise SystemExit(128 + (stop.signum or signal.SIGTERM))
    _check_failures(failed, run.loader)


def _backward(ddp: nn.Module, batch, state: TrainState, run: Training, window: range) -> dict[str, Tensor]:
    """Forward and backward pass of one batch; returns the loss, its parts and the logit scale, detached."""
    device = run.precision.device
    generator = seed_step(run.seed, rank(), state.epoch * len(run.loader) + state.step)
    frames = batch.frames[:, 0].to(device, non_blocking=True)  # one view a clip
    labels = batch.labels.to(device, non_blocking=True)
    mixing = state.model.draw_mixing(generator)
    with _no_sync(ddp, skip=state.step + 1 < window.stop):
        with run.precision.autocast():
            output = ddp(frames, run.classes, mixing if mixing is None else mixing.to(device))
            loss, parts = run.loss(output, labels)
        state.scaler.scale(loss / len(window)).backward()
    return {"loss": loss.detach(), **parts, "logit_scale": output.logit_scale.detach()}


def _update(state: TrainState, run: Training, values: dict[str, Tensor]) -> Tensor:
    """One optimizer step; returns the norm of all gradients before clipping.

    Raises:
        FloatingPointError: loss or gradients are not finite; nothing was updated, the state is kept for inspection.
    """
    state.scaler.unscale_(state.optimizer)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, run.clip_grad_norm or torch.inf)
    # fp16's scaler expects infinite gradients now and then, and skips their update itself.
    if not values["loss"].isfinite() or not (norm.isfinite() or state.scaler.is_enabled()):
        if is_main():
            save_checkpoint(run.folder / NON_FINITE_CHECKPOINT, state.content() | run.metadata)
        parts = ", ".join(f"{name} {value.item():.4g}" for name, value in values.items())
        raise FloatingPointError(
            f"not finite in epoch {state.epoch + 1}, step {state.step}: {parts}, gradient norm {norm.item():.4g}; "
            f"the state before this update is in {run.folder / NON_FINITE_CHECKPOINT}; try a lower solver.lr"
        )
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    return norm


def seed_step(seed: int, rank: int, step: int) -> torch.Generator:
    """Seed one training step: torch's global generators (dropout), and the CPU generator returned (expert draws).

    All depend on (seed, rank, step) alone.
    """
    keys = np.random.SeedSequence((seed, rank, step)).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(keys[1]))
    return torch.Generator().manual_seed(int(keys[0]))


def _save(state: TrainState, run: Training) -> Path:
    return run.store.save(state.content() | run.metadata, state.epoch, state.step)


def _batches(loader: DataLoader) -> Iterator:
    """The loader's batches; a worker that died is an error that says so."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise ChildProcessError(
            f"a data worker died or hung ({str(error).splitlines()[0]}); lower data.workers if memory is short"
        ) from error


@torch.no_grad()
def _remember_train_classes(model: nn.Module, classes: Tensor) -> None:
    """Store the class features as they are now; they change where the text tower trains."""
    model.eval()
    model.remember_train_classes(model.class_features(classes))


def _accumulation_window(step: int, num_steps: int, accumulation: int) -> range:
    """The steps whose gradients are summed into one update; the epoch's last window may be shorter."""
    start = step - step % accumulation
    return range(start, min(start + accumulation, num_steps))


def _is_due(window: range, every: int, num_steps: int) -> bool:
    """Whether a window ends the epoch or passes a multiple of ``every`` steps."""
    return window.stop == num_steps or window.stop // every > window.start // every


def _no_sync(ddp: nn.Module, skip: bool) -> contextlib.AbstractContextManager:
    """Skip averaging gradients over processes, for all but the last step of a window."""
    return ddp.no_sync() if skip and hasattr(ddp, "no_sync") else contextlib.nullcontext()


class _Meter:
    """Means since the last reading, summed on the device: reading is the only synchronisation."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._videos = 0
        self._data_s = 0.0
        self._start = self._last_time = time.perf_counter()

    def data_arrived(self) -> None:
        """A batch came out of the loader: count the time since the step before as waiting."""
        self._data_s += time.perf_counter() - self._last_time

    def add(self, num_videos: int, values: dict[str, Tensor]) -> None:
        """Count one step."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0, 0))
            self._sums[name] = total + value, count + 1
        self._videos += num_videos
        self._last_time = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Means over steps and processes, videos/s of all processes, share of time waiting for data."""
        means = torch.stack([total.float() / count for total, count in self._sums.values()])
        means = sum_over_processes(means) / world_size()
        metrics = dict(zip(self._sums, means.tolist(), strict=True))
        elapsed_s = time.perf_counter() - self._start
        metrics["videos_per_s"] = world_size() * self._videos / elapsed_s
        metrics["data_share"] = self._data_s / elapsed_s
        self._reset()
        return metrics


def _log(where: str, metrics: dict[str, float]) -> None:
    logger.info("%s  %s", where, "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))


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
