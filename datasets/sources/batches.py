"""Batches of several lists in turn, as a function of epoch and step alone."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from datasets.clips.samplers import TrainBatches


class SourceBatches(Sampler):
    """A batch of each of J sources in turn; an epoch is a pass over the first.

    Keys are (source, pass, index). Every source goes through passes of its own: its n-th batch of the whole run is
    batch n % len of its pass n // len, so what an epoch left of a pass comes in the next epoch.

    Args:
        sources: each with the batches of one pass.
    """

    def __init__(self, sources: list[TrainBatches]):
        self.sources, self.epoch, self.first_batch = sources, 0, 0

    @property
    def turns(self) -> int:
        """Batches of a round: one of each source."""
        return len(self.sources)

    @property
    def num_videos(self) -> int:
        """Different videos of an epoch, at most."""
        rounds = len(self.sources[0])
        return sum(min(each.num_videos, rounds * each.videos_per_step) for each in self.sources)

    @property
    def videos_per_step(self) -> int:
        """Videos of a global batch of the first source."""
        return self.sources[0].videos_per_step

    @property
    def videos_per_epoch(self) -> int:
        """Videos of an epoch where every batch had the size of the first source's."""
        return self.turns * self.sources[0].num_videos

    def __len__(self) -> int:
        return self.turns * len(self.sources[0])

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch of the next iteration, and how many of its batches to skip."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        streams = [self._batches_from_here(source) for source in range(self.turns)]
        for step in range(self.first_batch, len(self)):
            yield next(streams[step % self.turns])

    def _batches_from_here(self, source: int) -> Iterator[list[tuple[int, int, int]]]:
        """The batches of one source without end, from the first that is not skipped on."""
        batches = self.sources[source]
        skipped = (self.first_batch + self.turns - 1 - source) // self.turns  # of its own, in this epoch
        number, place = divmod(self.epoch * len(self.sources[0]) + skipped, len(batches))
        while True:
            batches.set_epoch(number, place)
            for batch in batches:
                yield [(source, *key) for key in batch]
            number, place = number + 1, 0
