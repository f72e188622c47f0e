"""Videos matched with texts, for training: one source, and several as one data set."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from datasets.clips.transforms import DIRECTIONS
from datasets.clips.video import Sample, VideoSource, candidates, side_by_side, train_clip
from datasets.decode.readers import UnreadableVideo
from datasets.lists.label_sets import NO_LABEL
from datasets.sources.kinds import FrameRule, Texts

MAY_FLIP, UPRIGHT = 0, 1  # instead of labels, for ``TrainTransform``: the second has words that a mirror exchanges


@dataclasses.dataclass(frozen=True)
class TextVideos(Dataset):
    """Random, augmented clips of a source with their texts as token ids; asked for by (pass, index).

    All randomness is of (seed, pass, index), see ``TrainVideos``; a video that cannot be read, or of which no texts can
    be drawn, is replaced and reported the same way.
    """

    source: VideoSource
    texts: Texts
    rule: FrameRule
    transform: Callable[[Tensor, int], tuple[Tensor, int]]  # as of ``TrainVideos``, for MAY_FLIP and UPRIGHT
    tokenize: Callable[..., Tensor]  # texts [K], truncate=True -> int64 [K, L]
    seed: int

    def __len__(self) -> int:
        return len(self.source.videos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, asked_for = key
        rng = np.random.default_rng((self.seed, number, asked_for))
        failures = []
        for index in candidates(asked_for, len(self), rng):
            try:
                visit = self.texts.visit(index, self.rule, rng)
                kind = UPRIGHT if any(map(DIRECTIONS.search, visit.texts)) else MAY_FLIP
                clip = train_clip(self.source, index, visit.indices_of, self.transform, kind, rng)
            except UnreadableVideo as error:
                failures.append(self.source.failure(index, error))
            else:
                texts, num_cut = tokens_of(visit.texts, self.tokenize)
                sample = side_by_side(index, [clip])._replace(label=NO_LABEL, failures=tuple(failures))
                return sample._replace(texts=texts, num_cut=num_cut)
        return Sample(index, NO_LABEL, None, tuple(failures))


@dataclasses.dataclass(frozen=True)
class OrderedVideos(Dataset):
    """One visit of every video of a source, always the same, with the pictures of evaluation."""

    source: VideoSource
    texts: Texts
    rule: FrameRule
    views_of: Callable[[Tensor], Tensor]  # frames [T, 3, H, W] -> crops [1, T, 3, S, S]
    tokenize: Callable[..., Tensor]  # as of ``TextVideos``
    seed: int

    def __len__(self) -> int:
        return len(self.source.videos)

    def path(self, index: int) -> str:
        """Of a video, as the list names it."""
        return self.source.videos.path(index)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        try:
            visit = self.texts.visit(index, self.rule, rng)
            read = self.source.read(index, partial(visit.indices_of, rng=rng))
        except UnreadableVideo as error:
            return Sample(index, NO_LABEL, None, (self.source.failure(index, error),))
        texts, num_cut = tokens_of(visit.texts, self.tokenize)
        lengths = None if read.lengths is None else read.lengths[None]
        sample = Sample(index, NO_LABEL, self.views_of(read.pixels), (), self.source.mismatches(index, read))
        return sample._replace(lengths=lengths, texts=texts, num_cut=num_cut)


def tokens_of(texts: list[str], tokenize: Callable[..., Tensor]) -> tuple[Tensor, int]:
    """Token ids [K, L] of K texts, and how many of them were too long and cut."""
    tokens = tokenize(texts, truncate=True)
    return tokens, sum(_is_cut(text, tokenize) for text, row in zip(texts, tokens, strict=True) if row[-1])


def _is_cut(text: str, tokenize: Callable[..., Tensor]) -> bool:
    """Whether a text that fills its row would need more."""
    try:
        tokenize([text])
    except ValueError:
        return True
    return False


@dataclasses.dataclass(frozen=True)
class AllSources(Dataset):
    """Several sources; asked for by (source, pass, index)."""

    sources: tuple[TextVideos, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, key: tuple[int, int, int]) -> Sample:
        source, *rest = key
        return self.sources[source][tuple(rest)]
