"""Which videos a process reads, and in which order."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class TrainBatches(Sampler):
    """Batches of (epoch, index) keys: a seeded permutation an epoch, the same for any number of processes.

    A global batch is ``batch_size * world_size`` consecutive videos of the permutation; process r takes its r-th
    part. The incomplete global batch at the end is dropped.

    Args:
        num_passes: permutations, one after the other, that make an epoch. Their keys count as epochs of their own,
            so that a video is augmented differently each time.

        name: of the list, and of the key of its batch size, in errors.

    Raises:
        ValueError: fewer videos than one global batch.
    """

    turns = 1  # lists that batches are taken from in turn, see ``datasets.sources.batches``

    def __init__(
        self,
        num_videos: int,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        num_passes: int = 1,
        name: tuple[str, str] = ("the train list", "data.batch_size"),
    ):
        self.num_videos, self.batch_size, self.rank, self.world_size = num_videos, batch_size, rank, world_size
        self.seed, self.num_passes, self.epoch, self.first_batch = seed, num_passes, 0, 0
        if len(self) == 0:
            passes = f" x {num_passes} passes" if num_passes > 1 else ""
            raise ValueError(
                f"{name[0]} has {num_videos} videos{passes}, fewer than one batch of {batch_size} x {world_size} "
                f"processes; lower {name[1]}"
            )

    def __len__(self) -> int:
        return self.videos_per_epoch // self.videos_per_step

    @property
    def videos_per_step(self) -> int:
        """Videos of a global batch."""
        return self.batch_size * self.world_size

    @property
    def videos_per_epoch(self) -> int:
        """Videos of an epoch, each as often as there are passes."""
        return self.num_passes * self.num_videos

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the permutation of the next iteration, and how many of its batches to skip."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.concatenate([rng.permutation(self.num_videos) for _ in range(self.num_passes)])
        epochs = self.epoch * self.num_passes + np.repeat(np.arange(self.num_passes), self.num_videos)
        keys = np.stack([epochs, order], axis=1)
        global_batches = keys[: len(self) * self.batch_size * self.world_size].reshape(len(self), -1, 2)
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for batch in global_batches[self.first_batch :, mine]:
            yield [(epoch, index) for epoch, index in batch.tolist()]
