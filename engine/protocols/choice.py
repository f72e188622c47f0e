"""Multiple choice: which of a few texts of its own a video is nearest to."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.protocols.accuracy import topk_accuracy
from engine.protocols.fusion import PERCENT

TOP5_FROM = 6  # options, with fewer of which the five best are no figure


def choice_scores(texts: Tensor, videos: Tensor, counts: Sequence[int]) -> Tensor:
    """Cosines times 100 of each question's options, float32 [N, K]; where one has fewer than K, -inf.

    Args:
        texts: embeddings [O, D] of the options of all questions one after the other.
        videos: embeddings [N, D], of each question's video; NaN where it could not be read.
        counts: of each question, how many options it has, O in all.
    """
    own = videos.float().repeat_interleave(torch.tensor(counts), dim=0)
    cosines = (F.normalize(texts.float(), dim=-1) * F.normalize(own, dim=-1)).sum(dim=-1)
    rows = (PERCENT * cosines).split(list(counts))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)


def choice_figures(scores: Tensor, answers: Tensor) -> dict[str, float]:
    """Top-1 in percent and, where there are more than five options, top-5; a video that was not read is wrong.

    Args:
        scores: [N, K] of ``choice_scores``.
        answers: int64 [N], the right option.
    """
    figures = {"top1": topk_accuracy(scores, answers, 1)}
    return figures | ({"top5": topk_accuracy(scores, answers, 5)} if scores.shape[1] >= TOP5_FROM else {})
