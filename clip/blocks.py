"""Transformer blocks under OpenAI's parameter names, with fused attention."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

QUICK_GELU = 1.702
SHORT_SEQUENCE = 512  # tokens; up to here a layer's attention weights are no larger than its hidden layer


LAYERS = ("mm", "addmm")  # products with weights, among the names of torch's operations
BATCHED = ("bmm", "baddbmm")  # products within attention, and of experts
CONVOLUTION = "convolution"  # the name of all of them
SHALLOW = 16  # a product of fewer terms is no work, such as a mixture of the weights of a few experts
ATTENTION = "_scaled_dot_product"  # what the names of fused attention's operations begin with
NONE, LIGHT, MEDIUM, FULL = "none", "light", "medium", "full"


def _keeping_products(
    compute: Callable[..., Tensor], *inputs: Any, wider_than: int, keeps_last: bool = False
) -> Tensor:
    contexts = partial(create_selective_checkpoint_contexts, partial(_policy, wider_than, keeps_last))
    return checkpoint(compute, *inputs, use_reentrant=False, context_fn=contexts)


def _policy(
    wider_than: int, keeps_last: bool, context: Any, operation: Any, *inputs: Any, **options: Any
) -> CheckpointPolicy:
    """Keep what attention and convolutions give, and layers that are more than ``wider_than`` times as wide as deep.

    A block's last layer, D of 4D, is kept only with ``keeps_last``; else nothing of the block is computed from it.
    """
    name = str(operation).split(".")[1]  # of aten.mm.default
    is_kept = name.startswith(ATTENTION) or name == CONVOLUTION
    if name in (*LAYERS, *BATCHED):
        depth, width = inputs[-1].shape[-2:]
        is_last = name in LAYERS and depth >= 2 * width
        is_wanted = name in BATCHED or width > wider_than * depth or (keeps_last and is_last)
        is_kept = depth >= SHALLOW and is_wanted
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE


# Values of network.recompute: what of a block is computed again in the backward pass, not kept for it.
RECOMPUTE: dict[str, Callable[..., Tensor]] = {
    NONE: lambda compute, *inputs: compute(*inputs),
    # Norms, activations, casts, residual sums, and attention's output layer, D of D: a 12th of the products forward.
    LIGHT: partial(_keeping_products, wider_than=1),
    # Queries, keys and values, too, 3D of D: a third of the products in all.
    MEDIUM: partial(_keeping_products, wider_than=3),
    FULL: partial(checkpoint, use_reentrant=False),
}


def recomputable(forward: Callable[..., Tensor], keeps_last: bool = False) -> Callable[..., Tensor]:
    """Of a block's ``forward``: in training it runs as the block's ``recompute`` says, a name of ``RECOMPUTE``.

    The block does so itself, not what calls it, so that compiling and sharding a block cover the second pass as well.

    Args:
        keeps_last: ``light`` and ``medium`` keep the block's last product, too, since something is computed from it:
            a scale that learns, or a norm. Without it this product is either not needed or computed again.
    """
    ways = RECOMPUTE | {name: partial(RECOMPUTE[name], keeps_last=keeps_last) for name in (LIGHT, MEDIUM)}

    @wraps(forward)
    def run(self: nn.Module, *inputs: Any, **options: Any) -> Tensor:
        compute = partial(forward, self, **options)
        return ways[self.recompute if self.training else NONE](compute, *inputs)

    return run


def set_recompute(model: nn.Module, name: str) -> int:
    """Have the blocks of a model run as a name of ``RECOMPUTE`` says; returns how many there are."""
    blocks = [module for module in model.modules() if hasattr(module, "recompute")]
    for block in blocks:
        block.recompute = name
    return len(blocks)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), OpenAI's GELU; through SiLU, which keeps one tensor for backward, not three."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(QUICK_GELU * x) / QUICK_GELU


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class LayerNorm(nn.LayerNorm):
    """Of tokens in half precision it makes such; their mean and variance are fp32 all the same."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):  # on a GPU it would give fp32
            return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


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

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False, seen: Tensor | None = None
    ) -> Tensor:
        """Each [N, L, heads, head_dim] -> [N, L, D]; ``seen``, bool [L, L]: which keys a query sees, None: all."""
        dropout = self.dropout if self.training else 0.0
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        if not dropout and not is_causal and _is_slow_in_fused_backward(query, key):
            scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
            scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
            mixed = scores.softmax(dim=-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, seen, dropout, is_causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _is_slow_in_fused_backward(query: Tensor, key: Tensor) -> bool:
    """Whether plain operations train faster than the fused kernel: bf16 on a CPU, for images and clips.

    Measured: 34 against 75 ms forward and backward for 16 images of 197 tokens. Tests keep the fused kernel, which
    also keeps scores in fp32; many queries of long sequences keep it for its memory.
    """
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.requires_grad
        and query.shape[-2] * key.shape[-2] <= SHORT_SEQUENCE**2
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
        keep = x.new_empty(*x.shape[:-2], 1, 1).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block; ``control_point`` stands in front of both its layers (see ``clip.shift``)."""

    recompute = NONE

    def __init__(self, width: int, heads: int, activation: str, drop_path: float, mlp: int | None = None):
        super().__init__()
        self.attn = Attention(width, heads, dropout=drop_path)
        self.ln_1 = LayerNorm(width)
        self.mlp = MLP(width, activation, mlp)
        self.ln_2 = LayerNorm(width)
        self.drop_path = DropPath(drop_path)
        self.control_point = nn.Identity()

    @recomputable
    def forward(self, x: Tensor, is_causal: bool = False, only_first: bool = False) -> Tensor:
        """[..., L, D] -> [..., L, D], or [..., 1, D] where only the first token is read afterwards."""
        x = self.control_point(x)
        normalised = self.ln_1(x)
        mixed = self.attn.first(normalised) if only_first else self.attn(normalised, is_causal)
        x = (x[..., :1, :] if only_first else x) + self.drop_path(mixed)
        x = self.control_point(x)
        return x + self.drop_path(self.mlp(self.ln_2(x)))


def _is_autocast_to_bf16(x: Tensor) -> bool:
    device = x.device.type
    return not x.is_meta and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16


class Transformer(nn.Module):
    """A stack of blocks."""

    block: type[ResidualAttentionBlock] = ResidualAttentionBlock
    has_bf16_stream = False  # see network.residual

    def __init__(
        self, width: int, layers: int, heads: int, activation: str, drop_path: float = 0.0, mlp: int | None = None
    ):
        super().__init__()
        rates = [drop_path * layer / max(layers - 1, 1) for layer in range(layers)]
        self.resblocks = nn.ModuleList(self.block(width, heads, activation, r, mlp) for r in rates)
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
        """[..., L, D] -> [..., L, D]; with ``only_first`` [..., 1, D]: the last block computes what is read alone."""
        return self._through_blocks(x, is_causal, only_first)

    def _through_blocks(self, x: Tensor, how: int, only_first: bool) -> Tensor:
        """``how``: what a block takes as its second argument."""
        if self.has_bf16_stream and _is_autocast_to_bf16(x):
            x = x.bfloat16()
        for block in self.resblocks:
            x = block(x, how, only_first and block is self.resblocks[-1])
        return x
