"""Temporal feature modulation (MoTE, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def modulation_gate(
    frame_features: Tensor,
    class_features: Tensor,
    train_class_features: Tensor,
    num_classes: int = 5,
    temperature: float = 0.05,
) -> Tensor:
    """Temporal feature modulation (paper, section 3.4): how far the temporal branch can be trusted.

    The classes a clip may show are compared with the classes the head was trained on; where they
    are far apart the clip falls back on CLIP's own frame features.

    Args:
        frame_features: [B, T, D], not normalised.
        class_features: unit features of the classes asked for, [K, D].
        train_class_features: unit features of the training classes, [K_train, D].
        num_classes: candidates on either side; min(num_classes, K) are used.
        temperature: exp(-(1 - mean similarity) / temperature).

    Returns:
        [B], in (0, 1]; 1 where both sets are the same.
    """
    query = F.normalize(frame_features.mean(dim=1), dim=-1)
    candidates = _most_similar(query, class_features, num_classes)  # [B, n, D]
    trained = _most_similar(query, train_class_features, num_classes)  # [B, m, D]
    best = (candidates @ trained.transpose(1, 2)).amax(dim=-1)  # [B, n]
    return torch.exp((best.mean(dim=-1) - 1.0) / temperature)


def _most_similar(query: Tensor, features: Tensor, count: int) -> Tensor:
    """The ``count`` rows of features [K, D] most similar to each query [B, D] -> [B, count, D]."""
    top = (query @ features.T).topk(min(count, features.shape[0]), dim=-1).indices
    return features[top]
