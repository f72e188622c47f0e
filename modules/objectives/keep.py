"""How far features have moved from a teacher's: what is added to a loss so that a model forgets less."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.precision import copy_to, without_autocast


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """2 (1 - cos) of features and a teacher's, their mean, a scalar of fp32: the squared distance of unit vectors.

    Args:
        student: [..., D], not normalised.
        teacher: the same shape; gets no gradient.
    """
    with without_autocast(student):
        return 2 * (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).mean()


def head_mse(after: Tensor, before: Tensor) -> Tensor:
    """Mean over all elements of (after - before)^2, of features behind the head and in front of it, a scalar of fp32.

    As MoTE's for its merged pass (section 3.3): both sides learn from it, so the image tower is drawn to the head, too.

    Args:
        after, before: [B, T, D].
    """
    with without_autocast(after):
        return F.mse_loss(after.float(), before.float())


def relations_loss(student: Tensor, teacher: Tensor, anchors: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of what features are to anchors, the mean over features, a scalar of fp32.

    What a feature is to N anchors is softmax(cosines / temperature). Relative Structure Distillation of TACO (Zhu et
    al., 2026); the temperature is ours.

    Args:
        student: [..., D], not normalised.
        teacher: the same shape; gets no gradient.
        anchors: [N, D], unit vectors.
    """
    with without_autocast(student):
        logits = [
            F.normalize(features.float(), dim=-1).flatten(0, -2) @ anchors.T / temperature
            for features in (student, teacher.detach())
        ]  # [B*T, N] each
        found, expected = (each.log_softmax(dim=-1) for each in logits)
        return F.kl_div(found, expected, reduction="batchmean", log_target=True)


def random_anchors(generator: torch.Generator, num_anchors: int, like: Tensor) -> Tensor:
    """Directions drawn evenly from all there are: unit vectors [num_anchors, D] for features [..., D], on their device.

    Args:
        generator: on the CPU.
    """
    anchors = torch.randn(num_anchors, like.shape[-1], generator=generator)
    return copy_to(like.device, F.normalize(anchors, dim=-1))


def teacher_momentum(progress: float, start: float) -> float:
    """What a teacher that follows keeps of itself at an update: from ``start`` to 1, by half a cosine (as in BYOL).

    Args:
        progress: share of the run that is done, 0 to 1.
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
