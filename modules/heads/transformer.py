"""A transformer over the frames of a clip, the head that MoTE, BIKE and Text4Vis share."""

from collections.abc import Callable

from torch import Tensor, nn

from clip.blocks import MLP, NONE, Attention, recomputable

MAX_FRAMES = 77  # rows of the released position table
HEAD_WIDTH = 64  # the released heads have text width / 64 attention heads


class TemporalBlock(nn.Module):
    """Pre-norm block over the frames of a clip."""

    recompute = NONE

    def __init__(self, width: int, heads: int, ffn: Callable[[], nn.Module]):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = ffn()
        self.ln_2 = nn.LayerNorm(width, eps=1e-12)

    @recomputable
    def forward(self, x: Tensor, *ffn_inputs: Tensor) -> Tensor:
        """[..., B, T, D] -> [..., B, T, D]; the feed-forward layer gets ``ffn_inputs``, too."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x), *ffn_inputs)


class TemporalTransformer(nn.Module):
    """Transformer over frames with an outer residual (MoTE, section 3.1).

    Args:
        ffn: makes the feed-forward layer of a block; None: CLIP's.
    """

    def __init__(self, width: int, layers: int, heads: int, ffn: Callable[[], nn.Module] | None = None):
        super().__init__()
        ffn = ffn or (lambda: MLP(width, "quick_gelu"))
        self.frame_position_embeddings = nn.Embedding(MAX_FRAMES, width)
        self.transformer = nn.Module()  # only gives the blocks their released names
        self.transformer.resblocks = nn.ModuleList(TemporalBlock(width, heads, ffn) for _ in range(layers))
        self.apply(_init_weights)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D], T at most 77."""
        x = frames + self.positions(frames)
        for block in self.transformer.resblocks:
            x = block(x)
        return x + frames

    def positions(self, frames: Tensor) -> Tensor:
        """Position embeddings [T, D] for the frames [B, T, D]."""
        return self.frame_position_embeddings.weight[: frames.shape[1]]


def _init_weights(module: nn.Module) -> None:
    """N(0, 0.02) and zero biases as released; attention's in_proj keeps its Xavier initialisation."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
