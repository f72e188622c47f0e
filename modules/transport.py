"""Descriptors matched to frames by optimal transport (OST, Chen et al., CVPR 2024; solver: Sinkhorn, Cuturi 2013).

A class is a few descriptors, a video a few frames. Each descriptor has the same share of the video and each frame the
same share of the class; the plan says how much of a descriptor lies on a frame, so that like meets like at least cost,
softened by entropy. A score is the similarity under the plan, added to the plain mean.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, StrictBool, StrictInt
from torch import Tensor

from utils.config import Number, settings
from utils.precision import without_autocast


@settings
class TransportSettings:
    """The solver; the values are the published ones, but for ``shared_stop``."""

    epsilon: Number = Field(0.1, gt=0.0)  # weight of the entropy, in units of a cosine: higher is nearer to the mean
    iterations: StrictInt = Field(100, ge=1)  # at most
    tolerance: Number = Field(0.01, ge=0.0)  # a problem has ended when its row scalings change by less, on average
    # All problems of a call end together, by the mean over all of them, as in the published program: then a score
    # depends a little on the videos and classes beside it (up to 0.01 of a logit).
    shared_stop: StrictBool = False


class Transport(NamedTuple):
    """What Sinkhorn's iterations end with; nothing of it carries gradients."""

    plan: Tensor  # [..., T, N], sums to 1; each column to 1/N exactly, each row to 1/T nearly
    rows: Tensor  # log of the row scalings, [..., T]
    columns: Tensor  # log of the column scalings, [..., N]
    iterations: Tensor  # int64 [...], of each problem


@torch.no_grad()
def solve(similarity: Tensor, settings: TransportSettings = TransportSettings()) -> Transport:  # noqa: B008
    """Entropic transport between T frames and N descriptors of equal weight, for each of any number of problems.

    The published iterations, kept as logarithms, where no similarity and no epsilon under- or overflows: the kernel is
    exp((similarity - 1) / epsilon), both scalings start at 1, then rows and columns are fitted in turn.

    Args:
        similarity: cosines [..., T, N], finite; computed in their precision.
    """
    kernel = (similarity - 1) / settings.epsilon
    # Logarithms of T and N, as tensors: an exported graph leaves T open.
    log_rows, log_columns = (kernel.new_full((), count).log() for count in kernel.shape[-2:])
    rows, columns = torch.zeros_like(kernel[..., :1]), torch.zeros_like(kernel[..., :1, :])
    scalings = torch.ones_like(rows)
    runs = torch.ones_like(kernel[..., :1, :1], dtype=torch.bool)  # whether a problem goes on
    iterations = torch.zeros_like(runs, dtype=torch.long)
    for _ in range(settings.iterations):
        rows = torch.where(runs, -log_rows - torch.logsumexp(kernel + columns, -1, keepdim=True), rows)
        columns = torch.where(runs, -log_columns - torch.logsumexp(kernel + rows, -2, keepdim=True), columns)
        iterations += runs
        before, scalings = scalings, rows.exp()
        change = (scalings - before).abs().mean(dim=-2, keepdim=True)
        # "Not below" rather than "above": scalings beyond the largest number differ by NaN, and must go on.
        runs = ~((change.mean() if settings.shared_stop else change) < settings.tolerance)
        if _all_ended(runs):
            break
    return Transport((rows + kernel + columns).exp(), rows[..., 0], columns[..., 0, :], iterations[..., 0, 0])


def transport_scores(
    frames: Tensor,
    descriptors: Tensor,
    settings: TransportSettings = TransportSettings(),  # noqa: B008
) -> Tensor:
    """Videos against classes of descriptors, [B, K], before the logit scale: the mean over S sets of pooled plus moved.

    pooled: the mean over all frames and descriptors; moved: the mean under the plan. Both are cosines, so a score lies
    within [-2, 2], and its temperature is about twice that of a plain cosine, as published. Gradients flow through the
    similarities; plans are constants. In fp32 under any autocast, see ``modules.scores.cosines``.

    Args:
        frames: [B, T, D] as the tower gives them; each is normalised here, and their mean is not again.
        descriptors: unit [S, K, N, D].

    Raises:
        FloatingPointError: a similarity is not finite; the first video or class at fault is named.
    """
    scores = []
    for similarity in _similarities(frames, descriptors):
        plan = solve(similarity.detach(), settings).plan
        scores.append(((plan + 1 / plan[0, 0].numel()) * similarity).sum(dim=(-2, -1)))
    return torch.stack(scores).mean(dim=0)


@torch.no_grad()
def transport_plans(
    frames: Tensor,
    descriptors: Tensor,
    classes: Tensor,
    settings: TransportSettings = TransportSettings(),  # noqa: B008
) -> Tensor:
    """Which descriptor takes which frame, for some classes alone: [B, S, len(classes), T, N], each plan sums to 1.

    Plans of all classes at once would be large, and nobody looks at them. Where problems do not share their end, only
    those asked for are solved; the rest is as in ``transport_scores``.

    Args:
        classes: int64 labels, one row for all videos.
    """
    plans = []
    for similarity in _similarities(frames, descriptors if settings.shared_stop else descriptors[:, classes]):
        plan = solve(similarity, settings).plan
        plans.append(plan[:, classes] if settings.shared_stop else plan)
    return torch.stack(plans, dim=1).contiguous()


def _similarities(frames: Tensor, descriptors: Tensor) -> list[Tensor]:
    """Cosines of every set, S of fp32 [B, K, T, N]."""
    if descriptors.ndim != 4 or frames.ndim != 3 or frames.shape[-1] != descriptors.shape[-1]:
        raise ValueError(
            "transport: expected frames [B, T, D] and descriptors [S, K, N, D], found "
            f"{list(frames.shape)} and {list(descriptors.shape)}"
        )
    with without_autocast(frames):
        unit = F.normalize(frames.float(), dim=-1)
        found = []
        for some in descriptors.float():
            # Problems lie last in memory, [N, T, K, B]: sums over frames and descriptors are then sums of long rows.
            flat = some.transpose(0, 1).flatten(0, 1) @ unit.transpose(0, 1).flatten(0, 1).T  # [N*K, T*B]
            shape = (some.shape[1], some.shape[0], unit.shape[1], unit.shape[0])  # N, K, T, B
            found.append(flat.view(shape).transpose(1, 2).contiguous().permute(3, 2, 1, 0))  # [B, K, T, N]
        _check_finite(found, unit, descriptors)
    return found


def _check_finite(similarities: list[Tensor], frames: Tensor, descriptors: Tensor) -> None:
    if _has_no_values(frames) or torch.stack([some.isfinite().all() for some in similarities]).all():
        return
    for what, features in (("frame features of video", frames), ("descriptors of class", descriptors.transpose(0, 1))):
        if is_wrong := (~features.isfinite().flatten(1).all(dim=1)).nonzero()[:, 0].tolist():
            more = f" and {len(is_wrong) - 1} more" if len(is_wrong) > 1 else ""
            raise FloatingPointError(
                f"transport: similarities are not finite, because of the {what} {is_wrong[0]}{more} of this batch"
            )
    raise FloatingPointError("transport: similarities of finite features are not finite")


def _all_ended(runs: Tensor) -> bool:
    return not _has_no_values(runs) and not runs.any()


def _has_no_values(tensor: Tensor) -> bool:
    """Only shapes are computed, or a graph is written down that cannot ask for values: then all iterations are in it.

    What a problem ends with stays what it is, so further iterations change nothing.
    """
    return tensor.is_meta or torch.compiler.is_compiling()
