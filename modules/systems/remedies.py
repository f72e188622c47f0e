"""Remedies against forgetting (section ``loss``): what is added to the loss of any system, and the teachers for it.

A teacher is no part of the system: neither optimizer, DDP nor a checkpoint's weights know it. The frozen one is the
pretrained image tower; the one that follows is a moving average of the tower that trains, and has an entry of its own
in checkpoints.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clip.towers import Towers
from modules.objectives.keep import cosine_distance, head_mse, random_anchors, relations_loss, teacher_momentum
from modules.systems.parts import Batch, Draws, Losses
from utils.config import LossConfig
from utils.weights.state_dicts import check_fit, check_weights

TEACHER = "teacher_state_dict"  # entry of checkpoints: the teacher that follows
AT_HEAD = "head"  # value of loss.distill_at


class Remedies:
    """What ``loss`` adds to a system's own loss.

    Args:
        settings: of the configuration.
        frozen: the pretrained towers, where ``loss.distill`` runs on pictures.
        follower: a copy of the towers that train, where there is ``loss.relations``.
    """

    def __init__(self, settings: LossConfig, frozen: Towers | None, follower: Towers | None):
        self.settings = settings
        self.frozen, self.follower = (each and each.requires_grad_(False).eval() for each in (frozen, follower))

    def added_to(
        self, losses: Losses, batch: Batch, frames: Tensor, after_head: Callable[[], Tensor], draws: Draws
    ) -> Losses:
        """A step's loss with the remedies in it, each named and as yet without its weight in what is reported.

        Args:
            losses: the system's own.
            batch: the same that they are of: clips, or features of a cache.
            frames: the image tower's frame features, [B, T', D].
            after_head: gives those after the head, in its form for tests, [B, T', D].
        """
        loss, parts = self.settings, {}
        at_head = loss.distill > 0 and loss.distill_at == AT_HEAD
        after = after_head() if at_head or loss.head_mse else frames
        if loss.distill:
            parts["distill"] = cosine_distance(after if at_head else frames, self._frozen_frames(batch))
        if loss.head_mse:
            parts["head_mse"] = head_mse(after, frames)
        if loss.relations:
            anchors = random_anchors(draws.shared, loss.anchors, frames)
            teacher = _frames_of(self.follower, batch)
            parts["relations"] = relations_loss(frames, teacher, anchors, loss.relations_temperature)
        total = losses.total + sum(getattr(loss, name) * part for name, part in parts.items())
        return Losses(total, losses.reported | {name: part.detach() for name, part in parts.items()})

    def _frozen_frames(self, batch: Batch) -> Tensor:
        """Of the pretrained tower, [B, T, D]; a cache's features are its own."""
        return batch.features if batch.features is not None else _frames_of(self.frozen, batch)

    @torch.no_grad()
    def follow(self, towers: Towers, progress: float) -> None:
        """Move the teacher that follows, if there is one, towards the towers, whose weights have changed.

        Args:
            progress: share of the run that is done, 0 to 1.
        """
        if self.follower is None:
            return
        values, now = dict(self.follower.named_parameters()), dict(towers.named_parameters())
        step = 1 - teacher_momentum(progress, self.settings.relations_momentum)
        torch._foreach_lerp_(list(values.values()), [now[name] for name in values], step)
        for mine, theirs in zip(self.follower.statistics(), towers.statistics(), strict=True):
            mine.copy_(theirs)

    def content(self) -> dict[str, Any]:
        """What a checkpoint needs of the teachers."""
        return {} if self.follower is None else {TEACHER: self.follower.state_dict()}

    def resume(self, checkpoint: Mapping[str, Any], source: str) -> None:
        """Go on with the teacher of a checkpoint.

        Args:
            source: how errors begin, such as ``checkpoint PATH``.

        Raises:
            ValueError: it has none, or that of another tower.
        """
        if self.follower is None:
            return
        found = checkpoint.get(TEACHER)
        if not isinstance(found, dict):
            raise ValueError(f"{source}: resume: it has no teacher of loss.relations; set that to 0 or start anew")
        check_weights(found, f"{source}: {TEACHER}")
        check_fit(self.follower.state_dict(), found, f"{source}: {TEACHER}: the teacher of loss.relations has")
        self.follower.load_state_dict(found)


@torch.no_grad()
def _frames_of(teacher: Towers, batch: Batch) -> Tensor:
    return teacher.encode_clips(batch.clips, batch.lengths)
