"""Videos and texts against each other, over the batches of all processes: NCE and DS of Text4Vis and BIKE."""

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

    total: Tensor  # their mean
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
    logits, target = _all_pairs(video, text, labels, logit_scale, gather)
    return _both_directions(contrast_loss(logits, target), contrast_loss(logits.T, target))


def ds_loss(video: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor, gather: str = "full") -> Contrast:
    """``nce_loss`` of logits after ``dual_softmax`` (``solver.loss_type: DS``); arguments and errors are the same."""
    logits, target = _all_pairs(video, text, labels, logit_scale, gather)
    of_videos = contrast_loss(dual_softmax(logits), target)
    return _both_directions(of_videos, contrast_loss(dual_softmax(logits.T), target))


CONTRASTS = {"NCE": nce_loss, "DS": ds_loss}  # values of solver.loss_type


def check_batch(num_videos: int) -> None:
    """See that the batches of all processes have videos to compare with each other.

    Raises:
        ValueError: there is one.
    """
    if num_videos < 2:
        raise ValueError(
            "solver.loss_type NCE and DS compare the videos of a batch with each other, and a batch has one over all "
            "processes: raise data.batch_size"
        )


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
    """Logits and targets of the pairs of all processes, [N, N] each; in fp32: bf16 leaves two digits of a cosine."""
    with without_autocast(video):
        own = torch.cat([F.normalize(video.float(), dim=-1), F.normalize(text.float(), dim=-1)], dim=1)
        videos, texts = gather_rows(own, gather).chunk(2, dim=1)  # together: one exchange each way
        labels = gather_rows(labels)
        if not labels.is_meta:
            check_batch(len(labels))
        return logit_scale.float() * videos @ texts.T, contrast_targets(labels)


def _both_directions(of_videos: Tensor, of_texts: Tensor) -> Contrast:
    return Contrast((of_videos + of_texts) / 2, of_videos, of_texts)
