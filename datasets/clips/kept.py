"""Batches that are decoded once and kept for later passes, as far as memory allows."""

import logging
from collections.abc import Iterator

from torch.utils.data import DataLoader

from datasets.clips.video import Batch

logger = logging.getLogger(__name__)


class KeptBatches:
    """An evaluation loader whose first pass decodes; later ones find its batches in memory.

    Where all of them would take more than ``max_bytes`` none is kept, a warning says so, and every pass decodes.
    """

    def __init__(self, loader: DataLoader, max_bytes: float):
        self.loader, self.dataset, self.max_bytes = loader, loader.dataset, max_bytes
        self._kept: list[Batch] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] | None = []
        for batch in self.loader:
            if kept == [] and (size := _num_bytes(batch) * len(self)) > self.max_bytes:
                takes = f"take {size / 1e9:.1f} GB, {self.max_bytes / 1e9:.1f} GB are allowed"
                logger.warning("the decoded views %s: every pass decodes them anew", takes)
                kept = None
            if kept is not None:
                kept.append(_copied(batch))
            yield batch
        self._kept = kept


def _num_bytes(batch: Batch) -> int:
    return sum(tensor.nbytes for tensor in (batch.clips, batch.features) if tensor is not None)


def _copied(batch: Batch) -> Batch:
    """What workers send lies in shared memory, of which systems have little."""
    tensors = {name: getattr(batch, name) for name in ("clips", "features", "lengths")}
    return batch._replace(**{name: tensor.clone() for name, tensor in tensors.items() if tensor is not None})
