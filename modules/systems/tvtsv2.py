"""TVTSv2 (Zeng et al., 2023): a space-time image tower, trained with captions and transcripts that it puts in order.

A clip is one vector, which is compared with texts: class names, captions, the transcripts of training. A training step
compares the clips of a batch with their texts, over all processes. Where a clip has several transcripts, the sorter, a
head that nobody needs after training, has to say from the clip's patches which was spoken first, second, and so on.
"""

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, StrictInt
from torch import Tensor

from clip.spacetime import ADDED, ATTENTION_OVER_TIME, TEMPORAL_EMBEDDING
from modules.objectives.contrast import pair_loss
from modules.objectives.sort import in_order, order_accuracy, sorting_loss
from modules.sorter import Sorter
from modules.systems.base import Batch, Draws, Group, Losses, Video
from modules.systems.clip import PlainCLIP
from utils.config import MANY, Number, settings
from utils.distributed import gather_rows, rank
from utils.precision import copy_to

NOT_DECAYED = ("bias", "ln_", "norm")  # in names of parameters without weight decay


@settings
class TVTSv2Settings:
    """Section ``tvtsv2`` of the configuration, of training alone."""

    mask_ratio: Number = Field(0.0, ge=0.0, le=0.99)  # share of the patches that a step leaves out, in all frames alike
    text_layers: StrictInt = Field(0, ge=0, le=MANY)  # the last blocks of the text tower, which train; 0: all of them
    temperature: Number = Field(0.05, ge=1e-6)  # of the contrast
    sorting: Number = Field(2.0, ge=0.0)  # weight of the sorter's loss; 0: no sorter
    sorter_places: StrictInt = Field(4, ge=2, le=1000)  # transcripts of a clip
    sorter_layers: StrictInt = Field(2, ge=1, le=1000)
    sorter_heads: StrictInt = Field(8, ge=1, le=1000)
    sorter_start: Literal["published", "alike"] = "published"  # random, or keys as queries: it looks for what is alike
    # What learns at solver.lr: attention over time and the sorter, or the temporal embedding, random at first, too
    new_parameters: Literal["published", "all"] = "published"
    time_attention: Literal["published", "space"] = "published"  # its start: zeros and ones, or that over space
    temporal_scale: Number = Field(1.0, ge=1e-6)  # of the random temporal embedding that a CLIP of pictures gets


class TVTSv2(PlainCLIP):
    """CLIP whose image tower makes one vector of a clip, and no head but the sorter."""

    Settings = TVTSv2Settings
    settings: TVTSv2Settings
    heads: Mapping[str, str] = {"None": "None"}
    tower = "divided"
    preset = "tvts"
    losses = ("contrast", "CE")
    text_losses = ("contrast",)
    skips_head = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.towers.logit_scale.requires_grad_(False)  # the contrast has a temperature of its own
        if self.settings.text_layers and (text := getattr(self.towers, "transformer", None)):
            if (asked := self.settings.text_layers) > (most := len(text.resblocks)):
                raise ValueError(f"tvtsv2.text_layers: expected at most {most}, the text tower's blocks, found {asked}")
            text.resblocks[:-asked].requires_grad_(False)
        if self.settings.time_attention == "space":
            self.towers.image_tower.transformer.start_time_from_space()
        if any(TEMPORAL_EMBEDDING in name for name in self.towers.additions):  # else it was trained
            self.towers.image_tower.temporal_embedding.data.mul_(self.settings.temporal_scale)
        self.sorter = None
        if self.solver.loss_type != "CE" and self.settings.sorting:
            shape = self.settings.sorter_places, self.settings.sorter_layers, self.settings.sorter_heads
            self.sorter = Sorter(self.towers.spec.embed_dim, *shape, self.settings.sorter_start == "alike")

    def drop_training_parts(self) -> None:
        """The sorter is one."""
        self.sorter = None

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """The contrast of clips and texts, both directions; of K > 1 ordered transcripts the sorter's loss, too.

        Raises:
            ValueError: clips without texts, or with another number of transcripts than ``tvtsv2.sorter_places``.
        """
        if self.solver.loss_type == "CE":
            return super().loss(batch, draws)
        if batch.texts is None or batch.clips is None:
            expected = "expected clips with texts, of data.sources; to train on labels set it to CE"
            raise ValueError(f"solver.loss_type contrast: {expected}")
        num_texts = batch.texts.shape[1]
        is_sorted = self.sorter is not None and num_texts > 1
        keep = self.kept_patches(batch.clips, draws)
        video = self.towers.encode_tokens(batch.clips, keep, batch.lengths, with_tokens=is_sorted)
        texts = self.towers.encode_text(batch.texts.flatten(0, 1)).unflatten(0, (-1, num_texts)).float()  # [B, K, D]
        # As published, the vectors of a clip's transcripts are averaged at the length that they have.
        clips, means = self.embed(Video(video.cls[:, None])), texts.mean(dim=1)  # [B, D] each
        contrast = pair_loss(clips, means, self.settings.temperature, self.solver.gather)
        total, parts = contrast.total, {"contrastive": contrast.total}
        if is_sorted:
            logits = self.sorted_logits(texts, video.tokens)
            parts |= {"sorting": sorting_loss(logits), "order_accuracy": order_accuracy(logits)}
            total = total + self.settings.sorting * parts["sorting"]
        elif self.sorter is not None:
            # Gradients of zero: none at all would stop DDP, and decay and momentum move the sorter in these steps, too.
            total = total + 0.0 * sum(parameter.sum() for parameter in self.sorter.parameters())
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def kept_patches(self, clips: Tensor, draws: Draws) -> Tensor | None:
        """Which patches of clips [B, T, 3, S, S] are seen, int64 [B, n], of each clip others; None: all."""
        if not self.settings.mask_ratio:
            return None
        num_patches = (clips.shape[-1] // self.towers.image_tower.conv1.stride[0]) ** 2
        num_kept = max(1, int(num_patches * (1 - self.settings.mask_ratio)))  # of 256 at 0.7: 76
        first = rank() * len(clips)  # with draws that processes share a clip has its own by its place among all clips
        orders = [torch.randperm(num_patches, generator=draws.generator) for _ in range(first + len(clips))][first:]
        return copy_to(clips.device, torch.stack([order[:num_kept] for order in orders]))

    def sorted_logits(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """The places of transcripts [B, K, D] by a clip's tokens [B, L, D], fp32 [N, K, K], of all processes' clips.

        The text tower does not learn from them. The loss is then one mean over all clips, however they are shared out,
        and its gradient the whole, as it is with the published program; ``solver.gather`` is about the contrast.
        """
        if texts.shape[1] != (places := self.settings.sorter_places):
            raise ValueError(f"tvtsv2.sorter_places is {places}, but a clip has {texts.shape[1]} transcripts")
        return gather_rows(self.sorter(texts.detach(), tokens).float())

    @property
    def num_ordered(self) -> int:
        """The places of the sorter, if there is one."""
        return 0 if self.sorter is None else self.settings.sorter_places

    def in_order(self, batch: Batch) -> Tensor:
        """See ``System``; nothing is left out of the pictures."""
        texts = self.towers.encode_text(batch.texts.flatten(0, 1)).unflatten(0, batch.texts.shape[:2])
        tokens = self.towers.encode_tokens(batch.clips, None, batch.lengths, with_tokens=True).tokens
        return in_order(self.sorter(texts, tokens))

    def groups(self) -> list[Group]:
        """CLIP's parameters at their share of the rate, new ones at all of it; biases and norms do not decay."""
        new = ADDED if self.settings.new_parameters == "all" else ATTENTION_OVER_TIME
        named = [(name, value, any(part in name for part in new)) for name, value in self.towers.named_parameters()]
        for part in filter(None, (self.head, self.sorter)):
            named += [(name, value, True) for name, value in part.named_parameters()]
        groups = []
        for is_new, is_kept in itertools.product((False, True), repeat=2):
            name, kind = ("new" if is_new else "clip") + "_no_decay" * is_kept, (is_new, is_kept)
            members = [value for part, value, new in named if (new, any(m in part for m in NOT_DECAYED)) == kind]
            groups.append(Group(name, members, 1.0 if is_new else self.solver.clip_ratio, 0.0 if is_kept else None))
        return groups
