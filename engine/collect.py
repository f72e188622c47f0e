"""One pass over a list that yields the logits of every view, in list order; every protocol starts here."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.distributed import gather, sum_over_processes
from utils.logger import progress
from utils.precision import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewLogits:
    """Cosines of all views of N videos with K classes."""

    logits: Tensor  # [N, V, K] float32 on the CPU; NaN for videos that could not be read
    failures: dict[str, str]  # path -> reason
    mismatches: dict[str, str]  # path -> why its frames may be other ones than were asked for
    num_failed: int  # of the N videos; a path may stand twice in a list


def check_some_read(views: ViewLogits, name: str) -> None:
    """See that a figure stands for something.

    Raises:
        ValueError: every video of the list failed; ``name`` says which list.
    """
    if views.num_failed == len(views.logits):
        path, reason = next(iter(sorted(views.failures.items())))
        raise ValueError(f"{name}: none of {views.num_failed} videos could be read; the first: {path} ({reason})")


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: DataLoader,
    classes: Tensor,
    num_views: int,
    precision: Precision,
    clips_per_pass: int,
    desc: str = "test",
) -> ViewLogits:
    """Classify every view of every video of the loader's list, see ``collect``.

    Args:
        model: a VideoCLIP; experts are merged once, for the whole pass.
        classes: class features [K, D], or tokens that the model encodes, once.
        num_views: V, views a video.
        clips_per_pass: clips in one forward pass, which bounds memory.
    """
    was_training = model.training
    model.eval()
    with precision.autocast():
        class_features = model.class_features(classes)
    with model.merged_experts():
        views = collect(
            lambda clips: model(clips, class_features).logits[0],
            loader,
            (num_views, len(class_features)),
            precision,
            clips_per_pass,
            desc,
        )
    model.train(was_training)
    return views


@torch.inference_mode()
def collect(
    classify: Callable[[Tensor], Tensor],
    loader: DataLoader,
    shape: tuple[int, int],
    precision: Precision,
    clips_per_pass: int,
    desc: str,
) -> ViewLogits:
    """Logits of every view of every video of the loader's list.

    The processes share the videos without padding; each scatters its rows by video index and the sum over
    processes is the whole table, so it does not depend on world size, batch size or workers.

    Args:
        classify: clips uint8 [B, T, 3, S, S] -> [B, K].
        shape: V, views a video, and K.

    Raises:
        FloatingPointError: cosines of a video that could be read are not finite, which is no wrong prediction.
    """
    device, (num_views, num_columns) = precision.device, shape
    table = torch.zeros(len(loader.dataset), num_views, num_columns, device=device)
    not_finite = torch.zeros(len(loader.dataset), device=device)
    failures: dict[str, str] = {}
    mismatches: dict[str, str] = {}
    num_failed = 0
    for batch in progress(loader, desc, len(loader), every=max(len(loader) // 10, 10)):
        failures |= {failure.path: failure.reason for failure in batch.failures}
        mismatches |= {mismatch.path: mismatch.reason for mismatch in batch.mismatches}
        num_failed += len(batch.failed_indices)
        table[batch.failed_indices.to(device, non_blocking=True)] = torch.nan
        if batch.is_empty:
            continue
        frames = batch.clips if batch.features is None else batch.features
        clips = frames.to(device, non_blocking=True).flatten(0, 1)  # [B*V, T, 3, S, S], or features [B*V, T, D]
        with precision.autocast():
            logits = [classify(part) for part in clips.split(clips_per_pass)]
        rows, cosines = batch.indices.to(device, non_blocking=True), torch.cat(logits).unflatten(0, (-1, num_views))
        table[rows] = cosines
        not_finite[rows] = (~cosines.isfinite().flatten(1).all(dim=1)).to(not_finite.dtype)
    found = gather((failures, mismatches, num_failed))
    for other_failures, other_mismatches, _ in found:
        failures |= other_failures
        mismatches |= other_mismatches
    for path, reason in sorted(failures.items()):
        logger.warning("unreadable, counted as wrong: %s (%s)", path, reason)
    for path, reason in sorted(mismatches.items()):
        logger.warning("perhaps other frames than asked for: %s (%s)", path, reason)
    if wrong := sum_over_processes(not_finite).nonzero()[:, 0].tolist():
        raise FloatingPointError(
            f"{desc}: the cosines of {len(wrong)} of {len(table)} videos are not finite, the first is "
            f"{loader.dataset.path(wrong[0])}; the weights are damaged, or too large for {precision.name}"
        )
    num_failed = sum(count for _, _, count in found)
    return ViewLogits(sum_over_processes(table).cpu(), failures, mismatches, num_failed)
