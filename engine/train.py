"""The training loop: epochs of steps, validation, checkpoints."""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engine.checkpoints import CheckpointStore, publish
from engine.flops import count_flops, peak_flops
from engine.meter import Meter
from engine.optim import set_lr
from engine.sharding import clip_gradients, gathered, local_gradients
from engine.state import TrainState
from utils.distributed import any_process, gather, is_main, rank, sum_over_processes, wrap_ddp
from utils.logger import MetricWriter, progress
from utils.precision import Precision, copy_to
from utils.run_folder import BEST_CHECKPOINT, CHECKPOINT, EMA_CHECKPOINT, NON_FINITE_CHECKPOINT
from utils.signals import StopRequest, stop_requests
from utils.weights.four_keys import save_checkpoint

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.05  # of an epoch's videos
LossFn = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Training:
    """What training needs and does not change."""

    loader: DataLoader  # its batch_sampler is a TrainBatches
    classes: Tensor  # class features [K, D], or tokens [K, M, 77]
    loss: LossFn  # (VideoOutput, labels) -> loss, parts
    lr_at: Callable[[float], float]  # epoch with fraction -> lr
    validate: Callable[[nn.Module], dict[str, float]]  # top1 and top5 of a model as it is
    precision: Precision
    epochs: int
    accumulation: int
    clip_grad_norm: float
    seed: int
    shared_draws: bool  # experts are drawn alike on every process and in every step of an update
    print_freq: int
    eval_freq: int
    save_minutes: float
    folder: Path
    store: CheckpointStore
    example: Tensor  # a batch of empty clips in the shape and type of the loader's, [B, T, ...]
    metadata: dict = field(default_factory=dict)  # plain values that checkpoints carry along


def train(state: TrainState, run: Training) -> dict[str, float]:
    """Train to the last epoch; returns the last validation's figures, ``best_top1`` and ``best_epoch``.

    SIGTERM and SIGINT save the state and end the process with 128 + signal.
    """
    ddp = wrap_ddp(state.model, run.precision.device)
    again = "val/" if state.must_validate else ""
    writer = MetricWriter(run.folder, state.epoch * len(run.loader) + state.step, again)
    figures: dict[str, float] = {}
    _publish(state, run)  # a run may have been killed between writing its checkpoint and naming it
    meter = Meter(run.precision.device, *_utilisation(state, run))
    with stop_requests() as stop:
        while state.epoch < run.epochs or state.must_validate:
            if not state.must_validate:
                if state.step < len(run.loader):  # else the epoch was left when only its end was to do
                    train_epoch(ddp, state, run, writer, stop, meter)
                state.epoch, state.step = state.epoch + 1, 0
                for _, model in _models(state):
                    _remember_train_classes(model, run.classes)
                state.must_validate = state.epoch % run.eval_freq == 0 or state.epoch == run.epochs
                _save(state, run)  # validation may take long, and be cut short
            if state.must_validate:
                figures = _validate(state, run, writer)
                state.must_validate = False
                _save(state, run)
            _publish(state, run)
            if state.epoch < run.epochs and any_process(bool(stop.signum)):
                _stop(state, stop)
    writer.close()
    return figures | {"best_top1": state.best_top1, "best_epoch": state.best_epoch}


def train_epoch(
    ddp: nn.Module, state: TrainState, run: Training, writer: MetricWriter, stop: StopRequest, meter: Meter
) -> None:
    """The rest of an epoch, from ``state.step`` on."""
    num_steps, last_save = len(run.loader), time.monotonic()
    run.loader.batch_sampler.set_epoch(state.epoch, state.step)
    state.model.train()
    meter.restart()
    failed: set[str] = set()
    steps: list[dict[str, Tensor]] = []  # of an accumulation window
    for batch in progress(run.loader, f"epoch {state.epoch + 1}/{run.epochs}", num_steps, state.step):
        meter.data_arrived()
        failed |= _report_failures(batch)
        window = _accumulation_window(state.step, num_steps, run.accumulation)
        rates = set_lr(state.optimizer, run.lr_at(state.epoch + window.start / num_steps))
        values = _backward(ddp, batch, state, run, window)
        steps.append(values)
        state.step += 1
        if state.step == window.stop:
            values["grad_norm"] = _update(state, run, steps)
            steps.clear()
        meter.add(len(batch.labels), values)
        if state.step < window.stop or not _is_due(window, run.print_freq, num_steps):
            continue
        metrics = meter.read() | rates
        writer.write(state.epoch * num_steps + state.step, {f"train/{k}": v for k, v in metrics.items()})
        _log(f"epoch {state.epoch + 1}/{run.epochs} step {state.step}/{num_steps}", metrics)
        must_stop = any_process(bool(stop.signum))
        if must_stop or any_process(is_main() and time.monotonic() - last_save >= 60 * run.save_minutes):
            _save(state, run)
            last_save = time.monotonic()
        if must_stop:
            _stop(state, stop)
    _check_failures(failed, run.loader)


def _stop(state: TrainState, stop: StopRequest) -> NoReturn:
    """End the process; the state is saved."""
    logger.warning("stopped by a signal after epoch %d, step %d; resume=auto continues", state.epoch, state.step)
    raise SystemExit(128 + (stop.signum or signal.SIGTERM))


def _backward(ddp: nn.Module, batch, state: TrainState, run: Training, window: range) -> dict[str, Tensor]:
    """Forward and backward pass of one batch; returns the loss, its parts, the logit scale and the draws, detached."""
    device = run.precision.device
    generator = seed_step(run.seed, rank(), state.epoch * len(run.loader) + state.step)
    if run.shared_draws:
        updates = math.ceil(len(run.loader) / run.accumulation)  # an epoch's
        generator = seed_update(run.seed, state.epoch * updates + window.start // run.accumulation)
    frames = batch.clips if batch.features is None else batch.features
    frames = frames[:, 0].to(device, non_blocking=True)  # a sample has one view
    labels = batch.labels.to(device, non_blocking=True)
    mixing = state.model.draw_mixing(generator)
    draws = None if mixing is None else copy_to(device, mixing)
    with _no_sync(ddp, skip=state.step + 1 < window.stop):
        with run.precision.autocast():
            output = ddp(frames, run.classes, draws)
            loss, parts = run.loss(output, labels)
        state.scaler.scale(loss / len(window)).backward()
    values = {"loss": loss.detach(), **parts, "logit_scale": output.logit_scale.detach()}
    return values if draws is None else values | {"draws": draws[:, 0]}  # [layers, E], share of steps


def _update(state: TrainState, run: Training, steps: list[dict[str, Tensor]]) -> Tensor:
    """One optimizer step; returns the norm of all gradients before clipping.

    Args:
        steps: values of the steps whose gradients it takes.

    Raises:
        FloatingPointError: loss or gradients are not finite; nothing was updated, the state is kept for inspection.
    """
    state.scaler.unscale_(state.optimizer)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = clip_gradients(parameters, run.clip_grad_norm or torch.inf)
    # fp16's scaler expects infinite gradients now and then, and skips their update itself: there the losses tell.
    losses = [values["loss"] for values in steps]
    is_wrong = ~torch.stack(losses if state.scaler.is_enabled() else [*losses, norm]).isfinite().all()
    if sum_over_processes(is_wrong.float()):  # the one place where a step waits for the device
        content = state.content()
        if is_main():
            save_checkpoint(run.folder / NON_FINITE_CHECKPOINT, content | run.metadata)
        found = gather(_first_not_finite(steps))
        culprits = [f"{values} on process {index}" for index, values in enumerate(found) if values]
        raise FloatingPointError(
            f"not finite in epoch {state.epoch + 1}, step {state.step}: "
            f"{'; '.join([*culprits, f'gradient norm {norm.item():.4g}'])}; "
            f"the state before this update is in {run.folder / NON_FINITE_CHECKPOINT}; try a lower solver.lr"
        )
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema:
        state.ema.update_parameters(state.model)
    return norm


def _first_not_finite(steps: list[dict[str, Tensor]]) -> str:
    """The values of the first step whose loss is not finite; empty if all are."""
    for values in steps:
        if not values["loss"].isfinite():
            return ", ".join(f"{name} {value.item():.4g}" for name, value in values.items() if value.ndim == 0)
    return ""


def seed_step(seed: int, rank: int, step: int) -> torch.Generator:
    """Seed one training step: torch's global generators (dropout), and the CPU generator returned (expert draws).

    All depend on (seed, rank, step) alone.
    """
    keys = np.random.SeedSequence((seed, rank, step)).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(keys[1]))
    return torch.Generator().manual_seed(int(keys[0]))


def seed_update(seed: int, update: int) -> torch.Generator:
    """The CPU generator of expert draws that all processes and all steps of an update share."""
    key = np.random.SeedSequence(seed, spawn_key=(update,)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> np.uint64(1)))


def _models(state: TrainState) -> list[tuple[str, nn.Module]]:
    """The models to validate, with the prefix of their figures."""
    return [("", state.model)] + ([("ema_", state.ema.module)] if state.ema else [])


def _validate(state: TrainState, run: Training, writer: MetricWriter) -> dict[str, float]:
    """Figures of the model, and with ``ema_`` before their names those of the averaged weights."""
    figures = {}
    for prefix, model in _models(state):
        with gathered(model):
            figures |= {prefix + name: value for name, value in run.validate(model).items()}
    logger.info("epoch %d: %s", state.epoch, "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    writer.write(state.epoch * len(run.loader), {f"val/{name}": value for name, value in figures.items()})
    if figures["top1"] > state.best_top1:
        state.best_top1, state.best_epoch = figures["top1"], state.epoch
    return figures


def _save(state: TrainState, run: Training) -> None:
    content = state.content()
    if is_main():
        run.store.save(content | run.metadata, state.epoch, state.step)


def _publish(state: TrainState, run: Training) -> None:
    """Give the checkpoint of an epoch's end its public names."""
    checkpoint = run.store.path(state.epoch, state.step)
    if not is_main() or state.step or not checkpoint.exists():
        return
    publish(checkpoint, run.folder / CHECKPOINT)
    if state.best_epoch == state.epoch:
        publish(checkpoint, run.folder / BEST_CHECKPOINT)
    if state.ema:
        save_checkpoint(run.folder / EMA_CHECKPOINT, state.ema_content() | run.metadata)


def _utilisation(state: TrainState, run: Training) -> tuple[float | None, float | None]:
    """Operations of one video, and of the device a second in half precision; None where unknown."""
    peak = peak_flops(run.precision.device)
    if peak is None or run.precision.name == "fp32":
        return None, None
    mixing = state.model.draw_mixing(torch.Generator().manual_seed(0))
    clips = run.example.to("meta")
    labels = torch.zeros(len(clips), dtype=torch.long, device="meta")
    classes = run.classes.to("meta" if run.classes.is_floating_point() else "cpu")

    def loss(model: nn.Module) -> Tensor:
        return run.loss(model(clips, classes, mixing if mixing is None else mixing.to("meta")), labels)[0]

    # Of a whole batch: a text tower that trains runs once for all its videos.
    return count_flops(state.model, loss) / len(clips), peak


@torch.no_grad()
def _remember_train_classes(model: nn.Module, classes: Tensor) -> None:
    """Store the class features as they are now; they change where the text tower trains."""
    model.eval()
    with gathered(model):
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
    if not skip:
        return contextlib.nullcontext()
    return ddp.no_sync() if hasattr(ddp, "no_sync") else local_gradients(ddp)


def _log(where: str, metrics: dict[str, float]) -> None:
    shown = (f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)
    logger.info("%s  %s", where, "  ".join(shown))


def _report_failures(batch) -> set[str]:
    """Log the videos of a batch that could not be read; returns their paths."""
    for path, reason in batch.mismatches:
        logger.warning("perhaps other frames than asked for: %s (%s)", path, reason)
    for path, reason in batch.failures:
        logger.warning("unreadable, replaced by another video: %s (%s)", path, reason)
    if batch.is_empty:
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
