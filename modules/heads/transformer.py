"""Temporal heads: frame features of a clip in, temporally mixed frame features out.

A head is a module with ``forward(frame_features, mixing=None, gate=None)`` and ``draw_mixing(generator)``;
a new one is a class here and a line in ``modules/build.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import MLP, Attention
from modules.heads.experts import ExpertFFN, draw_mixing

MAX_FRAMES = 77  # rows of the released position table
HEAD_WIDTH = 64  # the released heads have text width / 64 attention heads
# Softmax over [1..E] / t for one t of these; an infinite t gives the plain average.
MERGE_TEMPERATURES = (-9.6, -4.8, -2.4, -1.2, -0.6, 0.6, 1.2, 2.4, 4.8, 9.6, float("inf"))


class MeanPooling(nn.Module):
    """No temporal modelling: frame features pass as they are (published ``sim_header: None``)."""

    def draw_mixing(self, generator: torch.Generator) -> None:
        """Nothing to draw."""

    def forward(self, frame_features: Tensor, mixing: Tensor | None = None, gate: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [1, B, T, D]"""
        return frame_features[None]


class TemporalBlock(nn.Module):
    """Pre-norm block over the frames of a clip; its FFN is an MLP or a mixture of experts."""

    def __init__(self, width: int, heads: int, num_experts: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = ExpertFFN(width, num_experts) if num_experts > 0 else MLP(width, "quick_gelu")
        self.ln_2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mixing: Tensor | None) -> Tensor:
        """[R or 1, B, T, D], mixing [R, E] -> [R, B, T, D]"""
        x = x + self.attn(self.ln_1(x))
        normalised = self.ln_2(x)
        return x + (self.mlp(normalised) if mixing is None else self.mlp(normalised, mixing))


class TemporalTransformer(nn.Module):
    """Transformer over frames with an outer residual (paper, section 3.1).

    Routes (see ``modules.heads.experts``) share attention, norms and positions. They also share their input until
    the first mixture: the leading route dimension starts at 1 and broadcasts there, so the first attention
    runs once for all routes.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        num_experts: int,
        num_train_classes: int,
        merge_temperatures: tuple[float, ...] = MERGE_TEMPERATURES,
        with_merged: bool = True,
    ):
        super().__init__()
        self.num_experts = num_experts
        self.merge_temperatures = merge_temperatures
        self.with_merged = with_merged
        self.frame_position_embeddings = nn.Embedding(MAX_FRAMES, width)
        self.transformer = nn.Module()  # only gives the blocks their released names
        self.transformer.resblocks = nn.ModuleList(TemporalBlock(width, heads, num_experts) for _ in range(layers))
        # Class features of the training classes, under its released name; modulation compares with them.
        self.register_buffer("spe_cls_feature", torch.zeros(num_train_classes, width))
        self.apply(_init_weights)

    def draw_mixing(self, generator: torch.Generator) -> Tensor | None:
        """Routes of one training step, [layers, R, E] on the CPU; None for the plain FFN."""
        if self.num_experts <= 0:
            return None
        layers = len(self.transformer.resblocks)
        return draw_mixing(layers, self.num_experts, self.merge_temperatures, generator, self.with_merged)

    def forward(self, frame_features: Tensor, mixing: Tensor | None = None, gate: Tensor | None = None) -> Tensor:
        """Mix frame features over time.

        Args:
            frame_features: [B, T, D], T at most 77.
            mixing: experts of each layer and route, [layers, R, E]; None: one route, the evaluation merge.
            gate: weight of the temporal branch per clip, [B]; None: 1.

        Returns:
            [R, B, T, D], ``gate * h + frame_features``.
        """
        x = frame_features + self.frame_position_embeddings.weight[: frame_features.shape[1]]
        x = x[None]  # [1, B, T, D]
        for layer, block in enumerate(self.transformer.resblocks):
            x = block(x, None if mixing is None else mixing[layer])
        if gate is not None:
            x = x * gate[:, None, None]
        return x + frame_features


def _init_weights(module: nn.Module) -> None:
    """N(0, 0.02) and zero biases as released; attention's in_proj keeps its Xavier initialisation."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def modulation_gate(
    frame_features: Tensor,
    class_features: Tensor,
    train_class_features: Tensor,
    num_classes: int = 5,
    temperature: float = 0.05,
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


def _most_similar(query: Tensor, features: Tensor, count: int) -> Tensor:
    """The ``count`` rows of features [K, D] most similar to each query [B, D] -> [B, count, D]."""
    top = (query @ features.T).topk(min(count, features.shape[0]), dim=-1).indices
    return features[top]
