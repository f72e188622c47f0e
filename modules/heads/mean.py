"""No mixing over time."""

from torch import Tensor, nn


class MeanPooling(nn.Module):
    """Frame features pass as they are; their mean is the video's (published ``sim_header: None``)."""

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]"""
        return frames
