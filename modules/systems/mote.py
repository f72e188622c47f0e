"""MoTE (NeurIPS 2024): a mixture of temporal experts over a CLIP that is fine-tuned.

A training step compares the same clips with the classes twice, on two *routes* through the head: on the first each
layer runs one expert, drawn for it; on the second each layer runs a merge of all its experts (section 3.3). Tests run
one merge of the experts, as ordinary layers, and fall back on CLIP's own frame features for clips that look unlike the
training classes (temporal feature modulation, section 3.4).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch.nn.functional as F
from pydantic import Field, StrictBool, StrictInt
from torch import Tensor

from modules.heads.experts import MERGE_TEMPERATURES, ExpertTransformer, merged_experts
from modules.modulation import fitted_temperature, modulation_gate
from modules.objectives.classify import classification_loss
from modules.scores import cosines
from modules.systems.base import Batch, Draws, Losses, System, Video
from utils.config import MANY, Number, Temperatures, settings
from utils.precision import copy_to, without_autocast


@settings
class MoTESettings:
    """Section ``mote`` of the configuration."""

    merge_temperatures: Temperatures = MERGE_TEMPERATURES
    # Weights of the parts of the loss (section 3.3); with merged = feature_mse = 0, or without experts, there is no
    # merged route.
    expert: Number = 1.0
    merged: Number = 0.5
    feature_mse: Number = 0.1
    # Temporal feature modulation (section 3.4), in tests.
    modulation: StrictBool = True
    modulation_classes: StrictInt = Field(5, ge=1, le=MANY)
    modulation_temperature: Number = Field(0.05, ge=1e-6)


class MoTE(System):
    """CLIP, a transformer over frames whose feed-forward layers are experts, and a loss of three parts."""

    Settings = MoTESettings
    heads: Mapping[str, str] = {"Transf": "Transf"}
    knows_head = True
    settings: MoTESettings
    head: ExpertTransformer

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """expert * CE(expert route) + merged * CE(merged route) + feature_mse * MSE(merged route, image tower).

        B clips of T frames, D wide, K classes; R routes through a head of L layers with E experts each.
        """
        mote = self.settings
        with_merged = mote.merged > 0 or mote.feature_mse > 0
        # How much of each expert makes a layer's weights, [L, R, E]: on the first route one expert, drawn, the higher
        # ones more often; on the second softmax([1..E] / temperature), drawn for each layer. None: no experts, R = 1.
        mixing = self.head.draw(draws.generator, mote.merge_temperatures, with_merged)

        video = self.video_of(batch)  # the image tower's frame features, [B, T, D]
        on_device = None if mixing is None else copy_to(video.frames.device, mixing)
        features = self.head.routes(video.frames, on_device)  # frame features after the head, [R, B, T, D]
        # Mean over T, unit length, cosine with the classes, which are constants unless the text tower trains.
        scores = cosines(self.projection(features), self.classes.encode(self.towers))  # [R, B, K]

        targets = batch.labels, batch.shares, self.solver.label_smoothing
        parts = {"expert_ce": classification_loss(scores[0], self.logit_scale, *targets)}
        total = mote.expert * parts["expert_ce"]
        if with_merged and mixing is not None:
            parts["merged_ce"] = classification_loss(scores[1], self.logit_scale, *targets)
            # Keeps the merged route close to the image tower's features; as published, both sides learn from it.
            parts["feature_mse"] = F.mse_loss(features[1].float(), video.frames.float())
            total = total + mote.merged * parts["merged_ce"] + mote.feature_mse * parts["feature_mse"]
        reported = {**parts, "logit_scale": self.logit_scale}
        if mixing is not None:
            reported["draws"] = mixing[:, 0]  # [L, E], for a curve of how often each expert ran
        return Losses(total, {name: value.detach() for name, value in reported.items()})

    def after_head(self, video: Video, classes: Tensor | None = None) -> Tensor:
        """Frame features after the head, in the form for tests: [B, T, D] -> [B, T, D].

        With classes [K, D], modulation weighs what the head adds to the image tower's features: little for a clip whose
        likely classes are far from all training classes.
        """
        mote = self.settings
        if classes is None or not mote.modulation:
            return self.head(video.frames)
        with without_autocast(video.frames):
            gate = modulation_gate(  # [B], 1: the head is trusted
                video.frames.float(),
                classes.float(),
                self.head.spe_cls_feature,  # the training classes [K', D], under their released name
                mote.modulation_classes,
                self.temperature,
            )
        return self.head(video.frames, gate)

    @property
    def temperature(self) -> Tensor | float:
        """The gate's: as configured for towers like OpenAI's CLIP, for others scaled by how far classes lie apart."""
        configured = self.settings.modulation_temperature
        if self.towers.has_narrow_cone:
            return configured
        return fitted_temperature(configured, self.head.spe_cls_feature)

    def for_tests(self) -> AbstractContextManager:
        """Experts are merged into ordinary feed-forward layers, once."""
        return merged_experts(self)

    def remember(self, classes: Tensor) -> None:
        """Keep the training classes [K, D] in a buffer of the head, and so in checkpoints, for modulation in tests."""
        self.head.spe_cls_feature = classes.detach().float().clone()

    @property
    def fewest_classes(self) -> int:
        """Modulation takes the most similar few of K classes, and an exported graph cannot take fewer."""
        return self.settings.modulation_classes if self.settings.modulation else 1
