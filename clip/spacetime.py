"""An image tower that sees a clip as a whole: divided space-time attention, with one class token for all frames.

Of TVTSv2 (Zeng et al., 2023), in the manner of Frozen in Time (Bain et al., ICCV 2021). In each block patches look
along time first, at the same place in all frames, and then around in their own frame. The class token is in all these
groups, and sees everything in both. As initialised the attention over time adds nothing, so that a CLIP begins as it is
but for the temporal embedding.
"""

import logging
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.blocks import Attention, LayerNorm, ResidualAttentionBlock, Transformer, recomputable
from clip.shapes import CLIPConfig
from clip.towers import Tokens, Towers

logger = logging.getLogger(__name__)

# In names of tensors that a CLIP of pictures does not have.
ATTENTION_OVER_TIME, TEMPORAL_EMBEDDING = (".timeattn.", ".ln_3."), "temporal_embedding"
ADDED = (*ATTENTION_OVER_TIME, TEMPORAL_EMBEDDING)


class GroupedAttention(Attention):
    """Attention within groups of patches that see the class token, too; the class token sees all patches."""

    def __init__(self, width: int, heads: int, dropout: float, over_time: bool):
        super().__init__(width, heads, dropout)
        self.over_time = over_time  # a group is one place in all frames, else one frame

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """[B, 1+T*n, D], the class token and the patches of one frame after the other -> the same shape."""
        patches = x[:, 1:].unflatten(1, (num_frames, -1))  # [B, T, n, D]
        patches = patches.transpose(1, 2) if self.over_time else patches
        num_groups = patches.shape[1]
        # The class token stands in front of each group before keys and values are made: one copy, a third as wide as
        # theirs, which also brings the places together along time.
        groups = torch.cat([x[:, None, :1].expand(-1, num_groups, -1, -1), patches], dim=2)  # [B, G, 1+L, D]
        query, key, value = self._project(groups, slice(None)).unbind(2)  # [B*G, 1+L, heads, head_dim] each
        patches = self._attend(query[:, 1:], key, value).unflatten(0, (-1, num_groups))  # [B, G, L, D]
        patches = patches.transpose(1, 2) if self.over_time else patches
        return torch.cat([self._of_class_token(query, key, value, num_groups), patches.flatten(1, 2)], dim=1)

    def _of_class_token(self, query: Tensor, key: Tensor, value: Tensor, num_groups: int) -> Tensor:
        """What the class token sees in G groups, [B*G, 1+L, heads, head_dim] each -> [B, 1, D]."""
        seen = torch.ones(num_groups, key.shape[1], dtype=torch.bool, device=key.device)
        seen[1:, 0] = False  # itself once, not once a group
        query, key, value = (each.unflatten(0, (-1, num_groups)) for each in (query, key, value))
        return self._attend(query[:, 0, :1], key.flatten(1, 2), value.flatten(1, 2), seen=seen.view(1, -1))


class SpaceTimeBlock(ResidualAttentionBlock):
    """Attention over time, over space, and the feed-forward layer."""

    def __init__(self, width: int, heads: int, activation: str, drop_path: float, mlp: int | None = None):
        super().__init__(width, heads, activation, drop_path, mlp)
        self.attn = GroupedAttention(width, heads, drop_path, over_time=False)
        self.timeattn = GroupedAttention(width, heads, drop_path, over_time=True)
        self.ln_3 = LayerNorm(width)

    @recomputable
    def forward(self, x: Tensor, num_frames: int, only_first: bool = False) -> Tensor:
        """[B, 1+T*n, D] -> [B, 1+T*n, D], or [B, 1, D] where only the class token is read afterwards."""
        over_time = x + self.drop_path(self.timeattn(self.ln_3(x), num_frames))
        normalised = self.ln_1(over_time)
        # A class token sees all patches, in groups or not.
        mixed = self.attn.first(normalised) if only_first else self.attn(normalised, num_frames)
        # As published, both residuals begin at the block's input: what time adds reaches it through space alone.
        x = (x[:, :1] if only_first else x) + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.ln_2(x)))


class SpaceTimeTransformer(Transformer):
    """A stack of such blocks."""

    block = SpaceTimeBlock

    def _init_weights(self, width: int, layers: int) -> None:
        super()._init_weights(width, layers)
        for block in self.resblocks:  # adds zeros, and learns from rounding errors, see start_time_from_space
            nn.init.zeros_(block.timeattn.in_proj_weight)
            nn.init.ones_(block.timeattn.out_proj.weight)
            nn.init.zeros_(block.timeattn.out_proj.bias)

    @torch.no_grad()
    def start_time_from_space(self) -> None:
        """Let attention over time that was not trained begin as a copy of that over space, its output still zero.

        As published it begins with zeros that go out through ones. The layer norm behind it takes away what all
        channels share, and with it the gradient that would come back through the ones, but for rounding.
        """
        for block in self.resblocks:
            time, space = block.timeattn, block.attn
            if not time.in_proj_weight.any():
                time.in_proj_weight.copy_(space.in_proj_weight)
                time.in_proj_bias.copy_(space.in_proj_bias)
                time.out_proj.weight.zero_()
                block.ln_3.load_state_dict(block.ln_1.state_dict())

    def forward(self, x: Tensor, num_frames: int, only_first: bool = False) -> Tensor:
        """[B, 1+T*n, D] -> [B, 1+T*n, D] or [B, 1, D], see ``SpaceTimeBlock``."""
        return self._through_blocks(x, num_frames, only_first)


class SpaceTimeViT(nn.Module):
    """ViT over the patches of all frames; its class token, normalised and projected, is the clip's embedding."""

    time_module = ""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        for name, value in {"joint_st": config.joint_frames, "tm": config.time_module}.items():
            if value:
                raise ValueError(f"network.tower divided and network.{name}: expected one of them, found both")
        width, patch = config.vision_width, config.patch_size
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + (config.image_size // patch) ** 2, width))
        self.temporal_embedding = nn.Parameter(scale * torch.randn(config.temporal_rows, width))
        self.dropout = nn.Dropout(config.emb_dropout)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = SpaceTimeTransformer(
            width, config.vision_layers, config.vision_heads, config.activation, config.drop_path, config.vision_mlp
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))
        # H/14 is made of open_clip's code, which gives out patches as they leave the last block, without the class
        # token; its models have the exact GELU, OpenAI's the quick one.
        self.has_bare_patches = config.activation == "gelu"

    def forward(self, images: Tensor, num_frames: int = 1, keep: Tensor | None = None) -> Tensor:
        """Normalised images [B*T, 3, S, S], T of each clip in order -> embeddings [B, D], not L2-normalised.

        More frames than the temporal embedding has rows, or another size of pictures, take embeddings in between.

        Args:
            keep: int64 [B, n], the patches that are seen, the same in all frames of a clip; None: all.

        Raises:
            ValueError: ``keep`` does not fit the clips, or names patches that a frame does not have.
        """
        x = self.transformer(self._embedded(images, num_frames, keep), num_frames, only_first=True)
        return self.ln_post(x[:, 0]) @ self.proj

    def tokens(self, images: Tensor, num_frames: int, keep: Tensor | None = None) -> Tokens:
        """As ``forward``, with all tokens [B, 1+T*n, D]; of H/14 the patches alone, [B, T*n, D], not normalised."""
        x = self.transformer(self._embedded(images, num_frames, keep), num_frames)
        if self.has_bare_patches:
            return Tokens(self.ln_post(x[:, 0]) @ self.proj, x[:, 1:] @ self.proj)
        tokens = self.ln_post(x) @ self.proj
        return Tokens(tokens[:, 0], tokens)

    def _embedded(self, images: Tensor, num_frames: int, keep: Tensor | None) -> Tensor:
        """Images [B*T, 3, S, S] -> what the first block gets, [B, 1+T*n, W]."""
        patches = self.conv1(images)  # [B*T, W, side, side]
        places = self._places(patches.shape[-1]) + self._times(num_frames)[:, None]  # [T, P, W]
        patches = patches.flatten(2).transpose(1, 2).unflatten(0, (-1, num_frames)) + places  # [B, T, P, W]
        if keep is not None:
            check_keep(keep, *patches.shape[:3:2])
            index = keep[:, None, :, None].expand(-1, num_frames, -1, patches.shape[-1])
            patches = patches.gather(2, index)  # [B, T, n, W]
        class_token = (self.class_embedding + self.positional_embedding[0]).to(patches.dtype)
        x = torch.cat([class_token.expand(patches.shape[0], 1, -1), patches.flatten(1, 2)], dim=1)
        return self.ln_pre(self.dropout(x))

    def _places(self, side: int) -> Tensor:
        """Position embeddings of side * side patches, [P, W]."""
        places = self.positional_embedding[1:]
        own = round(len(places) ** 0.5)
        if side == own:
            return places
        square = places.T.unflatten(1, (own, own))[None]  # [1, W, own, own]
        return F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)[0].flatten(1).T

    def _times(self, num_frames: int) -> Tensor:
        """Temporal embeddings of T frames, [T, W]: the first ones, as published."""
        times = self.temporal_embedding
        if num_frames <= len(times):
            return times[:num_frames]
        return F.interpolate(times.T[None], size=num_frames, mode="linear", align_corners=True)[0].T


def check_keep(keep: Tensor, num_clips: int, num_patches: int) -> None:
    """See that every clip has patches to keep, int64 [B, n], that its frames have.

    Raises:
        ValueError: it says what was expected.
    """
    if keep.dtype != torch.int64 or keep.ndim != 2 or len(keep) != num_clips or not keep.shape[1]:
        found = f"{str(keep.dtype).removeprefix('torch.')} {list(keep.shape)}"
        raise ValueError(f"patches to keep: expected int64 [{num_clips}, n], n at least 1, found {found}")
    if not keep.is_meta and ((keep < 0) | (keep >= num_patches)).any():
        low, high = int(keep.min()), int(keep.max())
        raise ValueError(f"patches to keep: expected indices from 0 to {num_patches - 1}, found {low} to {high}")


def fit_to_clips(towers: Towers, num_frames: int, input_size: int | None) -> None:
    """Say what is interpolated: embeddings of clips longer than the weights know, or of pictures of another size.

    Raises:
        ValueError: no whole number of patches makes such a picture.
    """
    visual, size = towers.image_tower, towers.spec.image_size
    rows, patch = len(visual.temporal_embedding), visual.conv1.stride[0]
    towers.graph_frames = num_frames
    others = [f"{rows} frames to {num_frames}"] * (num_frames > rows)
    if input_size not in (None, size):
        if input_size % patch:
            raise ValueError(f"data.input_size: expected a multiple of {patch}, a patch's, found {input_size}")
        towers.set_spec(replace(towers.spec, image_size=input_size))
        others.append(f"{size} pixels to {input_size}")
    if others:
        logger.info("network.tower divided: embeddings are interpolated, %s", " and ".join(others))
