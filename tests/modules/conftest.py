"""Small systems over random weights, and over features that are there already."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.towers import Towers, TowerSpec
from modules.classes.base import FixedClasses
from modules.heads.experts import ExpertTransformer
from modules.systems.base import Draws
from modules.systems.mote import MoTE, MoTESettings


class NoTowers(Towers):
    """For clips that come as features: only the scale."""

    def __init__(self, width: int, scale: float):
        super().__init__(TowerSpec(32, width, 64, 77, (0.5,) * 3, (0.5,) * 3, "bicubic"))
        self.logit_scale = nn.Parameter(torch.as_tensor(scale).float().log())


@pytest.fixture
def draws() -> Draws:
    """Those of one step."""
    return Draws(torch.Generator().manual_seed(0))


@pytest.fixture
def mote_of() -> Callable[..., MoTE]:
    """MoTE on ready features: head, unit class features [K, D], scale, routes of its steps, settings."""

    def mote_of(
        head: ExpertTransformer, classes: Tensor, scale: float, mixing: Tensor | None = None, **settings
    ) -> MoTE:
        if mixing is not None:
            head.draw = lambda *_: mixing
        return MoTE(NoTowers(classes.shape[1], scale), head, FixedClasses(classes), MoTESettings(**settings))

    return mote_of


@pytest.fixture
def frames() -> Tensor:
    """Two clips of three pictures for ``tiny_clip``."""
    return torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def class_features() -> Tensor:
    """Unit features of seven classes in the space of ``tiny_clip``."""
    return F.normalize(torch.randn(7, 64, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.fixture
def expert_head() -> ExpertTransformer:
    """A head of two layers of three experts that has trained on seven other classes."""
    torch.manual_seed(2)
    head = ExpertTransformer(width=64, layers=2, heads=1, num_experts=3, num_train_classes=7)
    head.spe_cls_feature.copy_(F.normalize(torch.randn(7, 64), dim=-1))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return head
