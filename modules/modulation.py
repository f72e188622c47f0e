"""Temporal feature modulation (MoTE, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

# The published temperature, chosen for OpenAI's CLIP.
PUBLISHED_TEMPERATURE = 0.05
ALIKE = 1e-6  # distances up to here are rounding


def modulation_gate(
    frame_features: Tensor,
    class_features: Tensor,
    train_class_features: Tensor,
    num_classes: int = 5,
    temperature: Tensor | float = 0.05,
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


def fitted_temperature(temperature: float, train_class_features: Tensor) -> Tensor | float:
    """The gate's temperature for a tower whose classes lie closer or further apart than those of OpenAI's CLIP.

    It is the mean distance, 1 - cosine, from a training class to the nearest other one: the gate looks at nearest
    classes, too. At the published setting a class that is as far from all training classes as these are from each other
    so has the gate 1 / e, however wide the space is. Other settings are multiples of it.

    Args:
        temperature: as configured; divided by ``PUBLISHED_TEMPERATURE`` it is the multiple.
        train_class_features: unit features [K, D].

    Returns:
        A scalar; as configured, where there is one class, or all are alike.
    """
    if len(train_class_features) < 2:
        return temperature
    distance = nearest_distance(train_class_features)
    return temperature * torch.where(distance > ALIKE, distance / PUBLISHED_TEMPERATURE, torch.ones_like(distance))


def nearest_distance(class_features: Tensor) -> Tensor:
    """Mean distance, 1 - cosine, from a class to the nearest other one; of unit features [K, D], K > 1, a scalar."""
    same = torch.eye(len(class_features), dtype=torch.bool, device=class_features.device)
    cosines = (class_features @ class_features.T).masked_fill(same, -1.0)
    return 1.0 - cosines.amax(dim=-1).mean()


def _most_similar(query: Tensor, features: Tensor, count: int) -> Tensor:
    """The ``count`` rows of features [K, D] most similar to each query [B, D] -> [B, count, D]."""
    top = (query @ features.T).topk(min(count, features.shape[0]), dim=-1).indices
    return features[top]
