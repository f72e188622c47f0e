"""What goes wrong in training: videos that cannot be read, and updates that are not finite.

No weight changes by an update whose loss or gradients are not finite, and the run stops. A GPU decides by itself
whether it changes weights, and the host reads what it decided one update later, so that no step waits for the device.
Elsewhere, and where more than the optimizer follows from an update, the host asks at once.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.sharding import is_sharded
from engine.state import TrainState
from utils.distributed import gather, is_main, sum_over_processes
from utils.run_folder import NON_FINITE_CHECKPOINT
from utils.weights.four_keys import save_checkpoint

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.05  # of an epoch's videos


def report_replaced(batch: Any) -> set[str]:
    """Log the videos of a batch (``datasets.clips.video.Batch``) that could not be read; returns their paths."""
    report_mismatches(dict(batch.mismatches))
    for path, reason in batch.failures:
        logger.warning("unreadable, replaced by another video: %s (%s)", path, reason)
    return {failure.path for failure in batch.failures}


def report_mismatches(mismatches: dict[str, str]) -> None:
    """Log videos (path -> reason) that were read, but perhaps not at the frames asked for."""
    for path, reason in sorted(mismatches.items()):
        logger.warning("perhaps other frames than asked for: %s (%s)", path, reason)


def check_failed_share(failed: set[str], num_videos: int) -> None:
    """Stop when more than 5 % of the videos could not be read in an epoch, over all processes.

    Raises:
        ValueError: on every process.
    """
    num_failed = len(set().union(*gather(failed)))
    if num_failed:
        logger.warning("%d of %d videos of this epoch could not be read", num_failed, num_videos)
    if num_failed > MAX_FAILED_SHARE * num_videos:
        raise ValueError(
            f"{num_failed} of {num_videos} training videos could not be read, more than {MAX_FAILED_SHARE:.0%}; "
            "check data.train_root, or the roots of data.sources, and the files named above"
        )


@dataclass(frozen=True)
class Verdict:
    """What is known of an update on the device, and what its message needs."""

    is_wrong: Tensor  # 1.0 where a loss or a gradient is not finite, on any process; else 0.0; a scalar
    norm: Tensor  # of the gradients
    reports: list[dict[str, Tensor]]  # of its steps
    step: int  # of the epoch
    rates: list[float]  # of the optimizer's groups
    is_copied: torch.cuda.Event | None = None  # ``is_wrong`` has come to the host; None: it may be read


def verdict_of(state: TrainState, norm: Tensor, reports: list[dict[str, Tensor]]) -> Verdict:
    """See whether the losses of an update's steps and its gradients are finite, on all processes."""
    # fp16's scaler meets infinite gradients now and then, and skips their update itself: there the losses count.
    losses = [report["loss"] for report in reports]
    is_wrong = ~torch.stack(losses if state.scaler.is_enabled() else [*losses, norm]).isfinite().all()
    rates = [group["lr"] for group in state.optimizer.param_groups]
    is_wrong = (sum_over_processes(is_wrong.float()) > 0).float()
    return Verdict(is_wrong, norm, [dict(report) for report in reports], state.step, rates)


def can_wait(state: TrainState, device: torch.device) -> bool:
    """Whether the device can leave out a wrong update by itself, and nothing else follows from it.

    Fused optimizers can. Averaged weights, a teacher that follows and statistics of BatchNorm would go on by the wrong
    step; fp16's scaler asks the device anyway; and sharded gradients do not mix with the one number that says so.
    """
    is_fused = all(group.get("fused") for group in state.optimizer.param_groups)
    remedies = state.model.remedies
    has_follower = state.ema or (remedies and remedies.follower)
    follows = state.scaler.is_enabled() or has_follower or state.model.towers.statistics()
    return device.type == "cuda" and is_fused and not follows and not is_sharded(state.model)


def put_off(state: TrainState, verdict: Verdict) -> None:
    """Have the optimizer's next step change nothing if the verdict is bad, and keep it for ``settle``."""
    flag = verdict.is_wrong
    state.optimizer.found_inf = flag  # as the loss scaler of fp16 tells it; no weight, no moment, no count changes
    is_copied = None
    if flag.is_cuda:
        host = torch.empty((), pin_memory=True)
        host.copy_(flag, non_blocking=True)
        is_copied = torch.cuda.Event()
        is_copied.record()
        flag = host
    state.verdict = replace(verdict, is_wrong=flag, is_copied=is_copied)


def settle(state: TrainState, folder: Path, metadata: dict) -> None:
    """Act upon the verdict that was put off, if there is one: before weights change again, are saved or tested.

    Raises:
        FloatingPointError: see ``stop_if_wrong``.
    """
    verdict, state.verdict = state.verdict, None
    if verdict:
        if verdict.is_copied:
            verdict.is_copied.synchronize()
        stop_if_wrong(verdict, state, folder, metadata)


def stop_if_wrong(verdict: Verdict, state: TrainState, folder: Path, metadata: dict) -> None:
    """Keep the state before a wrong update for inspection, and end the run.

    Raises:
        FloatingPointError: loss or gradients are not finite.
    """
    if not verdict.is_wrong:
        return
    state.step = verdict.step
    for group, rate in zip(state.optimizer.param_groups, verdict.rates, strict=True):
        group["lr"] = rate
    content = state.content()  # gathers a sharded model, so every process calls it
    if is_main():
        save_checkpoint(folder / NON_FINITE_CHECKPOINT, content | metadata)
    found = gather(_first_not_finite(verdict.reports))
    culprits = [f"{values} on process {index}" for index, values in enumerate(found) if values]
    raise FloatingPointError(
        f"not finite in epoch {state.epoch + 1}, step {state.step}: "
        f"{'; '.join([*culprits, f'gradient norm {verdict.norm.item():.4g}'])}; "
        f"the state before this update is in {folder / NON_FINITE_CHECKPOINT}; try a lower solver.lr"
    )


def _first_not_finite(reports: list[dict[str, Tensor]]) -> str:
    """The values of the first step whose loss is not finite; empty if all are."""
    for values in reports:
        if not values["loss"].isfinite():
            return ", ".join(f"{name} {value.item():.4g}" for name, value in values.items() if value.ndim == 0)
    return ""
