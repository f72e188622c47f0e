"""CLIP's two transformers, with OpenAI's parameter names and fused attention.

The names (``visual.conv1.weight``, ``transformer.resblocks.0.attn.in_proj_weight``, ...) are those of the
released archives and of open_clip, so any of their state dicts loads without translation.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip.tokenizer import tokenize
from clip.towers import Towers, TowerSpec


@dataclass(frozen=True)
class CLIPConfig:
    """Shapes of both towers, and the training options of the video task.

    ``joint_frames`` > 0 lets the vision tower attend over the patches of that many frames at once
    (published option ``joint_st``). ``drop_path`` is the rate of the last block (published ``drop_out``:
    stochastic depth, rising linearly over the blocks, the same rate on attention weights).
    """

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    vision_mlp: int | None = None  # hidden width of the image tower's FFNs, None: 4 times its width
    context_length: int = 77
    vocab_size: int = 49408
    activation: str = "quick_gelu"
    drop_path: float = 0.0
    emb_dropout: float = 0.0
    joint_frames: int = 0


# Of OpenAI's pictures; LAION's models keep them.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
QUICK_GELU = 1.702
SHORT_SEQUENCE = 512  # tokens; up to here a layer's attention weights are no larger than its hidden layer


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), OpenAI's GELU; through SiLU, which keeps one tensor for backward, not three."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(QUICK_GELU * x) / QUICK_GELU


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class Attention(nn.Module):
    """Multi-head self-attention under nn.MultiheadAttention's parameter names; fused, where that is the fastest."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        """[..., L, D] -> [..., L, D]; attention runs over L, all leading dimensions are batch."""
        query, key, value = self._project(x, slice(None)).unbind(2)
        return self._attend(query, key, value, is_causal).reshape(x.shape)

    def first(self, x: Tensor) -> Tensor:
        """[..., L, D] -> [..., 1, D]: what the first token alone gets to see, without the work for the others."""
        width = x.shape[-1]
        (query,) = self._project(x[..., :1, :], slice(width)).unbind(2)
        key, value = self._project(x, slice(width, None)).unbind(2)
        return self._attend(query, key, value).reshape(*x.shape[:-2], 1, width)

    def _project(self, x: Tensor, rows: slice) -> Tensor:
        """[..., L, D] -> [N, L, parts, heads, head_dim]; ``rows`` of the joint projection hold the parts asked for."""
        parts = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return parts.reshape(-1, x.shape[-2], parts.shape[-1] // x.shape[-1], self.heads, x.shape[-1] // self.heads)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Tensor:
        """Each [N, L, heads, head_dim] -> [N, L, D]"""
        dropout = self.dropout if self.training else 0.0
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        if not dropout and not is_causal and _is_slow_in_fused_backward(query, key):
            mixed = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(dim=-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=is_causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _is_slow_in_fused_backward(query: Tensor, key: Tensor) -> bool:
    """Whether three plain operations train faster than the fused kernel: bf16 on a CPU, for images and clips.

    Measured: 34 against 75 ms forward and backward for 16 images of 197 tokens. Tests keep the fused kernel, which
    also keeps scores in fp32; long sequences keep it for its memory.
    """
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.requires_grad
        and key.shape[-2] <= SHORT_SEQUENCE
    )


class MLP(nn.Module):
    """The transformer's feed-forward layer: D -> hidden (4D) -> D."""

    def __init__(self, width: int, activation: str, hidden: int | None = None):
        super().__init__()
        self.c_fc = nn.Linear(width, hidden or 4 * width)
        self.act = ACTIVATIONS[activation]()
        self.c_proj = nn.Linear(hidden or 4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        # A compiler fuses the activation itself, and must not be told apart sizes.
        is_folded = isinstance(self.act, QuickGELU) and not torch.compiler.is_compiling()
        if not is_folded or x.shape[:-1].numel() < x.shape[-1]:
            return self.c_proj(self.act(self.c_fc(x)))
        # The factors of QuickGELU scale the weights, which are smaller than the hidden layer: two passes less over it.
        up, down = self.c_fc, self.c_proj
        hidden = F.silu(F.linear(x, QUICK_GELU * up.weight, QUICK_GELU * up.bias))
        return F.linear(hidden, down.weight / QUICK_GELU, down.bias)


class DropPath(nn.Module):
    """Stochastic depth: drop the whole residual branch of a sample with the given rate, in training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, activation: str, drop_path: float, mlp: int | None = None):
        super().__init__()
        self.attn = Attention(width, heads, dropout=drop_path)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MLP(width, activation, mlp)
        self.ln_2 = nn.LayerNorm(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, is_causal: bool = False, only_first: bool = False) -> Tensor:
        """[N, L, D] -> [N, L, D], or [N, 1, D] where only the first token is read afterwards."""
        normalised = self.ln_1(x)
        mixed = self.attn.first(normalised) if only_first else self.attn(normalised, is_causal)
        x = (x[:, :1] if only_first else x) + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    """A stack of blocks; ``grad_checkpointing`` trades one more forward pass for activation memory."""

    def __init__(
        self, width: int, layers: int, heads: int, activation: str, drop_path: float = 0.0, mlp: int | None = None
    ):
        super().__init__()
        rates = [drop_path * layer / max(layers - 1, 1) for layer in range(layers)]
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads, activation, r, mlp) for r in rates)
        self.grad_checkpointing = False
        self._init_weights(width, layers)

    def _init_weights(self, width: int, layers: int) -> None:
        # CLIP's own scheme: residual outputs shrink with depth.
        output_std = width**-0.5 * (2 * layers) ** -0.5
        for block in self.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=output_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=output_std)

    def forward(self, x: Tensor, is_causal: bool = False, only_first: bool = False) -> Tensor:
        """[N, L, D] -> [N, L, D]; with ``only_first`` [N, 1, D]: the last block computes no token that nobody reads."""
        for block in self.resblocks:
            is_cut = only_first and block is self.resblocks[-1]
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, is_causal, is_cut, use_reentrant=False)
            else:
                x = block(x, is_causal, is_cut)
        return x


class VisionTransformer(nn.Module):
    """ViT whose class token, normalised and projected, is the image embedding."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        num_patches = (config.image_size // patch) ** 2
        scale = width**-0.5
        self.joint_frames = config.joint_frames
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + num_patches, width))
        if self.joint_frames:
            self.time_embedding = nn.Parameter(scale * torch.randn(self.joint_frames, width))
        self.dropout = nn.Dropout(config.emb_dropout)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.vision_layers, config.vision_heads, config.activation, config.drop_path, config.vision_mlp
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, S, S] -> embeddings [N, D], not L2-normalised.

        With ``joint_frames`` = T the N images are N / T clips in frame order and the result is [N / T, D].
        """
        position = self.positional_embedding
        patches = self.conv1(images).flatten(2).transpose(1, 2) + position[1:]  # [N, L, W]
        if self.joint_frames:
            patches = patches.unflatten(0, (-1, self.joint_frames)) + self.time_embedding[:, None]
            patches = patches.flatten(1, 2)  # [N/T, T*L, W]
        class_token = (self.class_embedding + position[0]).to(patches.dtype)
        x = torch.cat([class_token.expand(patches.shape[0], 1, -1), patches], dim=1)
        x = self.transformer(self.ln_pre(self.dropout(x)), only_first=True)
        return self.ln_post(x[:, 0]) @ self.proj


class CLIP(Towers):
    """Image tower, text tower and the trained temperature ``logit_scale`` (a logarithm)."""

    additions = ("visual.time_embedding",)

    def __init__(self, config: CLIPConfig):
        facts = (config.image_size, config.embed_dim, config.text_width, config.context_length)
        super().__init__(TowerSpec(*facts, PIXEL_MEAN, PIXEL_STD, interpolation="bicubic"))
        self.fixed_frames = config.joint_frames
        self.config, self.facts = config, {"activation": config.activation}
        self.visual = VisionTransformer(config)
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads, config.activation, config.drop_path
        )
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length, config.text_width))
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(config.text_width**-0.5 * torch.randn(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @property
    def image_tower(self) -> VisionTransformer:
        """See ``Towers``."""
        return self.visual

    def checkpoint_activations(self, is_on: bool) -> None:
        """See ``Towers``."""
        self.visual.transformer.grad_checkpointing = is_on

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, S, S] -> embeddings [N, D], not L2-normalised."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [N, 77] -> embeddings [N, D], not L2-normalised.

        Positions after the longest text of the batch are not computed: the mask is causal, so they
        cannot reach the end token (the highest id), where the embedding is read.
        """
        ends = tokens.argmax(dim=-1)
        length = int(ends.max()) + 1
        x = self.token_embedding(tokens[:, :length]) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, is_causal=True))
        return x[torch.arange(len(x), device=x.device), ends] @ self.text_projection

    def tokenize(self, texts: list[str]) -> Tensor:
        """See ``clip.tokenizer.tokenize``: int64 [N, 77].

        Raises:
            ValueError: a text is too long; or a text tower of another vocabulary does not know all tokens, or reads
                shorter texts.
        """
        tokens = tokenize(texts)
        longest, highest = int(tokens.argmax(dim=-1).max()) + 1, int(tokens.max())
        if highest >= self.config.vocab_size or longest > self.config.context_length:
            raise ValueError(
                f"network.arch: its text tower reads {self.config.context_length} of {self.config.vocab_size} tokens, "
                f"the class names need {longest} of {highest + 1}"
            )
        return tokens

    def drop_text(self) -> None:
        """See ``Towers``."""
        for name in ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection"):
            delattr(self, name)

    def text_part(self) -> "CLIP":
        """See ``Towers``; in eval mode."""
        with torch.device("meta"):
            tower = CLIP(self.config)
        del tower.visual
        state = self.state_dict(keep_vars=True)
        tower.load_state_dict({name: state[name] for name in tower.state_dict()}, assign=True)
        return tower.eval()
