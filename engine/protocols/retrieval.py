"""Retrieval: texts look for their videos and videos for their texts; figures say at which place they are found."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.config import check_choice

RECALLS = (1, 5, 10, 50)
MEAN, FIRST = 0.5, 0.0  # which place among equal scores: the mean of theirs, or the first
# Values of eval.tie_rule: where a text finds its video, and a video its text, among equal scores.
TIE_RULES = {"mean": (MEAN, MEAN), "published": (FIRST, MEAN)}
BLOCK = 2**24  # similarities that are held at once, 64 MB
PIECE = 2**20  # of them, those that are looked at together, so that they stay in a processor's cache

Rows = Callable[[], Iterator[tuple[slice, Tensor]]]  # the similarities [N, M] from the top, some rows at a time


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
    return report_of(ranks_of(_rows_of_table(table), owners, table.shape[1], tie_rule, dual_softmax), tie_rule)


def figures_of_embeddings(
    text_embeddings: np.ndarray | Tensor,
    video_embeddings: np.ndarray | Tensor,
    video_of_text: np.ndarray | None = None,
    tie_rule: str = "mean",
    dual_softmax: float = 0.0,
    block: int = BLOCK,
) -> dict[str, Any]:
    """As ``figures``, of the cosines of embeddings [N, D] and [M, D]; rows of NaN are those of unreadable videos.

    The cosines are never there as a whole: they are computed twice, ``block`` at a time.

    Raises:
        ValueError: see ``figures``.
    """
    texts, videos = (torch.as_tensor(each) for each in (text_embeddings, video_embeddings))
    shapes = f"{list(texts.shape)} and {list(videos.shape)}"
    if texts.ndim != 2 or videos.ndim != 2 or texts.shape[1] != videos.shape[1] or 0 in (len(texts), len(videos)):
        raise ValueError(f"embeddings: expected [texts, D] and [videos, D], at least one of each, found {shapes}")
    owners = owners_of(video_of_text, len(texts), len(videos))
    return report_of(ranks_of(cosine_rows(texts, videos, block), owners, len(videos), tie_rule, dual_softmax), tie_rule)


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


def _rows_of_table(table: Tensor) -> Rows:
    """Of similarities [N, M] that are there as a whole."""

    def rows() -> Iterator[tuple[slice, Tensor]]:
        step = max(BLOCK // table.shape[1], 1)
        for start in range(0, len(table), step):
            place = slice(start, min(start + step, len(table)))
            yield place, table[place]

    return rows


def cosine_rows(texts: Tensor, videos: Tensor, block: int = BLOCK) -> Rows:
    """Of the cosines of embeddings [N, D] and [M, D], fp32; alike at every call."""
    texts, videos = (F.normalize(each.float(), dim=-1) for each in (texts, videos))

    def rows() -> Iterator[tuple[slice, Tensor]]:
        step = max(block // len(videos), 1)
        for start in range(0, len(texts), step):
            place = slice(start, min(start + step, len(texts)))
            yield place, texts[place] @ videos.T

    return rows


def check_rules(tie_rule: str, dual_softmax: float) -> None:
    """See that there is such a rule, and such a lambda.

    Raises:
        ValueError: there is not.
    """
    check_choice("eval.tie_rule", tie_rule, TIE_RULES)
    if not 0 <= dual_softmax < math.inf:
        raise ValueError(f"eval.dual_softmax: expected a finite number from 0 on, found {dual_softmax}")


def ranks_of(
    rows: Rows, owners: Tensor, num_videos: int, tie_rule: str = "mean", dual_softmax: float = 0.0
) -> dict[float, Ranks]:
    """Places by lambda: of 0, the similarities as they are, and of ``dual_softmax``, where it is another.

    Two passes over the similarities: texts know their places after one pass, but for videos and for sums over all texts
    one pass tells what the next compares with.

    Args:
        owners: int64 [N], the video of each text.

    Raises:
        ValueError: no such rule, or no such lambda.
    """
    check_rules(tie_rule, dual_softmax)
    of_text, of_video = TIE_RULES[tie_rule]
    scale, num_texts = float(dual_softmax), len(owners)
    scales = dict.fromkeys((0.0, scale))
    t2v = {each: torch.zeros(num_texts, dtype=torch.float64) for each in scales}
    searches = {each: _VideoSearch(num_videos) for each in scales}
    # Sums of the softmaxes over videos and over texts, as logarithms.
    over_videos = torch.zeros(num_texts, dtype=torch.float64)
    over_texts = torch.full((num_videos,), -torch.inf, dtype=torch.float64)
    for place, block in _pieces(rows):
        searches[0.0].see(block, owners[place])
        if scale:
            logits = scale * block.double()
            over_videos[place] = logits.logsumexp(dim=1)
            over_texts = torch.logaddexp(over_texts, logits.logsumexp(dim=0))
            searches[scale].see(_weighted(block, logits, over_videos[place, None]), owners[place])
    for place, block in _pieces(rows):
        searches[0.0].count(block)
        t2v[0.0][place] = _text_places(block, owners[place], of_text)
        if scale:
            logits = scale * block.double()
            searches[scale].count(_weighted(block, logits, over_videos[place, None]))
            t2v[scale][place] = _text_places(_weighted(block, logits, over_texts), owners[place], of_text)
    return {each: Ranks(t2v[each].numpy(), search.places(num_texts, of_video)) for each, search in searches.items()}


def _pieces(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """The same rows, fewer at a time, on the CPU and with -inf in the place of NaN."""
    for place, block in rows():
        step = max(PIECE // block.shape[1], 1)
        for start in range(0, len(block), step):
            piece = block[start : start + step].cpu()
            here = place.start + start
            yield slice(here, here + len(piece)), piece.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _weighted(block: Tensor, logits: Tensor, sums: Tensor) -> Tensor:
    """Similarities [B, M] times softmax(logits), whose sums are given as logarithms; what is -inf stays so."""
    return (logits - sums).exp_().mul_(block).nan_to_num_(nan=-torch.inf)


def _text_places(scores: Tensor, owners: Tensor, share: float) -> Tensor:
    """Where texts find their videos: scores [B, M], int64 [B] -> [B]."""
    own = scores.gather(1, owners[:, None])
    return _places(_count(scores > own, 1), _count(scores == own, 1), own[:, 0], scores.shape[1], share)


def _count(is_so: Tensor, dim: int) -> Tensor:
    return is_so.sum(dim=dim, dtype=torch.int32)


def _places(num_better: Tensor, num_equal: Tensor, own: Tensor, most: int, share: float) -> Tensor:
    """Places from 1; ``share`` of the others with the ``own`` score are before. What is -inf has the last, ``most``."""
    return torch.where(own == -torch.inf, most, 1 + num_better + share * (num_equal - 1).double())


class _VideoSearch:
    """M videos look for their texts in a table of scores [N, M] that goes by twice."""

    def __init__(self, num_videos: int):
        self.best = torch.full((num_videos,), -torch.inf, dtype=torch.float64)  # score of each one's best text
        self.num_better, self.num_equal = torch.zeros(2, num_videos, dtype=torch.int64)
        self.has_text = torch.zeros(num_videos, dtype=torch.bool)

    def see(self, scores: Tensor, owners: Tensor) -> None:
        """The first time: scores [B, M] of texts, and their videos."""
        own = scores.gather(1, owners[:, None])[:, 0]
        self.best.scatter_reduce_(0, owners, own.double(), "amax")
        self.has_text[owners] = True

    def count(self, scores: Tensor) -> None:
        """The second time: scores [B, M] of texts."""
        best = self.best.to(scores.dtype)
        self.num_better += _count(scores > best, 0)
        self.num_equal += _count(scores == best, 0)

    def places(self, num_texts: int, share: float) -> np.ndarray:
        """Of the best text of each video; NaN: it has none."""
        places = _places(self.num_better, self.num_equal, self.best, num_texts, share)
        return torch.where(self.has_text, places, torch.nan).numpy()


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
