"""CLIP's ResNets under OpenAI's names: three convolutions as stem, pooling in place of strides, attention at the end.

After He et al. (2016) with the changes of section 2.4 of the CLIP paper (Radford et al., 2021). BatchNorm learns its
statistics in training as ever, and keeps them in a tower whose parameters do not train.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.shift import RESNET_MODULES, ShiftedConvolution, check_time_module

EXPANSION = 4  # a block's output is so many times as wide as what is inside
STRIDE = 32  # pixels of the input for one of the last layer
STAGES = 4
DEEP = 23  # from so many blocks in the third stage on, TSM stands in every second block only


@dataclass(frozen=True)
class ResNetConfig:
    """Shapes of a tower, and its temporal module (a name of ``RESNET_MODULES``, empty: none)."""

    layers: tuple[int, ...]  # blocks of each stage
    width: int  # channels of the stem
    heads: int
    image_size: int
    embed_dim: int
    time_module: str = ""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; a stride is average pooling, in front of the last and on the identity path."""

    def __init__(self, width_in: int, width: int, stride: int, is_shifted: bool):
        super().__init__()
        width_out = EXPANSION * width
        conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.is_shifted = is_shifted
        self.conv1 = ShiftedConvolution(conv1) if is_shifted else conv1
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.downsample = None
        if stride > 1 or width_in != width_out:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride))  # OpenAI counts what has tensors from 0
            self.downsample.add_module("0", nn.Conv2d(width_in, width_out, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(width_out))

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """[B*T, C, H, W] -> [B*T, C', H', W']"""
        inner = self.conv1(x, num_frames) if self.is_shifted else self.conv1(x)
        inner = F.relu(self.bn1(inner))
        inner = F.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(self.pool(inner)))
        return F.relu(inner + (x if self.downsample is None else self.downsample(x)))


class AttentionPool(nn.Module):
    """Attention whose one query is the mean over places."""

    def __init__(self, grid: int, width: int, heads: int, embed_dim: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, width) * width**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, embed_dim)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, D]"""
        places = x.flatten(2).transpose(1, 2)  # [N, H*W, C]
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        parts = (self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1))


class ModifiedResNet(nn.Module):
    """Pictures -> embeddings; each stage is a list of blocks, since TSM's need to know the number of frames.

    Raises:
        ValueError: no such temporal module.
    """

    def __init__(self, config: ResNetConfig):
        super().__init__()
        check_time_module(config.time_module, RESNET_MODULES, "ResNet")
        self.time_module = RESNET_MODULES.get(config.time_module, "")
        width = config.width
        stem = [nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width // 2)]
        stem += [nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)]
        stem += [nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        self.conv1, self.bn1, self.conv2, self.bn2, self.conv3, self.bn3 = stem
        width_in, every = width, 2 if config.layers[2] >= DEEP else 1
        stages = [nn.ModuleList() for _ in range(STAGES)]
        for number, (stage, num_blocks) in enumerate(zip(stages, config.layers, strict=True)):
            inner = width * 2**number
            for block in range(num_blocks):
                is_shifted = bool(self.time_module) and block % every == 0
                stage.append(Bottleneck(width_in, inner, 2 if number and not block else 1, is_shifted))
                width_in = EXPANSION * inner
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(config.image_size // STRIDE, width_in, config.heads, config.embed_dim)
        for name, scale in self.named_parameters():
            if name.endswith("bn3.weight") and name.startswith("layer"):
                nn.init.zeros_(scale)  # a block begins as its identity path

    def forward(self, images: Tensor, num_frames: int = 1) -> Tensor:
        """Normalised images [B*T, 3, S, S], T of each clip in order -> embeddings [B*T, D], not L2-normalised."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, num_frames)
        return self.attnpool(x)

    def norms(self) -> list[nn.BatchNorm2d]:
        """All BatchNorms."""
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> "ModifiedResNet":
        """BatchNorms whose parameters do not train keep their statistics: a fixed tower stays what it is."""
        super().train(mode)
        for norm in self.norms():
            norm.train(mode and norm.weight.requires_grad)
        return self

    def statistics(self) -> list[Tensor]:
        """The buffers that training changes: means and variances."""
        return [buffer for norm in self.norms() for buffer in (norm.running_mean, norm.running_var)]
