"""What the published code does, in our own plain rendering: the yardstick of every benchmark.

nn.MultiheadAttention in [L, N, D] layout, activation checkpointing always on, the expert pass and the merged pass one
after the other, experts merged anew at every call, frames decoded one by one, PIL transforms, fp32 frames. Module names
match ours, so the same state dicts load into both.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip.model import PIXEL_MEAN, PIXEL_STD, CLIPConfig
from datasets.decode.other_readers import import_decord


class SigmoidGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Float32LayerNorm(nn.LayerNorm):
    """Normalises in fp32 whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc, self.act, self.c_proj = nn.Linear(width, 4 * width), SigmoidGELU(), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class VisionBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.mlp, self.ln_2 = Float32LayerNorm(width), FeedForward(width), Float32LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class BaselineVision(nn.Module):
    """CLIP's image tower; keys as ``clip.model.VisionTransformer``."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + (config.image_size // patch) ** 2, width))
        self.ln_pre, self.ln_post = Float32LayerNorm(width), Float32LayerNorm(width)
        self.transformer = nn.Module()
        blocks = (VisionBlock(width, config.vision_heads) for _ in range(config.vision_layers))
        self.transformer.resblocks = nn.ModuleList(blocks)
        self.proj = nn.Parameter(torch.zeros(width, config.embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).permute(0, 2, 1)
        cls = self.class_embedding.to(x.dtype) + torch.zeros(len(x), 1, x.shape[-1], dtype=x.dtype, device=x.device)
        x = self.ln_pre(torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype))
        x = x.permute(1, 0, 2)  # [L, N, W]
        for block in self.transformer.resblocks:
            x = checkpoint(block, x, use_reentrant=False) if torch.is_grad_enabled() else block(x)
        return self.ln_post(x.permute(1, 0, 2)[:, 0]) @ self.proj


class BaselineExperts(nn.Module):
    """Experts that are run singly, or merged at every call."""

    def __init__(self, width: int, num_experts: int):
        super().__init__()
        self.fc_up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(num_experts))
        self.act = SigmoidGELU()
        self.fc_dn = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(num_experts))
        self.register_buffer("mote_fusion_weight", torch.zeros(num_experts))

    def forward(self, x: Tensor, expert: int | None, mixing: Tensor | None) -> Tensor:
        if expert is not None:
            return self.fc_dn[expert](self.act(self.fc_up[expert](x)))
        weights = self.mote_fusion_weight.softmax(0) if mixing is None else mixing
        up = [
            sum(w * getattr(e, name) for w, e in zip(weights, self.fc_up, strict=True)) for name in ("weight", "bias")
        ]
        dn = [
            sum(w * getattr(e, name) for w, e in zip(weights, self.fc_dn, strict=True)) for name in ("weight", "bias")
        ]
        return F.linear(self.act(F.linear(x, *up)), *dn)


class TemporalBlock(nn.Module):
    def __init__(self, width: int, heads: int, num_experts: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = Float32LayerNorm(width, eps=1e-12), Float32LayerNorm(width, eps=1e-12)
        self.mlp = BaselineExperts(width, num_experts)

    def forward(self, x: Tensor, expert: int | None, mixing: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x), expert, mixing)


class BaselineHead(nn.Module):
    """Temporal head; keys as ``modules.heads.transformer.TemporalTransformer``."""

    def __init__(self, width: int, layers: int, heads: int, num_experts: int, num_train_classes: int):
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(77, width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(TemporalBlock(width, heads, num_experts) for _ in range(layers))
        self.register_buffer("spe_cls_feature", torch.zeros(num_train_classes, width))

    def run(self, frame_features: Tensor, experts: list[int] | None, mixing: Tensor | None) -> Tensor:
        """One pass: [B, T, D] -> [B, T, D]."""
        positions = torch.arange(frame_features.shape[1], device=frame_features.device)
        x = (frame_features + self.frame_position_embeddings(positions)).permute(1, 0, 2)
        for layer, block in enumerate(self.transformer.resblocks):
            expert, mix = experts and experts[layer], None if mixing is None else mixing[layer]
            x = (
                checkpoint(block, x, expert, mix, use_reentrant=False)
                if torch.is_grad_enabled()
                else block(x, None, None)
            )
        return x.permute(1, 0, 2).to(frame_features.dtype) + frame_features

    def forward(self, frame_features: Tensor, mixing: Tensor | None = None) -> Tensor:
        """With mixing weights [layers, 2, E] both passes, one after the other: [2, B, T, D]; else [1, B, T, D]."""
        if mixing is None:
            return self.run(frame_features, None, None)[None]
        expert_pass = self.run(frame_features, mixing[:, 0].argmax(-1).tolist(), None)
        return torch.stack([expert_pass, self.run(frame_features, None, mixing[:, 1])])


def train_sample(path: str, num_segments: int, input_size: int) -> Tensor:
    """One training clip: frames one by one, PIL, fp32 [T, 3, S, S]."""
    video = import_decord().VideoReader(path, num_threads=1)
    step = (len(video) - 1) / num_segments
    picks = [random.randint(round(step * i), round(step * (i + 1))) for i in range(num_segments)]
    images = [Image.fromarray(video[i].asnumpy()).convert("RGB") for i in picks]
    scale = 256 / min(images[0].size)
    images = [image.resize([round(side * scale) for side in image.size], Image.BICUBIC) for image in images]
    width, height = images[0].size
    area, ratio = random.uniform(0.08, 1.0) * width * height, random.uniform(3 / 4, 4 / 3)
    w, h = min(int((area * ratio) ** 0.5), width), min(int((area / ratio) ** 0.5), height)
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    images = [im.crop((left, top, left + w, top + h)).resize((input_size,) * 2, Image.BILINEAR) for im in images]
    if random.random() < 0.5:
        images = [image.transpose(Image.FLIP_LEFT_RIGHT) for image in images]
    if random.random() < 0.2:
        images = [image.convert("L").convert("RGB") for image in images]
    frames = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    return (frames - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)


def eval_sample(path: str, num_segments: int, input_size: int) -> Tensor:
    """One test clip of one view: frames one by one, PIL, fp32 [T, 3, S, S]."""
    video = import_decord().VideoReader(path, num_threads=1)
    images = [Image.fromarray(video[int(len(video) / num_segments * i)].asnumpy()) for i in range(num_segments)]
    scale = input_size / min(images[0].size)
    images = [image.resize([round(side * scale) for side in image.size], Image.BICUBIC) for image in images]
    left, top = (images[0].width - input_size) // 2, (images[0].height - input_size) // 2
    images = [image.crop((left, top, left + input_size, top + input_size)) for image in images]
    frames = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    return (frames - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)
