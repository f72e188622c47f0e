"""Temporal modules inside an image tower: the frames of a clip exchange channels between the tower's own layers.

- ``tsm`` (Lin et al., TSM, ICCV 2019): an eighth of the channels comes from the next frame, an eighth from the one
  before; of the patch tokens, in front of every block of a ViT; in front of the first convolution of a ResNet's blocks.
- ``tokenshift`` (Zhang et al., Token Shift Transformer, ACM MM 2021): a quarter each way, of the class token alone, in
  front of attention and of the feed-forward layer.
- ``tokent1d``: in the same two places a convolution over time for each channel, which starts as that shift and learns.

Beyond the ends of a clip there are zeros, so that a picture, which is a clip of one frame, loses the shifted channels.
"""

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TSM, TOKENSHIFT, TOKENT1D = "tsm", "tokenshift", "tokent1d"
PATCH_SHARE, TOKEN_SHARE = 8, 4  # one of so many channels comes from the next frame, and one from the frame before
WRAPPED = ".net."  # in released names: what a shift stands in front of
ADDED = ".control_point."  # in names of tensors that pretrained weights do not have


def shift_channels(x: Tensor, share: int, channels: int = -1) -> Tensor:
    """The first C // share channels become the next frame's, as many after them those of the frame before.

    Args:
        x: [B, T, ...], one of the other dimensions being channels.
        channels: that dimension, counted from the end.

    Returns:
        The same shape; zeros from beyond the ends of a clip.
    """
    width = x.shape[channels]
    fold = width // share
    following, previous, rest = x.split([fold, fold, width - 2 * fold], dim=channels)
    untouched = [0, 0] * (x.ndim - 2)  # dimensions after T
    following = F.pad(following, [*untouched, 0, 1])[:, 1:]
    previous = F.pad(previous, [*untouched, 1, 0])[:, :-1]
    return torch.cat([following, previous, rest], dim=channels)


class PatchShift(nn.Module):
    """TSM around a transformer block: its input, residual path included, with the patches' channels shifted."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, is_causal: bool = False, only_first: bool = False) -> Tensor:
        """[B, T, L, D] -> [B, T, L, D] or [B, T, 1, D], see ``clip.blocks``; the first token is the class token."""
        shifted = torch.cat([x[..., :1, :], shift_channels(x[..., 1:, :], PATCH_SHARE)], dim=-2)
        return self.net(shifted, is_causal, only_first)


class TokenShift(nn.Module):
    """The class token's channels shifted."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, L, D] -> [B, T, L, D]"""
        return torch.cat([shift_channels(x[..., :1, :], TOKEN_SHARE), x[..., 1:, :]], dim=-2)


class TokenConvolution(nn.Module):
    """The class token convolved over time, each channel on its own; as initialised it is ``TokenShift``."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        fold = width // TOKEN_SHARE
        with torch.no_grad():
            self.conv.weight.zero_()  # [D, 1, 3]: the frame before, the frame, the next one
            self.conv.weight[:fold, :, 2] = 1.0
            self.conv.weight[fold : 2 * fold, :, 0] = 1.0
            self.conv.weight[2 * fold :, :, 1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, L, D] -> [B, T, L, D]"""
        # Written out: autocast would compute a convolution in half precision, and this is the residual path.
        before, same, after = self.conv.weight.squeeze(1).unbind(1)  # [D] each
        token = x[..., 0, :]  # [B, T, D]
        padded = F.pad(token, [0, 0, 1, 1])
        token = before * padded[:, :-2] + same * token + after * padded[:, 2:]
        return torch.cat([token[..., None, :], x[..., 1:, :]], dim=-2)


class ShiftedConvolution(nn.Module):
    """TSM in front of a convolution: the input's channels shifted."""

    def __init__(self, net: nn.Conv2d):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """[B*T, C, H, W] -> [B*T, C', H', W']"""
        clips = x.unflatten(0, (-1, num_frames))
        return self.net(shift_channels(clips, PATCH_SHARE, channels=-3).flatten(0, 1))


def _with_control_point(block: nn.Module, control_point: nn.Module) -> nn.Module:
    block.control_point = control_point
    return block


# Values of network.tm for a ViT: (transformer block, its width) -> the block with the module.
VIT_MODULES: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    TSM: lambda block, width: PatchShift(block),
    TOKENSHIFT: lambda block, width: _with_control_point(block, TokenShift()),
    TOKENT1D: lambda block, width: _with_control_point(block, TokenConvolution(width)),
}
# The same for a ResNet: True is TSM's name in published files for ResNets.
RESNET_MODULES = {TSM: TSM, "True": TSM}


def pretrained_name(name: str) -> str:
    """The name that a tensor of a tower has without a temporal module."""
    return name.replace(WRAPPED, ".")


def time_module_in(names: Collection[str]) -> str:
    """The temporal module that names of tensors tell; empty: none, or ``tokenshift``, which has no names of its own."""
    if any(WRAPPED in name for name in names):
        return TSM
    return TOKENT1D if any(ADDED in name for name in names) else ""


def check_time_module(name: str, choices: Collection[str], tower: str) -> None:
    """See that a tower knows the module.

    Raises:
        ValueError: it does not; lists what ``network.tm`` may be.
    """
    if name and name not in choices:
        raise ValueError(f"network.tm: expected one of False, {', '.join(choices)} for a {tower}, found {name}")
