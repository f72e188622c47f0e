"""Temporal feature modulation (MoTE, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

# The published temperature, 0.05, belongs to OpenAI's CLIP, whose texts lie in a narrow cone: two classes of
# Kinetics-400 have a cosine of about 0.7. Taken as given: it was not measured here.
CLIP_SPREAD = 0.3
ALIKE = 1e-6  # spreads up to here are rounding


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
    """A temperature of the gate that was chosen for ``CLIP_SPREAD``, for classes that lie closer or further apart.

    The spread of K classes is 1 - the mean cosine of two different ones. The gate falls with the distance of two sets
    of classes, so its temperature is proportional to the spread: in a wide space, where any two classes are far apart,
    the same distance says less. With one class, or classes that are all alike, there is none, and nothing changes.

    Args:
        train_class_features: unit features [K, D].

    Returns:
        A scalar.
    """
    count = len(train_class_features)
    if count < 2:
        return temperature
    # The squared length of the sum is the sum of all cosines, of which K are of a class with itself.
    mean_cosine = (train_class_features.sum(dim=0).square().sum() - count) / (count * (count - 1))
    spread = 1.0 - mean_cosine
    return temperature * torch.where(spread > ALIKE, spread / CLIP_SPREAD, torch.ones_like(spread))


def _most_similar(query: Tensor, features: Tensor, count: int) -> Tensor:
    """The ``count`` rows of features [K, D] most similar to each query [B, D] -> [B, count, D]."""
    top = (query @ features.T).topk(min(count, features.shape[0]), dim=-1).indices
    return features[top]
