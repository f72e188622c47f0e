"""CLIP as it is, or fine-tuned: frame features through a head that knows neither routes nor classes."""

from modules.objectives.classify import classification_loss
from modules.scores import cosines
from modules.systems.base import Batch, Draws, Losses, System


class PlainCLIP(System):
    """The mean of frame features (or any head), cosine with the classes, cross-entropy."""

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """Cross-entropy of the batch, with smooth labels where ``solver.label_smoothing`` says so."""
        features = self.compared(self.video_of(batch))
        scores = cosines(features, self.classes.encode(self.towers))
        smoothing = self.solver.label_smoothing
        loss = classification_loss(scores, self.logit_scale, batch.labels, batch.shares, smoothing)
        return Losses(loss, {"ce": loss.detach(), "logit_scale": self.logit_scale.detach()})
