"""VideoCLIP: uint8 frames (or their features) in, cosines with class features out; one module to wrap in DDP."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP
from modules.classes.templates import class_features_from_tokens
from modules.heads.experts import merged_experts
from modules.heads.transformer import TemporalTransformer, modulation_gate
from modules.weights import load_weights, weights_of
from utils.precision import without_autocast

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class VideoOutput(NamedTuple):
    """What one forward pass yields; R routes (one, but for MoTE in training: expert and merged)."""

    logits: Tensor  # [R, B, K] cosines, float32, before any scale
    features: Tensor  # [R, B, T, D] frame features after the temporal head
    frame_features: Tensor  # [B, T, D] CLIP's own, not normalised
    logit_scale: Tensor  # [] the multiplier of the cosines, exp of the trained parameter


class VideoCLIP(nn.Module):
    """CLIP's image tower on every frame, a temporal head, cosine with class features.

    Args:
        clip: its text tower is dropped unless ``train_text``.
        head: see ``modules.heads.transformer``.
        train_text: class features are encoded from tokens in every forward pass (``fix_text: False``).
        modulation: classes on either side and temperature of temporal feature modulation, applied in
            eval mode by heads that know their training classes; None switches it off.
    """

    def __init__(
        self,
        clip: CLIP,
        head: nn.Module,
        train_text: bool = False,
        modulation: tuple[int, float] | None = (5, 0.05),
    ):
        super().__init__()
        if not train_text:
            clip.drop_text()
        self.clip = clip
        self.head = head
        self.modulation = modulation
        shape = (1, 3, 1, 1)
        self.register_buffer("pixel_mean", 255 * torch.tensor(PIXEL_MEAN).view(shape), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(PIXEL_STD).view(shape), persistent=False)

    def draw_mixing(self, generator: torch.Generator) -> Tensor | None:
        """Random routes of one training step, to be passed to ``forward``; None where there are none."""
        return self.head.draw_mixing(generator)

    def forward(self, frames: Tensor, classes: Tensor, mixing: Tensor | None = None) -> VideoOutput:
        """Classify clips.

        Args:
            frames: uint8 [B, T, 3, S, S]; or frame features [B, T, D] of a floating-point type, ready from a cache.
            classes: unit class features [K, D]; or the tokens [K, M, 77] of their templates, which the
                text tower then encodes within the graph.
            mixing: experts of each layer and route [layers, R, E], see ``draw_mixing``.
        """
        frame_features = frames.float() if frames.is_floating_point() else self.encode_frames(frames)
        classes = self.class_features(classes)
        gate = None if self.training else self._modulate(frame_features, classes)
        features = self.head(frame_features, mixing, gate)  # [R, B, T, D]
        # Cosines in fp32 under any autocast (TF32 on a GPU): bf16 would round them to two digits.
        with without_autocast(frames):
            video_features = F.normalize(features.float().mean(dim=2), dim=-1)
            logits = video_features @ classes.float().T  # [R, B, K]
        return VideoOutput(logits, features, frame_features, self.clip.logit_scale.exp())

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, 3, S, S] -> CLIP's frame features [B, T, D] ([B, 1, D] with joint attention)."""
        images = (frames.flatten(0, 1).to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        return self.clip.encode_image(images).unflatten(0, (frames.shape[0], -1))

    def _modulate(self, frame_features: Tensor, class_features: Tensor) -> Tensor | None:
        if self.modulation is None or not isinstance(self.head, TemporalTransformer):
            return None
        with without_autocast(frame_features):
            return modulation_gate(
                frame_features.float(), class_features.float(), self.head.spe_cls_feature, *self.modulation
            )

    def class_features(self, classes: Tensor) -> Tensor:
        """``classes`` of ``forward`` as features [K, D]: encoded once where they are tokens."""
        if classes.is_floating_point():
            return classes
        # In training the graph holds all texts anyway; without one, a part at a time saves memory.
        return class_features_from_tokens(self.clip, classes, chunk=None if torch.is_grad_enabled() else 512)

    def remember_train_classes(self, class_features: Tensor) -> None:
        """Keep the features [K_train, D] of the classes in training; modulation compares with them later."""
        if isinstance(self.head, TemporalTransformer):
            self.head.spe_cls_feature = class_features.detach().float().clone()

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of towers and head, which hold nearly all parameters."""
        return [block for m in self.modules() for block in getattr(m, "resblocks", ())]

    def merged_experts(self) -> AbstractContextManager[None]:
        """Context in which experts are merged into ordinary FFNs, see ``modules.heads.experts.merged_experts``."""
        return merged_experts(self)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weight entries of a checkpoint, ``model_state_dict`` and ``fusion_model_state_dict``."""
        return weights_of(self)

    def load_weights(
        self, checkpoint: Mapping[str, Any], source: str, weight_average: float = 1.0, keep_train_classes: bool = False
    ) -> None:
        """Take the weights of a checkpoint, see ``modules.weights.load_weights``."""
        load_weights(self, checkpoint, source, weight_average, keep_train_classes)
