"""The one pass over a list of videos: tests, validation, sweeps, feature caches and predictions all start here."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from engine.failures import report_mismatches
from modules.systems.base import Batch, Classes, System, Video
from utils.distributed import gather, sum_over_processes
from utils.logger import progress
from utils.precision import Precision

logger = logging.getLogger(__name__)

Rows = dict[str, Tensor]  # by the table's name


@dataclass(frozen=True)
class Pass:
    """How clips go through a model."""

    precision: Precision
    clips_at_once: int  # in one forward pass, which bounds memory
    desc: str  # of the progress bar


@dataclass(frozen=True)
class Tables:
    """What a pass made of N videos, in list order."""

    tables: Rows  # each [N, V, ...] float32 on the CPU; NaN for videos that could not be read
    failures: dict[str, str]  # path -> reason
    mismatches: dict[str, str]  # path -> why its frames may be other ones than were asked for
    classes: Tensor | None = None  # [K, D], what scores are against

    def check_some_read(self, name: str) -> None:
        """See that a figure stands for something.

        Raises:
            ValueError: every video of the list failed; ``name`` says which list.
        """
        if all(table.isnan().all() for table in self.tables.values()):
            num_videos, (path, reason) = len(next(iter(self.tables.values()))), min(self.failures.items())
            raise ValueError(f"{name}: none of {num_videos} videos could be read; the first: {path} ({reason})")


@torch.inference_mode()
def score_views(
    system: System, loader: DataLoader, classes: Classes, num_views: int, how: Pass, tables: Sequence[str] = ("scores",)
) -> Tables:
    """The tables of every view of every video, see ``rows_of_clips``.

    The system is in its form for tests for the whole pass.
    """
    shapes = shapes_of(tables, num_views, len(classes), system)
    with tested(system, how):
        with how.precision.autocast():
            encoded = classes.encode(system.towers)
        found = collect(
            lambda batch: rows_of_clips(system, system.video_of(batch), encoded, tables), loader, shapes, how
        )
    return replace(found, classes=encoded.float().cpu())


@torch.inference_mode()
def embed_views(system: System, loader: DataLoader, num_views: int, how: Pass) -> Tables:
    """One vector a view, not normalised, whatever it will be compared with: the table ``embeddings`` [N, V, D]."""
    shapes = {"embeddings": (num_views, system.towers.spec.embed_dim)}
    with tested(system, how):
        return collect(lambda batch: {"embeddings": system.embed(system.video_of(batch))}, loader, shapes, how)


@contextmanager
def tested(system: System, how: Pass) -> Iterator[None]:
    """Context in which a system does not train and has its form for tests."""
    was_training = system.training
    system.eval()
    with system.under_test(how.precision.half):
        yield
    system.train(was_training)


def rows_of_clips(system: System, video: Video, classes: Tensor, tables: Sequence[str]) -> Rows:
    """What fusing views asks of B clips against encoded classes [K, D].

    Args:
        tables: ``scores`` [B, K], before the logit scale; ``features`` [B, D], whose cosines they are, not normalised.
    """
    compute = {
        "scores": lambda: system.score(video, classes),
        "features": lambda: system.compared(video, classes).float().mean(dim=1),
    }
    return {name: compute[name]() for name in tables}


def shapes_of(tables: Sequence[str], num_views: int, num_classes: int, system: System) -> dict[str, tuple[int, int]]:
    """Of the tables of views, for ``collect``."""
    width = {"scores": num_classes, "features": system.towers.spec.embed_dim}
    return {name: (num_views, width[name]) for name in tables}


@torch.inference_mode()
def collect(
    compute: Callable[[Batch], Rows], loader: DataLoader, shapes: dict[str, tuple[int, ...]], how: Pass
) -> Tables:
    """Tables of every view of every video of the loader's list.

    The processes share the videos without padding; each scatters its rows by video index and the sum over
    processes is the whole table, so it does not depend on world size, batch size or workers.

    Args:
        compute: B clips -> rows [B, ...] by the table's name.
        shapes: of each table, [V, ...].

    Raises:
        FloatingPointError: rows of a video that could be read are not finite, which is no wrong prediction.
    """
    device, num_videos = how.precision.device, len(loader.dataset)
    tables = {name: torch.zeros(num_videos, *shape, device=device) for name, shape in shapes.items()}
    not_finite = torch.zeros(num_videos, device=device)
    failures: dict[str, str] = {}
    mismatches: dict[str, str] = {}
    for batch, rows in batches_of(compute, loader, how):
        failures |= {failure.path: failure.reason for failure in batch.failures}
        mismatches |= {mismatch.path: mismatch.reason for mismatch in batch.mismatches}
        places = batch.indices.to(device, non_blocking=True)
        for name, table in tables.items():
            table[batch.failed_indices.to(device, non_blocking=True)] = torch.nan
            if name in rows:
                table[places] = rows[name].to(table.dtype)
                not_finite[places] += (~rows[name].isfinite().flatten(1).all(dim=1)).to(not_finite.dtype)
    for other_failures, other_mismatches in gather((failures, mismatches)):
        failures |= other_failures
        mismatches |= other_mismatches
    for path, reason in sorted(failures.items()):
        logger.warning("unreadable, counted as wrong: %s (%s)", path, reason)
    report_mismatches(mismatches)
    if wrong := sum_over_processes(not_finite).nonzero()[:, 0].tolist():
        raise FloatingPointError(
            f"{how.desc}: the {', '.join(tables)} of {len(wrong)} of {num_videos} videos are not finite, the first "
            f"is {loader.dataset.path(wrong[0])}; the weights are damaged, or too large for {how.precision.name}"
        )
    whole = {name: sum_over_processes(table).cpu() for name, table in tables.items()}
    return Tables(whole, failures, mismatches)


@torch.inference_mode()
def batches_of(compute: Callable[[Batch], Rows], loader: DataLoader, how: Pass) -> Iterator[tuple[Any, Rows]]:
    """A loader's batches one after the other, each with its rows [B, V, ...]; none where no video could be read."""
    for loaded in progress(loader, how.desc, len(loader), every=max(len(loader) // 10, 10)):
        yield loaded, {} if loaded.is_empty else _rows(compute, loaded, how)


def _rows(compute: Callable[[Batch], Rows], loaded: Any, how: Pass) -> Rows:
    """The views of a batch of videos, a chunk at a time."""
    is_cached = loaded.features is not None
    views = loaded.features if is_cached else loaded.clips  # [B, V, T, ...]
    inputs = {"features" if is_cached else "clips": views, "lengths": loaded.lengths}
    if loaded.texts is not None:  # the same for each view
        inputs["texts"] = loaded.texts[:, None].expand(-1, views.shape[1], -1, -1)
    flat = {
        name: value.to(how.precision.device, non_blocking=True).flatten(0, 1)
        for name, value in inputs.items()
        if value is not None
    }
    starts = range(0, views.shape[0] * views.shape[1], how.clips_at_once)
    chunks = ({name: value[start : start + how.clips_at_once] for name, value in flat.items()} for start in starts)
    with how.precision.autocast():
        computed = [compute(Batch(**chunk)) for chunk in chunks]
    return {name: torch.cat([chunk[name] for chunk in computed]).unflatten(0, views.shape[:2]) for name in computed[0]}
