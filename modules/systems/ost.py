"""OST (CVPR 2024): descriptors of a class matched to the frames of a video by optimal transport; both towers train.

A class is two sets of descriptors: what one picture of the action shows, and its steps in order. Frames are not mixed
over time. The score of video and class is the mean similarity of all frames and descriptors, plus the similarity under
the transport plan between them. A training step compares the videos of a batch with the descriptors of their own
classes, over the batches of all processes.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor

from modules.classes.base import Classes
from modules.classes.descriptor_files import SETS
from modules.objectives.contrast import both_directions, gathered
from modules.scores import Explanation
from modules.systems.base import Batch, Draws, Losses, System, Video
from modules.transport import TransportSettings, transport_plans, transport_scores
from utils.config import Text, settings
from utils.precision import without_autocast


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


@settings
class OSTSettings(TransportSettings):
    """Section ``ost`` of the configuration: the solver's settings, and what classes are made of."""

    # one file of our format (descriptors/*.yaml), or the published two: static descriptors, steps
    descriptors: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = ()


class OST(System):
    """CLIP, and classes of descriptors that are transported onto frames."""

    Settings = OSTSettings
    settings: OSTSettings
    heads: Mapping[str, str] = {"None": "None", "Transf": "transformer"}
    losses = ("contrast",)
    preset = "vifi"
    own_classes = "descriptors"

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """KL to the pairs of one class, of G videos against G classes and back, their sum; G over all processes."""
        frames = self.compared(self.video_of(batch)).float()  # [B, T, D]
        descriptors = self.classes.encode(self.towers, batch.labels).transpose(0, 1)  # [B, S, N, D]
        rows, labels = gathered([frames, descriptors], batch.labels, self.solver.gather)
        scores = transport_scores(rows[0], rows[1].transpose(0, 1), self.settings)  # [G, G]
        loss = both_directions(self.logit_scale.float() * scores, labels, is_halved=False)
        parts = {"video_to_text": loss.of_videos, "text_to_video": loss.of_texts, "logit_scale": self.logit_scale}
        return Losses(loss.total, {name: value.detach() for name, value in parts.items()})

    def score(self, video: Video, classes: Tensor) -> Tensor:
        """Clips against descriptors [S, K, N, D] -> [B, K], in [-2, 2]."""
        return transport_scores(self.compared(video), classes, self.settings)

    def score_frames(self, video: Video, classes: Tensor) -> Tensor:
        """Each frame against descriptors [S, K, N, D], their mean -> [B, T', K], without a plan."""
        frames = self.compared(video)
        with without_autocast(frames):
            return F.normalize(frames.float(), dim=-1) @ classes.float().mean(dim=(0, 2)).T

    def explain(self, video: Video, classes: Classes, encoded: Tensor, label: int) -> list[Explanation]:
        """The transport plan of each set of one class's descriptors, of encoded ones [S, K, N, D]."""
        labels = torch.tensor([label], device=encoded.device)
        plans = transport_plans(self.compared(video), encoded, labels, self.settings)[:, :, 0]  # [B, S, T', N]
        sets = zip(SETS, classes.phrases, plans.unbind(dim=1), strict=True)
        # A frame has the T'th part of the plan, nearly: the last step of the solver fits columns.
        return [Explanation(name, phrases[label], plan * plan.shape[-2]) for name, phrases, plan in sets]
