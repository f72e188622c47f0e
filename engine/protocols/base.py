"""What a protocol is: how views become scores, and scores figures."""

from typing import Any
from typing import Protocol as Interface

from torch import Tensor


class Protocol(Interface):
    """One way to test; a test command names its own."""

    name: str  # part of the default output folder's name
    rule: str  # how views are fused, in the words of the results

    def fuse(self, view_scores: Tensor) -> Tensor:
        """Scores of all views [N, V, K] -> scores [N, K]; rows of NaN stay."""

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, Any]:
        """Entries of the results, ``top1`` and ``top5`` among them, from scores [N, K] and labels int64 [N]."""
