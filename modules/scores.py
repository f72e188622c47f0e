"""How clips are compared with classes."""

import torch.nn.functional as F
from torch import Tensor

from utils.precision import without_autocast


def cosines(features: Tensor, classes: Tensor) -> Tensor:
    """Mean over frames, then unit length, times unit class features: [..., T, D] and [K, D] -> [..., K].

    In fp32 under any autocast (TF32 on a GPU): bf16 would round cosines to two digits.
    """
    with without_autocast(features):
        return F.normalize(features.float().mean(dim=-2), dim=-1) @ classes.float().T
