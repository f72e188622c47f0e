"""The contract of a system: what training, tests and commands may ask of a video model, whatever paper it is from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clip.towers import Towers
from modules.classes.base import Classes
from modules.half import weights_cast
from modules.objectives.mixing import mixed, mixes
from modules.scores import Explanation, cosines
from modules.systems.parts import Batch, Draws, Group, Losses, Video
from modules.systems.remedies import Remedies
from modules.weights import load_weights, weights_of
from utils.config import NoSettings, SolverConfig


class System(nn.Module):
    """Towers, a head over time, training's classes; written out for any head and the cosine with the frames' mean."""

    Settings: type = NoSettings  # the section of the configuration that is named like the system
    heads: Mapping[str, str] = {"None": "None"}  # network.sim_header: what it means here of modules.build.HEADS
    losses: tuple[str, ...] = ("CE",)  # values of solver.loss_type
    tower = "frames"  # its network.tower, where a configuration says none
    text_losses: tuple[str, ...] = ()  # those of them that want texts of clips in the place of labels
    preset = ""  # its data.transforms, where a configuration says none; empty: the default one
    own_classes = ""  # its network.classes, whatever a configuration says
    knows_head = False  # its loss asks more of a head than [B, T, D] -> [B, T, D]: with another one it is plain CLIP
    skips_head = False  # where the tower makes one vector of a clip
    # Of its section: the settings of what is compared with in the place of texts (modules.classes.classifiers), if so.
    classifier: Callable[[Any], Any] = staticmethod(lambda section: None)
    fewest_classes = 1  # that clips can be compared with
    remedies: Remedies | None = None  # added to the loss, see modules.build.add_remedies

    def __init__(self, towers: Towers, head: nn.Module, classes: Classes, section=None, solver=SolverConfig()):  # noqa: B008
        super().__init__()
        self.towers, self.head, self.classes = towers, head, classes
        self.settings, self.solver = section or self.Settings(), solver  # of the configuration
        self.projection: nn.Module = nn.Identity()  # or ``ResidualProjection``, which is for the training classes alone

    def forward(self, batch: Batch, draws: Draws) -> Losses:
        """The loss, of mixed clips if the settings say so, with remedies if there are any: what DDP and FSDP wrap."""
        if mixes(self.solver):
            if batch.lengths is not None:  # of two mixed clips each has its own: padding gets its colour before
                batch = batch._replace(clips=self.towers.filled(batch.clips, batch.lengths), lengths=None)
            name = "clips" if batch.features is None else "features"
            inputs, shares = mixed(getattr(batch, name), batch.labels, len(self.classes), draws.generator, self.solver)
            batch = batch._replace(**{name: inputs, "shares": shares})
        if self.remedies is None:
            return self.loss(batch, draws)
        video = self.video_of(batch)
        losses = self.loss(batch._replace(clips=None, lengths=None, features=video.frames), draws)
        return self.remedies.added_to(losses, batch, video.frames, lambda: self.after_head(video), draws)

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """One training step's loss and its parts."""
        raise NotImplementedError

    def video_of(self, batch: Batch) -> Video:
        """The batch's clips after the image tower, or the features that take their place."""
        has_features = batch.features is not None
        return Video(batch.features.float()) if has_features else self.encode(batch.clips, batch.lengths)

    def encode(self, clips: Tensor, lengths: Tensor | None = None) -> Video:
        """[B, T, 3, S, S] through the image tower; values as of uint8. ``lengths``: see ``Batch``."""
        return Video(self.towers.encode_clips(clips, lengths))

    def after_head(self, video: Video, classes: Tensor | None = None) -> Tensor:
        """Frame features after the head, [B, T', D]; ``classes`` where they have a say in it."""
        return self.head(video.frames)

    def compared(self, video: Video, classes: Tensor | None = None) -> Tensor:
        """``after_head`` and the projection: what is compared with classes, [B, T', D]."""
        return self.projection(self.after_head(video, classes))

    def embed(self, video: Video) -> Tensor:
        """One vector a clip, [B, D], not normalised; the same whatever classes are asked for."""
        return self.compared(video).float().mean(dim=1)

    def score(self, video: Video, classes: Tensor) -> Tensor:
        """Clips against encoded classes [K, D] -> [B, K], before the logit scale."""
        return cosines(self.compared(video, classes), classes)

    def score_frames(self, video: Video, classes: Tensor) -> Tensor:
        """Each frame on its own against encoded classes [K, D] -> [B, T', K]."""
        return nn.functional.normalize(self.compared(video, classes).float(), dim=-1) @ classes.float().T

    def explain(self, video: Video, classes: Classes, encoded: Tensor, label: int) -> list[Explanation]:
        """Why a class, one of ``encoded`` [K, D], has its score: what lies on which frames; most systems cannot say."""
        return []

    @property
    def logit_scale(self) -> Tensor:
        """The factor of scores before a softmax, a scalar."""
        return self.towers.logit_scale.exp()

    @property
    def not_averaged(self) -> tuple[str, ...]:
        """Names of the towers' tensors that weight averaging leaves alone: they have no pretrained value."""
        return self.towers.additions

    def groups(self) -> list[Group]:
        """All parameters, in the order in which optimizers and checkpoints keep them."""
        others = {"classes": list(self.classes.parameters()), "projection": list(self.projection.parameters())}
        return [
            Group("clip", self.towers.parameters_at(full_rate=False), self.solver.clip_ratio),
            Group("head", [*self.towers.parameters_at(full_rate=True), *self.head.parameters()], 1.0),
            *(Group(name, values, 1.0) for name, values in others.items() if values),
        ]

    def blocks(self) -> list[nn.Module]:
        """The blocks of towers and head, which hold nearly all parameters."""
        others = [module for name, part in self.named_children() if name != "towers" for module in part.modules()]
        return [*self.towers.blocks(), *(block for module in others for block in getattr(module, "resblocks", ()))]

    def for_tests(self) -> AbstractContextManager:
        """Context in which the model has its form for tests; nothing may train in it."""
        return nullcontext()

    def drop_training_parts(self) -> None:
        """Forget what training alone needs, before a checkpoint is loaded for tests."""

    @property
    def num_ordered(self) -> int:
        """Of how many texts of a clip it learns the order, so that ``in_order`` can be asked; 0: of none."""
        return 0

    def in_order(self, batch: Batch) -> Tensor:
        """Of which clips of a batch the texts are put in their order, all of them: float [B], 1 or 0."""
        raise NotImplementedError

    @contextmanager
    def under_test(self, half: torch.dtype | None) -> Iterator[None]:
        """Context of ``for_tests`` in which weights are cast once, see ``modules.half``; ``half``: of ``Precision``."""
        with self.for_tests(), weights_cast(self.towers.image_tower, half), weights_cast(self.head, half):
            yield

    def remember(self, classes: Tensor) -> None:
        """Keep the encoded training classes [K, D], where tests need them."""

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weights as a checkpoint has them."""
        return weights_of(self)

    def load_weights(self, checkpoint: Mapping[str, Any], source: str, average: float = 1.0, **classes: bool) -> None:
        """Load a checkpoint's weights, see ``modules.weights``."""
        load_weights(self, checkpoint, source, average, **classes)
