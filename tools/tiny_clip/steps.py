"""The parts of pretraining a tiny CLIP that every world shares: loss, batches, optimizer, a step."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP, PIXEL_MEAN, PIXEL_STD


def contrastive_loss(image_features: Tensor, text_features: Tensor, is_true: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, with every pair that fits as a positive.

    Many captions of a batch are equal, or say little and so are true of several pictures: the target of a picture
    is even over the captions that are true of it, and that of a caption over its pictures.

    Args:
        image_features: [N, D], any length.
        text_features: [M, D], any length.
        is_true: bool [N, M]; every row and column has a True.
        logit_scale: logarithm of the inverse temperature.
    """
    logits = logit_scale.exp() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
    positives = is_true.float()
    image_loss = F.cross_entropy(logits, positives / positives.sum(dim=1, keepdim=True))
    text_loss = F.cross_entropy(logits.t(), (positives / positives.sum(dim=0)).t())
    return (image_loss + text_loss) / 2


def normalise_pixels(frames: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in CLIP's normalisation."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels - mean) / std


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear warm-up to `peak`, then a cosine to 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, lr: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


def batches(num_pictures: int, steps: int, batch_size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Index arrays [batch_size], one a step, from a new random order of the pictures each pass."""
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = generator.permutation(num_pictures)
        yield order[:batch_size]
        order = order[batch_size:]


def build_optimizer(model: CLIP, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW without decay on vectors and tables: decay would shrink the rows of tokens that no caption has."""
    is_matrix = {p: p.ndim >= 2 and "embedding" not in name for name, p in model.named_parameters()}
    groups = [
        {"params": [p for p, decays in is_matrix.items() if decays], "weight_decay": weight_decay},
        {"params": [p for p, decays in is_matrix.items() if not decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
