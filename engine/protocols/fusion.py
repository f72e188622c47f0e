"""How the views of a video become its scores: the rules of the published tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from utils.config import EvalConfig, check_choice

Tables = Mapping[str, Tensor]  # of a pass, by name: each [N, V, ...]
PERCENT = 100.0  # what published tests multiply cosines by, in the place of the trained logit scale


@dataclass(frozen=True)
class Fusion:
    """A rule that fuses the views of videos."""

    rule: str  # in the words of the results
    # Tables of N videos, encoded classes, and the trained logit scale -> scores [N, K].
    fuse: Callable[[Tables, Tensor, float], Tensor]
    probabilities: Callable[[Tensor], Tensor]  # scores [N, K] -> rows with the sum 1
    tables: tuple[str, ...] = ("scores",)  # that it needs; rows of NaN stay rows of NaN
    gives_cosines: bool = False  # scores are those of one feature a video


def _of_probabilities(settings: EvalConfig) -> Fusion:
    # In double: the second softmax squeezes close calls of many classes below float32's resolution.
    def fuse(tables: Tables, classes: Tensor, logit_scale: float) -> Tensor:
        return (settings.softmax_scale * tables["scores"].double()).softmax(dim=-1).mean(dim=1).softmax(dim=-1)

    return Fusion("softmax of cosines per view, mean over views, softmax", fuse, lambda scores: scores)


def _of_cosines(settings: EvalConfig) -> Fusion:
    return Fusion(
        "mean of cosines over views",
        lambda tables, classes, logit_scale: PERCENT * tables["scores"].mean(dim=1),
        lambda scores: scores.softmax(dim=-1),
    )


def _of_features(settings: EvalConfig) -> Fusion:
    # Not normalised before the mean: a view counts as much as its feature is long.
    return Fusion(
        "mean of features over views, cosine",
        lambda tables, classes, logit_scale: F.normalize(tables["features"].mean(dim=1), dim=-1) @ classes.float().T,
        lambda scores: (PERCENT * scores).softmax(dim=-1),
        ("scores", "features"),
        gives_cosines=True,
    )


def _of_softmax(settings: EvalConfig) -> Fusion:
    return Fusion(
        "softmax of scaled scores per view, sum over views",
        lambda tables, classes, logit_scale: (logit_scale * tables["scores"]).softmax(dim=-1).sum(dim=1),
        lambda scores: scores / scores.sum(dim=-1, keepdim=True),
    )


# Values of eval.fusion: MoTE's close-set test, MoTE's zero-shot test, Text4Vis's tests, those of OST and ViFi-CLIP.
FUSIONS: dict[str, Callable[[EvalConfig], Fusion]] = {
    "probabilities": _of_probabilities,
    "cosines": _of_cosines,
    "features": _of_features,
    "softmax": _of_softmax,
}


def fusion_of(settings: EvalConfig, default: str) -> Fusion:
    """The rule that a configuration names, else ``default``.

    Raises:
        ValueError: there is no such rule.
    """
    name = settings.fusion or default
    check_choice("eval.fusion", name, FUSIONS)
    return FUSIONS[name](settings)
