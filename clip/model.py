"""CLIP's towers, with OpenAI's parameter names.

The names (``visual.conv1.weight``, ``transformer.resblocks.0.attn.in_proj_weight``, ...) are those of the
released archives and of open_clip, so any of their state dicts loads without translation.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from clip.blocks import FULL, NONE, Transformer, set_recompute
from clip.resnet import ModifiedResNet, ResNetConfig
from clip.shapes import DIVIDED, FRAMES, CLIPConfig
from clip.shift import ADDED, VIT_MODULES, check_time_module
from clip.spacetime import ADDED as ADDED_OVER_TIME
from clip.spacetime import SpaceTimeViT
from clip.tokenizer import CONTEXT_LENGTH, tokenize
from clip.towers import Tokens, Towers, TowerSpec

# Of OpenAI's pictures; LAION's models keep them.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class VisionTransformer(nn.Module):
    """ViT whose class token, normalised and projected, is the image embedding."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        check_time_module(config.time_module, VIT_MODULES, "ViT")
        if config.time_module and config.joint_frames:
            raise ValueError("network.tm and network.joint_st: expected one of them, found both")
        width, patch = config.vision_width, config.patch_size
        num_patches = (config.image_size // patch) ** 2
        scale = width**-0.5
        self.joint_frames, self.time_module = config.joint_frames, config.time_module
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
        if self.time_module:
            blocks = self.transformer.resblocks
            self.transformer.resblocks = nn.ModuleList(VIT_MODULES[self.time_module](each, width) for each in blocks)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))

    def forward(self, images: Tensor, num_frames: int = 1) -> Tensor:
        """Normalised images [B*T, 3, S, S], T of each clip in order -> embeddings [B*T, D], not L2-normalised.

        With ``joint_frames`` = T the result is [B, D].
        """
        position = self.positional_embedding
        patches = self.conv1(images).flatten(2).transpose(1, 2) + position[1:]  # [N, L, W]
        if self.joint_frames:
            patches = patches.unflatten(0, (-1, self.joint_frames)) + self.time_embedding[:, None]
            patches = patches.flatten(1, 2)  # [N/T, T*L, W]
        class_token = (self.class_embedding + position[0]).to(patches.dtype)
        x = torch.cat([class_token.expand(patches.shape[0], 1, -1), patches], dim=1)
        x = self.ln_pre(self.dropout(x))
        if self.time_module:  # its blocks see frames as a dimension of their own
            x = x.unflatten(0, (-1, num_frames))  # [B, T, L, W]
        x = self.transformer(x, only_first=True)
        return self.ln_post(x[..., 0, :].flatten(0, -2)) @ self.proj


TEXT_TOWER = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")  # of CLIP


class CLIP(Towers):
    """Image tower, text tower and the trained temperature ``logit_scale`` (a logarithm)."""

    def __init__(self, config: CLIPConfig):
        facts = (config.image_size, config.embed_dim, config.text_width, config.context_length)
        super().__init__(TowerSpec(*facts, PIXEL_MEAN, PIXEL_STD, interpolation="bicubic"))
        is_divided = config.tower == DIVIDED
        self.fixed_frames, self.joins_frames = config.joint_frames, config.joint_frames > 0 or is_divided
        self.graph_frames = config.temporal_rows if is_divided else config.joint_frames
        self.config = config
        self.visual = (_resnet if config.resnet_layers else IMAGE_TOWERS[config.tower])(config)
        self.facts = {"activation": config.activation, "time_module": self.visual.time_module or "none"}
        if is_divided:
            self.facts["tower"] = config.tower
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads, config.activation, config.drop_path
        )
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length, config.text_width))
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(config.text_width**-0.5 * torch.randn(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.full_rate = tuple(name for name, _ in self.named_parameters() if ADDED in name)
        over_time = ["visual.time_embedding"] * bool(config.joint_frames)
        if is_divided:
            over_time = [name for name, _ in self.named_parameters() if any(part in name for part in ADDED_OVER_TIME)]
        self.additions = (*self.full_rate, *over_time)

    @property
    def image_tower(self) -> VisionTransformer | SpaceTimeViT | ModifiedResNet:
        """See ``Towers``."""
        return self.visual

    def checkpoint_activations(self, is_on: bool) -> None:
        """See ``Towers``.

        Raises:
            ValueError: of a ResNet, whose BatchNorms would count every batch twice.
        """
        if is_on and self.config.resnet_layers:
            raise ValueError("network.recompute full: the image tower is a CLIP ResNet, which has no such option")
        set_recompute(self.visual, FULL if is_on else NONE)

    def encode_frames(self, images: Tensor, num_frames: int) -> Tensor:
        """Normalised images [B*T, 3, S, S] -> embeddings [B*T, D]; [B, D] where clips are joined.

        Raises:
            ValueError: the images are no whole clips, or clips of another length than ``joint_frames``.
        """
        if self.fixed_frames and num_frames != self.fixed_frames:
            raise ValueError(f"network.joint_st: expected clips of {self.fixed_frames} frames, found {num_frames}")
        if images.shape[0] % num_frames:
            raise ValueError(f"expected clips of {num_frames} frames, found {images.shape[0]} frames in all")
        return self.visual(images, num_frames)

    def encode_tokens(
        self, clips: Tensor, keep: Tensor | None = None, lengths: Tensor | None = None, with_tokens: bool = True
    ) -> Tokens:
        """See ``Towers``: the class token and, of B/32 and B/16, it and all patches; of H/14 the patches alone."""
        if self.config.tower != DIVIDED:
            return super().encode_tokens(clips, keep, lengths, with_tokens)
        images = self.normalised(clips, lengths)
        if with_tokens:
            return self.visual.tokens(images, clips.shape[1], keep)
        return Tokens(self.visual(images, clips.shape[1], keep), None)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, S, S] -> embeddings [N, D], not L2-normalised.

        Each is a clip of one frame, whose channels that a temporal module shifts become zeros. With ``joint_frames``
        they are the frames of clips.
        """
        return self.encode_frames(images, self.fixed_frames or 1)

    def statistics(self) -> list[Tensor]:
        """See ``Towers``."""
        return self.visual.statistics() if self.config.resnet_layers else []

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [N, 77] -> embeddings [N, D], not L2-normalised.

        Positions after the longest text of the batch are not computed: the mask is causal, so they
        cannot reach the end token (the highest id), where the embedding is read.
        """
        ends = tokens.argmax(dim=-1)
        length = int(ends.max()) + 1
        return self.encode_embedded(self.token_embedding(tokens[:, :length]), ends)

    def encode_embedded(self, x: Tensor, ends: Tensor) -> Tensor:
        """Embedded tokens [N, L, W], without positions -> embeddings [N, D], read at ``ends``, int64 [N]."""
        x = self.ln_final(self.transformer(x + self.positional_embedding[: x.shape[1]], is_causal=True))
        return x[torch.arange(len(x), device=x.device), ends] @ self.text_projection

    def tokenize(self, texts: list[str], truncate: bool = False) -> Tensor:
        """See ``clip.tokenizer.tokenize``: int64 [N, L], L as the text tower reads them, at most 77.

        Raises:
            ValueError: a text is too long; or a text tower of another vocabulary does not know all tokens.
        """
        return self.text_reader()(texts, truncate)

    def text_reader(self) -> Callable[..., Tensor]:
        """See ``Towers``."""
        return partial(_tokenize, vocab_size=self.config.vocab_size, context_length=self.config.context_length)

    def freeze_text(self) -> None:
        """See ``Towers``."""
        for name in TEXT_TOWER:
            getattr(self, name).requires_grad_(False)

    def drop_text(self) -> None:
        """See ``Towers``."""
        for name in TEXT_TOWER:
            delattr(self, name)

    def text_part(self) -> "CLIP":
        """See ``Towers``; in eval mode."""
        with torch.device("meta"):
            tower = CLIP(self.config)
        del tower.visual
        state = self.state_dict(keep_vars=True)
        tower.load_state_dict({name: state[name] for name in tower.state_dict()}, assign=True)
        return tower.eval()


def _resnet(config: CLIPConfig) -> ModifiedResNet:
    options = {"drop_out": config.drop_path, "emb_dropout": config.emb_dropout, "joint_st": config.joint_frames}
    options["tower divided"] = config.tower == DIVIDED
    if given := [f"network.{name}" for name, value in options.items() if value]:
        raise ValueError(f"{', '.join(given)}: the image tower is a CLIP ResNet, which has no such option")
    shapes = (config.resnet_layers, config.vision_width, config.vision_heads, config.image_size, config.embed_dim)
    return ModifiedResNet(ResNetConfig(*shapes, config.time_module))


# Values of network.tower: how a ViT sees the frames of a clip.
IMAGE_TOWERS = {FRAMES: VisionTransformer, DIVIDED: SpaceTimeViT}


def _tokenize(texts: list[str], truncate: bool = False, *, vocab_size: int, context_length: int) -> Tensor:
    """See ``CLIP.tokenize``."""
    tokens = tokenize(texts, truncate, min(CONTEXT_LENGTH, context_length))
    longest, highest = int(tokens.argmax(dim=-1).max()) + 1, int(tokens.max())
    if highest >= vocab_size:
        raise ValueError(
            f"network.arch: its text tower reads {context_length} of {vocab_size} tokens, the class names need "
            f"{longest} of {highest + 1}"
        )
    return tokens
