"""How clips are compared with classes."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from utils.precision import without_autocast


class Explanation(NamedTuple):
    """Which of the N texts of a class lie on which frames of B clips."""

    name: str  # of the set of texts
    texts: list[str]
    shares: Tensor  # [B, T', N] of a frame, from 0 to 1


def cosines(features: Tensor, classes: Tensor) -> Tensor:
    """Mean over frames, then unit length, times unit class features: [..., T, D] and [K, D] -> [..., K].

    In fp32 under any autocast (TF32 on a GPU): bf16 would round cosines to two digits.
    """
    with without_autocast(features):
        return F.normalize(features.float().mean(dim=-2), dim=-1) @ classes.float().T
