"""The training loop.

An epoch is a sequence of updates, an update one or more steps. A step runs one batch forward and backward; the weights
change in the update, after its last step.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from engine.checkpoints import CheckpointStore, publish
from engine.draws import draws_of_step, draws_of_update
from engine.failures import (
    can_wait,
    check_failed_share,
    put_off,
    report_replaced,
    settle,
    stop_if_wrong,
    verdict_of,
)
from engine.meter import Meter
from engine.optim import set_lr
from engine.sharding import clip_gradients, gathered, gradients_shared
from engine.state import TrainState, pretrained_tensors
from modules.systems.base import Batch, System
from utils.distributed import any_process, average_over_processes, broadcast, is_main, rank, wrap_ddp
from utils.logger import MetricWriter, progress
from utils.precision import Precision
from utils.run_folder import AVERAGE_CHECKPOINT, BEST_CHECKPOINT, CHECKPOINT, EMA_CHECKPOINT
from utils.signals import StopRequest, stop_requests
from utils.weights.four_keys import save_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What training needs and does not change."""

    loader: DataLoader  # its batch_sampler is a TrainBatches, or SourceBatches
    lr_at: Callable[[float], float]  # epoch with fraction -> lr
    # Figures in percent of a model, raw or averaged; the first, such as top1, says which is the best
    validate: Callable[[System], dict[str, float]]
    precision: Precision
    epochs: int
    accumulation: int  # steps of an update
    clip_grad_norm: float
    seed: int
    shared_draws: bool  # every process and every step of an update draws alike
    print_freq: int  # steps
    eval_freq: int  # epochs
    save_minutes: float  # at least, between checkpoints within an epoch
    folder: Path
    store: CheckpointStore
    utilisation: tuple[float | None, float | None]  # see engine.flops
    metadata: dict = field(default_factory=dict)  # plain values that checkpoints carry along


def train(state: TrainState, training: Training) -> dict[str, float]:
    """Train to the last epoch; returns the last validation's figures, ``best_top1`` and ``best_epoch``.

    SIGTERM and SIGINT save the state and end the process with 128 + signal.
    """
    ddp = wrap_ddp(state.model, training.precision.device)
    again = "val/" if state.must_validate else ""  # figures of this step that may be written already
    writer = MetricWriter(training.folder, state.epoch * len(training.loader) + state.step, again)
    figures: dict[str, float] = {}
    _publish(state, training)  # a run may have been killed between writing its checkpoint and naming it
    meter = Meter(training.precision.device, *training.utilisation)
    with stop_requests() as stop:
        while state.epoch < training.epochs or state.must_validate:
            if not state.must_validate:
                if state.step < len(training.loader):  # else it was left after its last step, before its end
                    train_epoch(ddp, state, training, writer, stop, meter)
                state.epoch, state.step = state.epoch + 1, 0
                for model in filter(None, (state.model, state.ema and state.ema.module)):
                    _remember_classes(model)  # before the checkpoint, which tests read them from
                if state.average:
                    state.average.add(pretrained_tensors(state.model), state.epoch / training.epochs)
                state.must_validate = state.epoch % training.eval_freq == 0 or state.epoch == training.epochs
                _save(state, training)  # validation may take long, and be cut short
            if state.must_validate:
                figures = _validate(state, training, writer)
                state.must_validate = False
                _save(state, training)
            _publish(state, training)
            if state.epoch < training.epochs and any_process(bool(stop.signum)):
                _stop(state, stop)
    writer.close()
    return figures | {"best_top1": state.best_top1, "best_epoch": state.best_epoch}


def train_epoch(
    ddp: nn.Module, state: TrainState, training: Training, writer: MetricWriter, stop: StopRequest, meter: Meter
) -> None:
    """The rest of an epoch, from ``state.step`` on."""
    num_steps, last_save = len(training.loader), time.monotonic()
    training.loader.batch_sampler.set_epoch(state.epoch, state.step)
    state.model.train()
    meter.restart()
    failed: set[str] = set()
    reports: list[dict[str, Tensor]] = []  # of the steps of an update
    for loaded in progress(training.loader, f"epoch {state.epoch + 1}/{training.epochs}", num_steps, state.step):
        meter.data_arrived()
        failed |= report_replaced(loaded)
        window = _accumulation_window(state.step, num_steps, training.accumulation)
        rates = set_lr(state.optimizer, training.lr_at(state.epoch + window.start / num_steps))
        report = train_step(ddp, batch_of(loaded, training.precision.device), state, training, window)
        reports.append(report)
        state.step += 1
        if state.step == window.stop:
            report["grad_norm"] = update(state, training, reports)
            reports = []
        meter.add(len(loaded.labels), report | share_of_cut_texts(loaded))
        if state.step == window.stop and _is_due(window, training.print_freq, num_steps):
            settle(state, training.folder, training.metadata)  # before anything is reported or saved
            _log(state, training, writer, meter.read() | rates)
            # Processes agree here only, since asking all of them takes time; the main process's clock counts.
            must_stop = any_process(bool(stop.signum))
            if must_stop or any_process(is_main() and time.monotonic() - last_save >= 60 * training.save_minutes):
                _save(state, training)
                last_save = time.monotonic()
            if must_stop:
                _stop(state, stop)
    check_failed_share(failed, training.loader.batch_sampler.num_videos)


def batch_of(loaded: Any, device: torch.device) -> Batch:
    """A batch of the loader on the device: clips [B, T, 3, S, S] or features [B, T, D], of the one view of training.

    Raises:
        ValueError: none of its videos could be read.
    """
    if loaded.is_empty:
        raise ValueError(f"no video of a batch could be read, the last was {loaded.failures[-1].path}")
    inputs = {"clips": loaded.clips, "features": loaded.features, "lengths": loaded.lengths}
    views = {name: value[:, 0].to(device, non_blocking=True) for name, value in inputs.items() if value is not None}
    targets = {"labels": loaded.labels} if loaded.texts is None else {"texts": loaded.texts}
    return Batch(**views, **{name: value.to(device, non_blocking=True) for name, value in targets.items()})


def share_of_cut_texts(loaded: Any) -> dict[str, Tensor]:
    """What is worth a curve of a batch's texts: the share of them that the text tower does not see whole."""
    return {} if loaded.texts is None else {"cut_texts": torch.tensor(loaded.num_cut / loaded.texts[..., 0].numel())}


def train_step(ddp: nn.Module, batch: Batch, state: TrainState, training: Training, window: range) -> dict[str, Tensor]:
    """Forward and backward pass of one batch; no weight changes. Returns the loss and what else the system reports.

    Args:
        window: the steps of the update that this one belongs to.
    """
    draws = draws_of_step(training.seed, rank(), state.epoch * len(training.loader) + state.step)
    if training.shared_draws:  # dropout stays the step's own
        updates = math.ceil(len(training.loader) / training.accumulation)  # an epoch's
        draws = draws_of_update(training.seed, state.epoch * updates + window.start // training.accumulation)
    with gradients_shared(ddp, state.step + 1 == window.stop):
        with training.precision.autocast():
            losses = ddp(batch, draws)  # System.forward, which is the system's loss
        state.scaler.scale(losses.total / len(window)).backward()
    return {"loss": losses.total.detach(), **losses.reported}


def update(state: TrainState, training: Training, reports: list[dict[str, Tensor]]) -> Tensor:
    """Change the weights by the gradients of a few steps; returns the gradients' norm before clipping.

    Args:
        reports: of these steps.

    Raises:
        FloatingPointError: loss or gradients, of this update or of the one before, are not finite; that one changed
            nothing, and the state before it is kept for inspection.
    """
    state.scaler.unscale_(state.optimizer)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = clip_gradients(parameters, training.clip_grad_norm or torch.inf)
    verdict = verdict_of(state, norm, reports)
    settle(state, training.folder, training.metadata)  # of the update before: of this one nothing is asked yet
    if can_wait(state, training.precision.device):
        put_off(state, verdict)
    else:
        stop_if_wrong(verdict, state, training.folder, training.metadata)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    average_over_processes(state.model.towers.statistics())  # each process's are of its own batches
    if state.ema:
        state.ema.update_parameters(state.model)
    if state.model.remedies:
        progress = (state.epoch + state.step / len(training.loader)) / training.epochs
        state.model.remedies.follow(state.model.towers, progress)
    return norm


def _models(state: TrainState) -> Iterator[tuple[str, System]]:
    """The models to validate, one after the other, with the prefix of their figures."""
    yield "", state.model
    if state.ema:
        yield "ema_", state.ema.module
    if state.average:
        with _with_average(state):
            yield "average_", state.model


@contextmanager
def _with_average(state: TrainState) -> Iterator[None]:
    """Context in which the model has the mean over epochs as its weights, and classes encoded with them."""
    with state.average.in_place_of(pretrained_tensors(state.model)):
        _remember_classes(state.model)
        yield
    _remember_classes(state.model)


def _validate(state: TrainState, training: Training, writer: MetricWriter) -> dict[str, float]:
    """Figures of the model, and with a prefix, ``ema_`` or ``average_``, those of averaged weights."""
    figures = {}
    for prefix, model in _models(state):
        with gathered(model):
            figures |= {prefix + name: value for name, value in training.validate(model).items()}
    logger.info("epoch %d: %s", state.epoch, "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    writer.write(state.epoch * len(training.loader), {f"val/{name}": value for name, value in figures.items()})
    if (first := next(iter(figures.values()))) > state.best_top1:
        state.best_top1, state.best_epoch = first, state.epoch
    return figures


def _save(state: TrainState, training: Training) -> None:
    content = state.content()
    if is_main():
        training.store.save(content | training.metadata, state.epoch, state.step)


def _publish(state: TrainState, training: Training) -> None:
    """Give the checkpoint of an epoch's end its public names."""
    checkpoint = training.store.path(state.epoch, state.step)
    if state.step or not broadcast(checkpoint.exists()):
        return
    if state.average:
        with _with_average(state):
            content = state.average_content()  # gathers a sharded model, so every process calls it
            if is_main():
                save_checkpoint(training.folder / AVERAGE_CHECKPOINT, content | training.metadata)
    if not is_main():
        return
    publish(checkpoint, training.folder / CHECKPOINT)
    if state.best_epoch == state.epoch:
        publish(checkpoint, training.folder / BEST_CHECKPOINT)
    if state.ema:  # never sharded, see modules.build.check_network
        save_checkpoint(training.folder / EMA_CHECKPOINT, state.ema_content() | training.metadata)


@torch.no_grad()
def _remember_classes(model: System) -> None:
    """Let the system keep the training classes as they are now; they change where the text tower trains."""
    model.eval()
    with gathered(model):
        model.remember(model.classes.encode(model.towers))


def _accumulation_window(step: int, num_steps: int, accumulation: int) -> range:
    """The steps whose gradients are summed into one update; the epoch's last window may be shorter."""
    start = step - step % accumulation
    return range(start, min(start + accumulation, num_steps))


def _is_due(window: range, every: int, num_steps: int) -> bool:
    """Whether a window ends the epoch or passes a multiple of ``every`` steps."""
    return window.stop == num_steps or window.stop // every > window.start // every


def _log(state: TrainState, training: Training, writer: MetricWriter, metrics: dict[str, float]) -> None:
    """Log what the last steps reported."""
    num_steps = len(training.loader)
    writer.write(state.epoch * num_steps + state.step, {f"train/{name}": value for name, value in metrics.items()})
    shown = (f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)  # not parts of tensors
    logger.info("epoch %d/%d step %d/%d  %s", state.epoch + 1, training.epochs, state.step, num_steps, "  ".join(shown))


def _stop(state: TrainState, stop: StopRequest) -> NoReturn:
    """End the process; the state is saved."""
    logger.warning("stopped by a signal after epoch %d, step %d; resume=auto continues", state.epoch, state.step)
    raise SystemExit(128 + (stop.signum or signal.SIGTERM))
