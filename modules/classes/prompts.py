"""Classes whose sentences are learned (CoOp, Zhou et al. 2022): vectors in the place of the words around a name."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.towers import Towers
from modules.classes.base import encode_distinct
from modules.classes.templates import CHUNK, tokenize_filled
from modules.classes.vectors import KEY

CONTEXT_STD = 0.02
POSITIONS = ("end", "middle", "front")  # where the name stands among the context vectors


class LearnedPrompts(nn.Module):
    """Sentences of context vectors that train, a class name and a full stop.

    ``end``: start, context, name and rest; ``middle``: start, first half of the context, name, second half, rest;
    ``front``: start, name, context, rest. The rest is the full stop and the end token, where CLIP reads its embedding.

    Args:
        towers: a CLIP with its text tower, whose tokens and width count; ``encode`` needs that tower in every step.
        num_context: context vectors.
        position: one of ``POSITIONS``.
        per_class: each class has its own vectors.
        seed: the vectors start at N(0, 0.02).

    Raises:
        ValueError: a name does not fit beside the context, see ``tokenize_filled``; the text tower is not CLIP's.
    """

    needs_text = True
    fingerprint = ""

    def __init__(
        self,
        towers: Towers,
        class_names: list[str],
        num_context: int = 4,
        position: str = "end",
        per_class: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        if not hasattr(towers, "encode_embedded"):
            raise ValueError(f"{KEY}: learned prompts need CLIP's text tower, this one does not take embedded tokens")
        if position not in POSITIONS or num_context < 1:
            raise ValueError(
                f"{KEY}: learned prompts have at least 1 context vector and the name at one of {', '.join(POSITIONS)}, "
                f"found {num_context} and {position!r}"
            )
        # A word of one token holds the place of each context vector.
        filled = tokenize_filled(towers, class_names, ("X " * num_context + "{}.", "{}"))
        name_lengths = filled[:, 1].argmax(dim=-1) - 1  # without the start token
        device = towers.logit_scale.device
        # No buffers: where only shapes are computed (engine.flops) these are values all the same.
        self.tokens = filled[:, 0].to(device)  # int64 [K, L]
        self.order = _orders(name_lengths.tolist(), self.tokens.shape[1], num_context, position).to(device)
        shape = (len(class_names), num_context) if per_class else (num_context,)
        generator = torch.Generator().manual_seed(seed)
        self.ctx = nn.Parameter(CONTEXT_STD * torch.randn(*shape, towers.spec.text_width, generator=generator))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, towers: Any, labels: Tensor | None = None) -> Tensor:
        """See ``Classes``; a part of the graph."""
        if labels is not None:
            return encode_distinct(lambda some: self._encode(towers, some), labels, len(self))
        chunk = len(self) if torch.is_grad_enabled() else CHUNK
        return torch.cat([self._encode(towers, some) for some in torch.arange(len(self)).split(chunk)])

    def load_context(self, context: Tensor | None) -> None:
        """Take the vectors that a checkpoint has: [n, W], or [K, n, W] where classes have their own.

        Raises:
            ValueError: there are none, or of another shape.
        """
        if context is None or context.shape != self.ctx.shape:
            found = "none" if context is None else list(context.shape)
            raise ValueError(f"{KEY}: expected context vectors {list(self.ctx.shape)} in the checkpoint, found {found}")
        with torch.no_grad():
            self.ctx.copy_(context)

    def _encode(self, towers: Any, labels: Tensor) -> Tensor:
        """int64 [n] -> unit [n, D]"""
        device, labels = towers.logit_scale.device, labels.to(self.tokens.device)
        tokens, num_context = self.tokens[labels], self.ctx.shape[-2]
        ends = tokens.argmax(dim=-1)
        length = int(ends.max()) + 1  # no position after the last end token is computed, see CLIP.encode_text
        words = towers.token_embedding(tokens[:, :length].to(device))  # [n, L, W]
        context = self.ctx[labels.to(device)] if self.ctx.ndim == 3 else self.ctx.expand(len(tokens), -1, -1)
        sentences = torch.cat([words[:, :1], context.to(words.dtype), words[:, 1 + num_context :]], dim=1)
        order = self.order[labels, :length].to(device)
        sentences = sentences.gather(1, order[..., None].expand_as(sentences))
        return F.normalize(towers.encode_embedded(sentences, ends.to(device)).float(), dim=-1)


def _orders(name_lengths: list[int], length: int, num_context: int, position: str) -> Tensor:
    """Which place of start, context, name, rest is read at each place: int64 [K, L]."""
    before = {"end": num_context, "middle": num_context // 2, "front": 0}[position]  # context before the name
    orders = []
    for name_length in name_lengths:
        name = torch.arange(1 + num_context, 1 + num_context + name_length)
        context = torch.arange(1, 1 + num_context)
        rest = torch.arange(1 + num_context + name_length, length)
        orders.append(torch.cat([torch.zeros(1, dtype=torch.long), context[:before], name, context[before:], rest]))
    return torch.stack(orders)
