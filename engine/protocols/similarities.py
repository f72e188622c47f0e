"""Similarities of texts and videos in tiles, so that a large table is never there as a whole."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EVEN = (
    64  # rows and columns of a product are a multiple of it: the rest would run through other code, with other rounding
)
TILE = 2**20  # similarities of a tile, 4 MB: they are looked at several times while a processor's cache has them


class Tile(NamedTuple):
    """Which rows and columns of the table [N texts, M videos]."""

    texts: slice
    videos: slice


class Grid:
    """A table [N, M] cut into tiles of the same shape, but for those at its lower and right border."""

    def __init__(self, num_texts: int, num_videos: int, most: int = TILE):
        """``most``: similarities of a tile."""
        self.shape = num_texts, num_videos
        side = max(math.isqrt(most), 1)
        self.steps = tuple(math.ceil(length / math.ceil(length / side)) for length in self.shape)

    def tiles(self) -> Iterator[Tile]:
        """From the top, each row of tiles from left to right."""
        starts = (range(0, length, step) for length, step in zip(self.shape, self.steps, strict=True))
        rows, columns = (list(each) for each in starts)
        yield from (self._at(top, left) for top in rows for left in columns)

    def tiles_with(self, texts: Tensor, videos: Tensor) -> Iterator[Tile]:
        """Those in which some pairs are: int64 [P] and [P]."""
        pairs = torch.stack([texts // self.steps[0], videos // self.steps[1]], dim=1)
        for row, column in pairs.unique(dim=0).tolist():
            yield self._at(row * self.steps[0], column * self.steps[1])

    def _at(self, top: int, left: int) -> Tile:
        ends = (min(start + step, end) for start, step, end in zip((top, left), self.steps, self.shape, strict=True))
        return Tile(*(slice(start, end) for start, end in zip((top, left), ends, strict=True)))


class Similarities(Grid):
    """What ``ranks_of`` asks: the same bits whenever a tile is asked for, and -inf where a video was not read."""

    def of(self, tile: Tile) -> Tensor:
        """The similarities of a tile, [n, m]."""
        raise NotImplementedError

    def whole(self) -> Tensor:
        """All of them, [N, M]."""
        tiles = list(self.tiles())
        table = torch.empty(self.shape, dtype=self.of(tiles[0]).dtype)
        for tile in tiles:
            table[tile] = self.of(tile)
        return table


class Table(Similarities):
    """Similarities that are there, [N, M]."""

    def __init__(self, table: Tensor):
        super().__init__(*table.shape)
        self.table = table

    def of(self, tile: Tile) -> Tensor:
        """See ``Similarities``."""
        return _last_where_unread(self.table[tile].clone())


class Cosines(Similarities):
    """Of embeddings [N, D] and [M, D], computed in fp32 when they are asked for; rows of NaN were not read."""

    def __init__(self, texts: Tensor, videos: Tensor, most: int = TILE):
        super().__init__(len(texts), len(videos), most)
        # Even products of one shape run through the same code, so that equal vectors have equal cosines in all tiles.
        self.sides = tuple(math.ceil(step / EVEN) * EVEN for step in self.steps)
        self.texts, self.videos = (
            F.pad(_unit(each), (0, 0, 0, side)) for each, side in zip((texts, videos), self.sides, strict=True)
        )
        self.has_unread = not bool(self.texts.isfinite().all() and self.videos.isfinite().all())

    def of(self, tile: Tile) -> Tensor:
        """See ``Similarities``."""
        rows, columns = (slice(part.start, part.start + side) for part, side in zip(tile, self.sides, strict=True))
        cosines = self.texts[rows] @ self.videos[columns].T
        cosines = cosines[: tile.texts.stop - tile.texts.start, : tile.videos.stop - tile.videos.start]
        return _last_where_unread(cosines) if self.has_unread else cosines


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float().cpu(), dim=-1)


def _last_where_unread(similarities: Tensor) -> Tensor:
    """In place: -inf for NaN."""
    return similarities.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
