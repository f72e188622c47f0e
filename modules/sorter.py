"""The head that puts the transcripts of a video in order, which TVTSv2 trains beside its towers and then drops.

Tensors have the names of the released program, where they stand behind ``pred_model.``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # of its layer norms; those of CLIP have 1e-5
ALIKE_GAIN = 2.0  # of random queries and keys, in ``start_alike``: found on the demo's stories


class SorterAttention(nn.Module):
    """Self-attention of a block, fused."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, num_read: int) -> Tensor:
        """[B, L, D] -> [B, num_read, D]: what the last ``num_read`` tokens get to see of all."""
        width = x.shape[-1]
        asking = F.linear(x[:, -num_read:], self.qkv.weight[:width], self.qkv.bias[:width])
        answering = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:])
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (asking, *answering.chunk(2, dim=-1))
        )
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class SorterMLP(nn.Module):
    """Feed-forward layer of a block, four times as wide within, with the exact GELU."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return self.fc2(F.gelu(self.fc1(x)))


class SorterBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attn = SorterAttention(width, heads)
        self.mlp = SorterMLP(width)

    def forward(self, x: Tensor, num_read: int) -> Tensor:
        """[B, L, D] -> [B, num_read, D], the last ``num_read`` tokens."""
        x = x[:, -num_read:] + self.attn(self.norm1(x), num_read)
        return x + self.mlp(self.norm2(x))


class Sorter(nn.Module):
    """A transformer over the tokens of a clip and the vectors of its transcripts that gives each transcript a place.

    Transcripts carry no position, so their order at the input does not matter: logits are permuted with them.
    """

    def __init__(self, width: int, places: int, layers: int = 2, heads: int = 8, starts_alike: bool = False):
        super().__init__()
        if width % heads:
            raise ValueError(f"tvtsv2.sorter_heads: {heads} heads do not share the embeddings' width of {width}")
        self.type_embed = nn.Parameter(torch.zeros(1, 2, width))  # of the clip's tokens and of transcripts
        self.blocks = nn.ModuleList(SorterBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, places)
        if starts_alike:
            self._start_alike()

    @torch.no_grad()
    def _start_alike(self) -> None:
        """Let every token begin by looking at those that are like it: keys are made as queries are.

        Texts and what they are about are alike in the space of a CLIP. With random keys and queries the sorter has to
        find that out before it can read at what time something is seen.
        """
        for block in self.blocks:
            query, key, _ = block.attn.qkv.weight.chunk(3)
            query.mul_(ALIKE_GAIN)
            key.copy_(query)

    def forward(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """Transcripts [B, K, D] and a clip's tokens [B, L, D] -> logits of the places [B, K, places]."""
        num_texts = texts.shape[1]
        of_clip, of_text = self.type_embed.unbind(dim=1)
        x = torch.cat([tokens + of_clip[:, None], texts + of_text[:, None]], dim=1)
        for block in self.blocks[:-1]:
            x = block(x, x.shape[1])
        x = self.blocks[-1](x, num_texts)  # of which only the transcripts are read
        return self.head(self.norm(x))
