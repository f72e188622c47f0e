"""What an image-text model offers, so that any of them can become a video model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TowerSpec:
    """What pictures and texts must be like for a pair of towers; caches, checkpoints and exports record it."""

    image_size: int  # pixels along an edge
    embed_dim: int  # D
    text_width: int  # of the text tower; released heads have one attention head for each 64 of it
    context_length: int  # tokens of a text
    # The tower's own rules, which a preset may overrule (``Towers.set_spec``):
    pixel_mean: tuple[float, float, float]  # of RGB, 0 to 1
    pixel_std: tuple[float, float, float]
    interpolation: str  # of a picture that is resized
    resize: str = "shortest"  # side that gets the size, the rest is cut off; ``squash``: both, whatever the shape was


STATISTICS = ("pixel_mean", "pixel_std")  # fields of ``TowerSpec`` and, times 255, buffers of ``Towers``


class Tokens(NamedTuple):
    """Clips as a space-time tower sees them, projected to the common space, not L2-normalised."""

    cls: Tensor  # [B, D], of the clip
    tokens: Tensor | None  # [B, L, D], its parts; None where nobody asked for them


class Towers(nn.Module):
    """An image tower and a text tower with one space of embeddings.

    A subclass has the parameter ``logit_scale`` (a logarithm) and the methods that raise here.
    """

    fixed_frames = 0  # T, where the image tower takes clips of one length only
    graph_frames = 0  # T of an exported graph, where it cannot take clips of any length
    joins_frames = False  # a clip is one vector, since its frames see each other in the image tower
    facts: Mapping[str, Any] = {}  # by name: what features depend on that neither weights nor ``spec`` tell
    additions: tuple[str, ...] = ()  # names of tensors that the pretrained weights do not have
    full_rate: tuple[str, ...] = ()  # names of parameters that learn at the head's rate, not at the towers' share of it
    # Class features lie as close together as those of OpenAI's CLIP, which constants of papers were chosen for.
    has_narrow_cone = True

    def __init__(self, spec: TowerSpec):
        super().__init__()
        self.set_spec(spec)

    def set_spec(self, spec: TowerSpec) -> None:
        """Take other rules of pictures, those of a preset for example; on the CPU."""
        self.spec = spec
        for name in STATISTICS:
            values = 255 * torch.tensor(getattr(self.spec, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def image_tower(self) -> nn.Module:
        """The part that sees pictures."""
        raise NotImplementedError

    def checkpoint_activations(self, is_on: bool) -> None:
        """Recompute the image tower's activations in the backward pass: less memory, more time."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The blocks that repeat, which hold nearly all parameters: what is compiled and sharded one by one."""
        return [block for module in self.modules() for block in getattr(module, "resblocks", ())]

    def encode_clips(self, clips: Tensor, lengths: Tensor | None = None) -> Tensor:
        """uint8 [B, T, 3, S, S] -> frame features [B, T', D], not normalised; T' = 1 where a clip has one vector.

        Args:
            lengths: int64 [B], frames of each clip that are real; those behind become zeros, the mean colour.
        """
        return self.encode_frames(self.normalised(clips, lengths), clips.shape[1]).unflatten(0, (clips.shape[0], -1))

    def normalised(self, clips: Tensor, lengths: Tensor | None = None) -> Tensor:
        """uint8 [B, T, 3, S, S] -> what the image tower sees, [B*T, 3, S, S]; ``lengths`` as of ``encode_clips``."""
        images = (clips.flatten(0, 1).to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        if lengths is None:
            return images
        return images.masked_fill(_is_padding(clips, lengths).view(-1, 1, 1, 1), 0.0)

    def filled(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Clips [B, T, 3, S, S] with the mean colour in their padding, which is zero once normalised; as floats."""
        return torch.where(_is_padding(clips, lengths)[..., None, None, None], self.pixel_mean, clips)

    def encode_tokens(
        self, clips: Tensor, keep: Tensor | None = None, lengths: Tensor | None = None, with_tokens: bool = True
    ) -> Tokens:
        """uint8 [B, T, 3, S, S] -> an embedding a clip and its parts, of towers that have such.

        Args:
            keep: int64 [B, n], the patches that are seen, the same in all frames of a clip; None: all.
            lengths: as of ``encode_clips``.
            with_tokens: whether the parts are wanted, too.

        Raises:
            ValueError: the towers have none, or ``keep`` does not fit.
        """
        raise ValueError("network.tower: expected divided, for the parts of a clip; this tower sees single frames")

    def encode_frames(self, images: Tensor, num_frames: int) -> Tensor:
        """Normalised images [B*T, 3, S, S], the T frames of each clip in order -> embeddings, not L2-normalised.

        Towers in which the frames of a clip see each other have their own; elsewhere frames are pictures.
        """
        return self.encode_image(images)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, S, S] -> embeddings, not L2-normalised."""
        raise NotImplementedError

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Tokens [N, L] of ``tokenize`` -> embeddings [N, D], not L2-normalised."""
        raise NotImplementedError

    def tokenize(self, texts: list[str], truncate: bool = False) -> Tensor:
        """Token ids of texts, int64 [N, L].

        Args:
            truncate: cut what is too long, as captions and transcripts are; the last token stays the end token.

        Raises:
            ValueError: a text is too long for the text tower, or has tokens that it does not know.
        """
        raise NotImplementedError

    def parameters_at(self, full_rate: bool) -> list[nn.Parameter]:
        """Those that learn at the head's rate, or those that learn at the towers' share of it, in their order."""
        return [value for name, value in self.named_parameters() if (name in self.full_rate) == full_rate]

    def statistics(self) -> list[Tensor]:
        """Buffers that forward passes change in training, on each process by its own batch (those of BatchNorm)."""
        return []

    def freeze_text(self) -> None:
        """The text tower does not train, but is needed in each step: for prompts that are learned."""
        raise NotImplementedError

    def drop_text(self) -> None:
        """Forget the text tower: with classes encoded once, a video model only sees images."""
        raise NotImplementedError

    def text_reader(self) -> Callable[..., Tensor]:
        """``tokenize`` for processes without the weights, such as those of data loaders; by default with them."""
        return self.tokenize

    def text_part(self) -> "Towers":
        """Towers without the image tower that share the text tower, and keep it when these drop theirs."""
        raise NotImplementedError


def _is_padding(clips: Tensor, lengths: Tensor) -> Tensor:
    """Which frames of clips [B, T, ...] are none: bool [B, T]."""
    return torch.arange(clips.shape[1], device=clips.device) >= lengths[:, None]
