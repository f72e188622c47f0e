"""What videos are compared with: features that are fixed, or texts that the text tower encodes anew in each step."""

from typing import Protocol

from torch import Tensor

from clip.towers import Towers


class Classes(Protocol):
    """K classes; frozen, live or learned is their own affair."""

    def __len__(self) -> int:
        """K."""

    def encode(self, towers: Towers) -> Tensor:
        """Unit features [K, D] on the towers' device; a part of the graph where they are trained."""


class FixedClasses:
    """Unit features [K, D] that nothing trains."""

    def __init__(self, features: Tensor):
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def encode(self, towers: Towers) -> Tensor:
        """See ``Classes``."""
        return self.features.to(towers.logit_scale.device)
