"""Text4Vis (AAAI and IJCV 2023): a CLIP that is fine-tuned on video with a classifier made from the class names' text.

The classifier's rows are the text tower's embeddings of the class names, encoded once and frozen; the image tower, a
transformer over frames and the logit scale train towards them with cross-entropy. Other classifiers are those that the
paper compares with. With NCE or DS both towers train: a batch's videos are compared with the texts of the batch only.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modules.classes.classifiers import ClassifierSettings
from modules.objectives.contrast import CONTRASTS
from modules.systems.base import Batch, Draws, Losses, Video
from modules.systems.clip import PlainCLIP
from utils.config import settings


@settings
class Text4VisSettings(ClassifierSettings):
    """Section ``text4vis`` of the configuration."""


class Text4Vis(PlainCLIP):
    """CLIP, a transformer over frames, and a classifier of text."""

    Settings = Text4VisSettings
    settings: Text4VisSettings
    heads: Mapping[str, str] = {"Transf": "transformer", "None": "None"}
    losses = ("CE", *CONTRASTS)
    preset = "text4vis"
    skips_head = True
    classifier = staticmethod(lambda section: None if section.classifier == "text" else section)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.towers.joins_frames:
            self.head.requires_grad_(False)  # checkpoints have it all the same

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """Cross-entropy with all classes; or B videos against the texts of their own B classes, in both directions."""
        if self.solver.loss_type not in CONTRASTS:
            return super().loss(batch, draws)
        videos = self.embed(self.video_of(batch))  # [B, D]
        texts = self.classes.encode(self.towers, batch.labels)  # [B, D]
        contrast = CONTRASTS[self.solver.loss_type]
        loss = contrast(videos, texts, batch.labels, self.logit_scale, self.solver.gather)
        parts = {"video_to_text": loss.of_videos, "text_to_video": loss.of_texts, "logit_scale": self.logit_scale}
        return Losses(loss.total, {name: value.detach() for name, value in parts.items()})

    def after_head(self, video: Video, classes: Tensor | None = None) -> Tensor:
        """Frame features after the head, [B, T', D]; one vector a clip (joint attention) passes it by, as published."""
        return video.frames if self.towers.joins_frames else super().after_head(video, classes)
