"""What training reports: means of losses and norms, draws, speed, waiting, memory, utilisation."""

import resource
import sys
import time

import numpy as np
import torch
from torch import Tensor

from utils.distributed import sum_over_processes, world_size


class Meter:
    """Means since the last reading, summed on the device: reading is the only synchronisation.

    Args:
        video_flops: floating-point operations of training on one video; None: unknown.
        peak_flops: what the device can do a second; None: unknown, and no utilisation is reported.
    """

    def __init__(self, device: torch.device, video_flops: float | None = None, peak_flops: float | None = None):
        self._device, self._video_flops, self._peak_flops = device, video_flops, peak_flops
        self.restart()

    def restart(self) -> None:
        """Forget everything since the last reading."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._videos = 0
        self._data_s = 0.0
        self._start = self._last_time = time.perf_counter()

    def data_arrived(self) -> None:
        """A batch came out of the loader: count the time since the step before as waiting."""
        self._data_s += time.perf_counter() - self._last_time

    def add(self, num_videos: int, values: dict[str, Tensor]) -> None:
        """Count one step; values may be of any shape."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._videos += num_videos
        self._last_time = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Means over steps and processes, videos/s of all processes, share of time waiting for data, memory in GiB.

        Elements of a tensor are named by their indices: ``draws/0/1``. Utilisation (``mfu``) is that of this process.
        """
        metrics = self._means()
        elapsed_s = time.perf_counter() - self._start
        metrics["videos_per_s"] = world_size() * self._videos / elapsed_s
        metrics["data_share"] = self._data_s / elapsed_s
        metrics["memory_gib"] = _peak_memory_gib(self._device)
        if self._video_flops and self._peak_flops:
            metrics["mfu"] = self._videos * self._video_flops / elapsed_s / self._peak_flops
        self.restart()
        return metrics

    def _means(self) -> dict[str, float]:
        flat = [(total.float() / self._counts[name]).to(self._device).flatten() for name, total in self._sums.items()]
        means = (sum_over_processes(torch.cat(flat)) / world_size()).tolist()
        elements = [(name, *index) for name, total in self._sums.items() for index in np.ndindex(*total.shape)]
        return {"/".join(map(str, element)): mean for element, mean in zip(elements, means, strict=True)}


def _peak_memory_gib(device: torch.device) -> float:
    """Of the CUDA allocator, else of the process, since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
