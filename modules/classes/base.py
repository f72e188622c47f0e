"""What videos are compared with: features that are fixed, or texts that the text tower encodes anew in each step."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from clip.towers import Towers


class Classes(Protocol):
    """K classes; frozen, live or learned is their own affair."""

    needs_text: bool  # in every step: the text tower stays with the model
    fingerprint: str  # of the texts that are encoded; empty: there are none, or they are learned

    def __len__(self) -> int:
        """K."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Its own, that may train; those of the text tower are not among them."""

    def encode(self, towers: Towers, labels: Tensor | None = None) -> Tensor:
        """Unit features [K, D] on the towers' device; a part of the graph where they are trained.

        Args:
            labels: int64 [n], of which some may be equal: only these classes are encoded, and the result is [n, D].
        """


class FixedClasses:
    """Unit features [K, D] that nothing trains."""

    needs_text = False

    def __init__(self, features: Tensor, fingerprint: str = ""):
        self.features, self.fingerprint = features, fingerprint

    def __len__(self) -> int:
        return len(self.features)

    def parameters(self) -> Iterable[nn.Parameter]:
        """See ``Classes``."""
        return ()

    def encode(self, towers: Towers, labels: Tensor | None = None) -> Tensor:
        """See ``Classes``."""
        features = self.features.to(towers.logit_scale.device)
        return features if labels is None else features[labels]


class NoClasses(FixedClasses):
    """Of a system that learns from texts: nothing to compare with, and the text tower stays with the model."""

    needs_text = True

    def __init__(self, width: int):
        super().__init__(torch.zeros(0, width))


def encode_distinct(encode: Callable[[Tensor], Tensor], labels: Tensor, num_classes: int) -> Tensor:
    """Each distinct label encoded once, spread to the rows that ask for it: int64 [n] -> [n, D].

    A batch repeats its classes, and a text costs a pass of the text tower. The gradients of equal rows add up in the
    one text, as if it had been encoded for each of them.

    Args:
        encode: int64 [m] -> [m, D].
    """
    if labels.is_meta:  # only shapes are computed (engine.flops), and labels have no values: as if none was repeated
        return encode(torch.arange(len(labels)) % num_classes)
    distinct, rows = labels.unique(return_inverse=True)
    return encode(distinct)[rows]
