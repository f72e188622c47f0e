"""Frame features of every view of a list, chunk by chunk, into a writer."""

import logging
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.logger import progress
from utils.precision import Precision

logger = logging.getLogger(__name__)


class ChunkWriter(Protocol):
    """Where features go, see ``datasets.features.writer``."""

    chunks: list[range]  # rows of each
    shape: tuple[int, int, int, int]  # [N, V, T, D]

    def write(self, number: int, features: np.ndarray, labels: np.ndarray, failures: dict[str, str]) -> None:
        """Put one chunk on disk."""


@torch.inference_mode()
def extract(
    model: nn.Module,
    loader: DataLoader,
    numbers: list[int],
    writer: ChunkWriter,
    precision: Precision,
    clips_per_pass: int,
    desc: str,
) -> None:
    """Encode the loader's batches; batch i holds the videos of chunk ``numbers[i]``.

    A chunk's features depend on nothing but its videos and ``clips_per_pass``, so neither restarts nor the number of
    processes change them.

    Args:
        model: a VideoCLIP.
        clips_per_pass: clips in one forward pass, which bounds memory.

    Raises:
        FloatingPointError: features that float16 cannot hold.
    """
    model.eval()
    batches = progress(loader, desc, len(numbers), every=max(len(numbers) // 20, 10))
    for number, batch in zip(numbers, batches, strict=True):
        rows, (_, *video_shape) = writer.chunks[number], writer.shape
        features = torch.zeros(len(rows), *video_shape, dtype=torch.float16)
        labels = torch.full((len(rows), writer.shape[1]), -1)
        if not batch.is_empty:
            places = batch.indices - rows.start
            features[places] = _encode(model, batch.clips, precision, clips_per_pass)
            labels[places] = batch.labels.view(len(places), -1).expand(-1, writer.shape[1])
        if not features.isfinite().all():
            raise FloatingPointError(f"features of rows {rows.start} to {rows.stop - 1} do not fit into float16")
        failures = {failure.path: failure.reason for failure in batch.failures}
        for path, reason in batch.mismatches:
            logger.warning("perhaps other frames than asked for: %s (%s)", path, reason)
        writer.write(number, features.numpy(), labels.numpy(), failures)


def _encode(model: nn.Module, clips: Tensor, precision: Precision, clips_per_pass: int) -> Tensor:
    """uint8 [B, V, T, 3, S, S] -> float16 [B, V, T, D] on the CPU."""
    on_device = clips.to(precision.device, non_blocking=True).flatten(0, 1)  # [B*V, T, 3, S, S]
    with precision.autocast():
        features = [model.encode_frames(part).half().cpu() for part in on_device.split(clips_per_pass)]
    return torch.cat(features).unflatten(0, clips.shape[:2])
