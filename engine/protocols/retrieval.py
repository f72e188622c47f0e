"""Retrieval: texts look for their videos and videos for their texts; figures say at which place they are found."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.protocols.similarities import TILE, Cosines, Similarities, Table, Tile
from utils.config import check_choice

RECALLS = (1, 5, 10, 50)
MEAN, FIRST = 0.5, 0.0  # which place among equal scores: the mean of theirs, or the first
# Values of eval.tie_rule: where a text finds its video, and a video its text, among equal scores.
TIE_RULES = {"mean": (MEAN, MEAN), "published": (FIRST, MEAN)}


class Ranks(NamedTuple):
    """Places from 1, float64; between two where the mean of equal ones is."""

    t2v: np.ndarray  # [N], of each text's video among all videos
    v2t: np.ndarray  # [M], of each video's best text among all texts; NaN: it has none


def figures(
    similarity: np.ndarray, video_of_text: np.ndarray | None = None, tie_rule: str = "mean", dual_softmax: float = 0.0
) -> dict[str, Any]:
    """Recall and ranks in both directions.

    Args:
        similarity: [N texts, M videos]. An unreadable video has a column of NaN or -inf: it is found last and finds its
            texts last. A caption that is missing is a row that is left out.
        video_of_text: int [N]; None: text n belongs to video n. Videos without a text look for none.
        tie_rule: a key of ``TIE_RULES``. ``mean``: one rule for both directions. ``published``: as TVTSv2's code, where
            a text finds its video before all others of equal score.
        dual_softmax: lambda of a second set of figures; 0: none. There each similarity counts times its softmax, over
            all texts where texts look for videos and over all videos where videos look for texts.

    Returns:
        ``t2v`` and ``v2t``: ``r1``, ``r5``, ``r10``, ``r50`` in percent, ``median_rank`` and ``mean_rank`` from 1;
        ``dual_softmax`` (``lambda``, ``t2v``, ``v2t``), where asked for; ``num_texts``, ``num_videos``, ``tie_rule``.

    Raises:
        ValueError: shapes, rule or lambda make no sense.
    """
    table = torch.from_numpy(np.ascontiguousarray(similarity))
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"similarity: expected [texts, videos], at least one of each, found {list(table.shape)}")
    table = table if table.is_floating_point() else table.double()
    owners = owners_of(video_of_text, *table.shape)
    return report_of(ranks_of(Table(table), owners, tie_rule, dual_softmax), tie_rule)


def figures_of_embeddings(
    text_embeddings: np.ndarray | Tensor,
    video_embeddings: np.ndarray | Tensor,
    video_of_text: np.ndarray | None = None,
    tie_rule: str = "mean",
    dual_softmax: float = 0.0,
    tile: int = TILE,
) -> dict[str, Any]:
    """As ``figures``, of the cosines of embeddings [N, D] and [M, D]; rows of NaN are those of unreadable videos.

    The cosines are never there as a whole: they are computed at most ``tile`` at a time.

    Raises:
        ValueError: see ``figures``.
    """
    texts, videos = (torch.as_tensor(each) for each in (text_embeddings, video_embeddings))
    shapes = f"{list(texts.shape)} and {list(videos.shape)}"
    if texts.ndim != 2 or videos.ndim != 2 or texts.shape[1] != videos.shape[1] or 0 in (len(texts), len(videos)):
        raise ValueError(f"embeddings: expected [texts, D] and [videos, D], at least one of each, found {shapes}")
    owners = owners_of(video_of_text, len(texts), len(videos))
    return report_of(ranks_of(Cosines(texts, videos, tile), owners, tie_rule, dual_softmax), tie_rule)


def fused_views(embeddings: Tensor) -> Tensor:
    """Views of videos [N, V, D] to one vector a video [N, D].

    Its direction is that of the mean of the views' unit vectors, its length the mean of theirs; so one view stays as it
    is.
    """
    lengths = embeddings.norm(dim=-1).mean(dim=1, keepdim=True)
    return lengths * F.normalize(F.normalize(embeddings, dim=-1).mean(dim=1), dim=-1)


def owners_of(video_of_text: np.ndarray | None, num_texts: int, num_videos: int) -> Tensor:
    """The video of each text, int64 [N].

    Raises:
        ValueError: not one video of the M for each text.
    """
    if video_of_text is None:
        if num_texts != num_videos:
            raise ValueError(
                f"video_of_text: {num_texts} texts and {num_videos} videos are no pairs; say which video each text has"
            )
        return torch.arange(num_texts)
    owners = torch.from_numpy(np.asarray(video_of_text).astype(np.int64))
    if owners.shape != (num_texts,) or not ((owners >= 0) & (owners < num_videos)).all():
        raise ValueError(f"video_of_text: expected {num_texts} numbers from 0 to {num_videos - 1}, one for each text")
    return owners


def check_rules(tie_rule: str, dual_softmax: float) -> None:
    """See that there is such a rule, and such a lambda.

    Raises:
        ValueError: there is not.
    """
    check_choice("eval.tie_rule", tie_rule, TIE_RULES)
    if not 0 <= dual_softmax < math.inf:
        raise ValueError(f"eval.dual_softmax: expected a finite number from 0 on, found {dual_softmax}")


def ranks_of(
    similarities: Similarities, owners: Tensor, tie_rule: str = "mean", dual_softmax: float = 0.0
) -> dict[float, Ranks]:
    """Places by lambda: of 0, the similarities as they are, and of ``dual_softmax``, where it is another.

    One pass over the similarities counts those before each one's own, which are looked up first; sums over all texts
    and all videos, which a dual softmax needs, are a pass more.

    Args:
        owners: int64 [N], the video of each text.

    Raises:
        ValueError: no such rule, or no such lambda.
    """
    check_rules(tie_rule, dual_softmax)
    rules, scales = TIE_RULES[tie_rule], dict.fromkeys((0.0, float(dual_softmax)))
    sums = {scale: _Sums(similarities, scale) for scale in scales if scale}
    searches = {scale: _searches(similarities.shape) for scale in scales}
    for tile in similarities.tiles_with(torch.arange(len(owners)), owners):
        for scale, tables in _scores(similarities, tile, sums):
            for search, scores in zip(searches[scale], tables, strict=True):
                search.see(scores, tile, owners)
    for tile in similarities.tiles():
        for scale, tables in _scores(similarities, tile, sums):
            for search, scores in zip(searches[scale], tables, strict=True):
                search.count(scores, tile)
    return {
        scale: Ranks(*(each.places(rule) for each, rule in zip(searches[scale], rules, strict=True)))
        for scale in scales
    }


class _Sums:
    """Sums of the exponentials of all scaled similarities, as logarithms."""

    def __init__(self, similarities: Similarities, scale: float):
        num_texts, num_videos = similarities.shape
        self.over_videos = torch.full((num_texts,), -torch.inf, dtype=torch.float64)
        self.over_texts = torch.full((num_videos,), -torch.inf, dtype=torch.float64)
        for tile in similarities.tiles():
            logits = scale * similarities.of(tile).double()
            for sums, part, dim in ((self.over_videos, tile.texts, 1), (self.over_texts, tile.videos, 0)):
                sums[part] = torch.logaddexp(sums[part], logits.logsumexp(dim))


def _scores(
    similarities: Similarities, tile: Tile, sums: dict[float, _Sums]
) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    """By lambda the scores of a tile, [n, m] each: those that texts look at, and those that videos look at."""
    plain = similarities.of(tile)
    yield 0.0, (plain, plain)
    for scale, of_scale in sums.items():
        logits = scale * plain.double()
        of_texts, of_videos = of_scale.over_texts[tile.videos], of_scale.over_videos[tile.texts, None]
        yield scale, (_weighted(plain, logits, of_texts), _weighted(plain, logits, of_videos))


def _weighted(similarities: Tensor, logits: Tensor, sums: Tensor) -> Tensor:
    """Similarities [n, m] times softmax(logits), whose sums are given as logarithms; what is -inf stays so."""
    return (logits - sums).exp_().mul_(similarities).nan_to_num_(nan=-torch.inf)


class _Search:
    """Q texts or videos look for their own in a table of scores that goes by in tiles: first its own, then all."""

    def __init__(self, num_queries: int, num_candidates: int, dim: int):
        """``dim``: of the candidates in the table."""
        self.dim, self.num_candidates = dim, num_candidates
        self.own = torch.full((num_queries,), -torch.inf, dtype=torch.float64)  # score of each one's best
        self.has_own = torch.zeros(num_queries, dtype=torch.bool)
        self.num_better, self.num_equal = torch.zeros(2, num_queries, dtype=torch.int64)

    def see(self, scores: Tensor, tile: Tile, owners: Tensor) -> None:
        """Scores [n, m] of a tile in which some texts and their videos are."""
        videos = owners[tile.texts] - tile.videos.start
        texts = torch.nonzero((videos >= 0) & (videos < scores.shape[1]))[:, 0]
        queries = (texts + tile.texts.start, owners[tile.texts][texts])[1 - self.dim]
        self.own.scatter_reduce_(0, queries, scores[texts, videos[texts]].double(), "amax")
        self.has_own[queries] = True

    def count(self, scores: Tensor, tile: Tile) -> None:
        """Scores [n, m] of any tile, each once."""
        part = tile[1 - self.dim]
        own = self.own[part].to(scores.dtype).unsqueeze(self.dim)
        self.num_better[part] += (scores > own).sum(self.dim)
        self.num_equal[part] += (scores == own).sum(self.dim)

    def places(self, share: float) -> np.ndarray:
        """Places from 1, float64 [Q]; ``share`` of the others with the own score are before; NaN: nothing to find.

        What is -inf has the last place.
        """
        places = 1 + self.num_better + share * (self.num_equal - 1).double()
        places = torch.where(self.own == -torch.inf, self.num_candidates, places)
        return torch.where(self.has_own, places, torch.nan).numpy()


def _searches(shape: tuple[int, int]) -> tuple[_Search, _Search]:
    """Of N texts among M videos, and of the videos among the texts."""
    num_texts, num_videos = shape
    return _Search(num_texts, num_videos, dim=1), _Search(num_videos, num_texts, dim=0)


def report_of(ranks: dict[float, Ranks], tie_rule: str) -> dict[str, Any]:
    """What ``figures`` returns, of the places by lambda."""
    plain = ranks[0.0]
    report = {direction: recall(places) for direction, places in plain._asdict().items()}
    for scale in sorted(ranks)[1:]:
        dual = {direction: recall(places) for direction, places in ranks[scale]._asdict().items()}
        report["dual_softmax"] = {"lambda": scale, **dual}
    return report | {"num_texts": len(plain.t2v), "num_videos": len(plain.v2t), "tie_rule": tie_rule}


def recall(places: np.ndarray) -> dict[str, float]:
    """Figures of one direction from places [Q], NaN left out; a place between two ranks counts as the better one."""
    places = places[~np.isnan(places)]
    shares = {f"r{most}": 100.0 * float((places < most + 1).mean()) for most in RECALLS}
    return shares | {"median_rank": float(np.median(places)), "mean_rank": float(places.mean())}
