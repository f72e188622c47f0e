"""From outputs and labels to the training loss, with its parts by name."""

import torch.nn.functional as F
from torch import Tensor

from modules.video_clip import VideoOutput


def video_loss(
    output: VideoOutput, labels: Tensor, expert: float = 1.0, merged: float = 0.5, feature_mse: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the paper (section 3.3): CE(expert) + 0.5 CE(merged) + 0.1 MSE(merged, frame features).

    With one route (plain FFN, mean pooling, no merged pass) only the first part exists. The MSE compares the
    merged pass's frame features, after the outer residual, with CLIP's, as the mean over all elements.

    Args:
        output: of a forward pass with routes (expert, merged).
        labels: int64 [B].
        expert, merged, feature_mse: weights of the parts.

    Returns:
        The loss, and its unweighted parts, detached.
    """
    parts = {"expert_ce": F.cross_entropy(output.logit_scale * output.logits[0], labels)}
    loss = expert * parts["expert_ce"]
    if len(output.logits) > 1:
        parts["merged_ce"] = F.cross_entropy(output.logit_scale * output.logits[1], labels)
        parts["feature_mse"] = F.mse_loss(output.features[1].float(), output.frame_features.float())
        loss = loss + merged * parts["merged_ce"] + feature_mse * parts["feature_mse"]
    return loss, {name: part.detach() for name, part in parts.items()}
