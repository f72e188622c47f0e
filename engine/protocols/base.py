"""What a protocol is: how views become scores, and scores figures."""

from typing import Any
from typing import Protocol as Interface

from torch import Tensor

from engine.protocols.fusion import Fusion


class Protocol(Interface):
    """One way to test; a test command names its own."""

    name: str  # part of the default output folder's name
    fusion: Fusion  # how views become scores
    needs_one_label: str  # what it has that needs one label a video; empty: accuracy alone

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, Any]:
        """Entries of the results, ``top1`` and ``top5`` among them, from scores [N, K] and labels int64 [N]."""
