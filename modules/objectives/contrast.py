"""Videos and texts against each other, over the batches of all processes: NCE and DS of Text4Vis, OST's sum, pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.distributed import gather_rows
from utils.precision import without_autocast

SAME_CLASS = 10.0  # logit of a pair of one class in the target, of other pairs 0
DUAL_TEMPERATURE = 1000.0  # of the softmax that DS multiplies with


class Contrast(NamedTuple):
    """A loss and its two directions, scalars."""

    total: Tensor  # their mean, or in OST and TVTSv2 their sum
    of_videos: Tensor  # each video against all texts
    of_texts: Tensor


def nce_loss(video: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor, gather: str = "full") -> Contrast:
    """How far the cosines of videos and texts are from telling who shares a class (``solver.loss_type: NCE``).

    The batches of all processes count as one, so the loss is alike on each of them; see ``gather_rows``.

    Args:
        video: [B, D], normalised here.
        text: [B, D], row i the text of video i; normalised here.
        labels: int64 [B].
        logit_scale: the factor of the cosines, a scalar.
        gather: ``full`` or ``published`` gradients, see ``gather_rows``.

    Raises:
        ValueError: one video in the batches of all processes, which leaves nothing to compare it with.
    """
    return both_directions(*_all_pairs(video, text, labels, logit_scale, gather))


def ds_loss(video: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor, gather: str = "full") -> Contrast:
    """``nce_loss`` of logits after ``dual_softmax`` (``solver.loss_type: DS``); arguments and errors are the same."""
    logits, labels = _all_pairs(video, text, labels, logit_scale, gather)
    return both_directions(dual_softmax(logits), labels, dual_softmax(logits.T))


def pair_loss(video: Tensor, text: Tensor, temperature: float, gather: str = "full") -> Contrast:
    """Cross-entropy of each video among all texts and of each text among all videos, their sum, as TVTSv2 trains.

    The batches of all processes count as one. Every text belongs to its own video alone, whatever others say.

    Args:
        video: [B, D], normalised here.
        text: [B, D], row i the text of video i; normalised here.
        temperature: what cosines are divided by.
        gather: ``full`` or ``published`` gradients, see ``gather_rows``.

    Raises:
        ValueError: one video in the batches of all processes, which leaves nothing to compare it with.
    """
    with without_autocast(video):
        own = F.normalize(video.float(), dim=-1), F.normalize(text.float(), dim=-1)
        videos, texts = gathered_rows(own, gather)
        logits = videos @ texts.T / temperature
        pairs = torch.arange(len(logits), device=logits.device)
        losses = F.cross_entropy(logits, pairs), F.cross_entropy(logits.T, pairs)
    return Contrast(sum(losses), *losses)


CONTRASTS = {"NCE": nce_loss, "DS": ds_loss}  # values of solver.loss_type


def check_batch(num_videos: int) -> None:
    """See that the batches of all processes have videos to compare with each other.

    Raises:
        ValueError: there is one.
    """
    if num_videos < 2:
        raise ValueError(
            "solver.loss_type: contrasts compare the videos of a batch with each other, and a batch has one over all "
            "processes: raise data.batch_size"
        )


def gathered(rows: Sequence[Tensor], labels: Tensor, gather: str = "full") -> tuple[list[Tensor], Tensor]:
    """The rows of all processes' batches, see ``gathered_rows``, and their labels, int64 [B] -> [N]."""
    return gathered_rows(rows, gather), gather_rows(labels)


def gathered_rows(rows: Sequence[Tensor], gather: str = "full") -> list[Tensor]:
    """The rows of all processes' batches: what a contrast makes its logits of, alike on each process.

    Args:
        rows: of each kind (frame features, descriptors, ...) one tensor [B, ...], all of one dtype.
        gather: ``full`` or ``published`` gradients, see ``gather_rows``.

    Returns:
        Each kind as [N, ...], a part of the graph.

    Raises:
        ValueError: one video in the batches of all processes, which leaves nothing to compare it with.
    """
    flat = [kind.flatten(1) for kind in rows]
    together = gather_rows(torch.cat(flat, dim=1), gather)  # one exchange each way
    if not together.is_meta:
        check_batch(len(together))
    parts = together.split([kind.shape[1] for kind in flat], dim=1)
    return [part.unflatten(1, kind.shape[1:]) for part, kind in zip(parts, rows, strict=True)]


def both_directions(logits: Tensor, labels: Tensor, of_texts: Tensor | None = None, is_halved: bool = True) -> Contrast:
    """``contrast_loss`` of each video against all texts, and of each text against all videos.

    Args:
        logits: [N, N], row i of video i, column j of text j, scaled.
        labels: int64 [N], of video i and text i.
        of_texts: logits [N, N] of the other direction; None: the same, transposed.
        is_halved: the total is the mean of both; False: their sum, as OST trains.
    """
    target = contrast_targets(labels)
    losses = contrast_loss(logits, target), contrast_loss(logits.T if of_texts is None else of_texts, target)
    return Contrast(sum(losses) / (2 if is_halved else 1), *losses)


def contrast_targets(labels: Tensor) -> Tensor:
    """What the softmax of each row should be, float64 [N, N] from int64 [N]: equal large shares for those of its class.

    With SAME_CLASS = 10 the others keep a little: of 256 videos with one of the class, 1.1 % together.
    """
    return (SAME_CLASS * (labels[:, None] == labels).double()).softmax(dim=1)


def contrast_loss(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) of rows [N, N], their mean, fp32; 0 where they agree.

    Within, float64: near 0 a KL is a sum of terms that cancel, of which fp32 leaves four digits.
    """
    return F.kl_div(logits.double().log_softmax(dim=1), target.double(), reduction="batchmean").float()


def dual_softmax(logits: Tensor) -> Tensor:
    """Logits [N, N] times the softmax over each column, with its mean at 1: who is wanted by others is worth less."""
    return logits * (logits / DUAL_TEMPERATURE).softmax(dim=0) * len(logits)


def _all_pairs(video: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor, gather: str) -> tuple[Tensor, Tensor]:
    """Logits [N, N] and labels [N] of all processes; in fp32: bf16 leaves two digits of a cosine."""
    with without_autocast(video):
        own = F.normalize(video.float(), dim=-1), F.normalize(text.float(), dim=-1)
        (videos, texts), labels = gathered(own, labels, gather)
        return logit_scale.float() * videos @ texts.T, labels
