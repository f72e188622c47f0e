"""What stands for a class in the place of its texts: the classifiers that Text4Vis compares with; learned prompts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pydantic import Field, StrictBool, StrictInt
from torch import Tensor

from clip.towers import Towers
from modules.classes.base import Classes
from modules.classes.prompts import LearnedPrompts
from modules.classes.vector_files import read_vectors
from modules.classes.vectors import (
    KEY,
    MOST_NAMED,
    Vectors,
    lda_vectors,
    linear_vectors,
    orthogonal_vectors,
    random_vectors,
)
from utils.config import Text, settings
from utils.weights.four_keys import CLASSIFIER

# Of the training list: features [N, D] of the frozen image tower, the mean over a video's frames, and labels int64 [N].
TrainFeatures = Callable[[], tuple[Tensor, Tensor]]


@settings
class ClassifierSettings:
    """Which classifier; a part of a system's section."""

    classifier: Text = "text"  # text, or a name of CLASSIFIERS
    classifier_trainable: StrictBool = False  # its vectors learn; those of linear and prompt always do
    # Of a learned prompt: how many vectors, where the class name stands among them, and whether classes share them.
    prompt_length: StrictInt = Field(16, ge=1, le=64)
    prompt_position: Text = "end"
    prompt_per_class: StrictBool = False


class Asked(NamedTuple):
    """What a classifier is made from."""

    settings: ClassifierSettings
    towers: Towers
    class_names: list[str]
    seed: int
    train_features: TrainFeatures | None

    @property
    def shape(self) -> tuple[int, int]:
        """[K, D]"""
        return len(self.class_names), self.towers.spec.embed_dim


def _lda(asked: Asked) -> Tensor:
    if asked.train_features is None:
        raise ValueError(f"{KEY}: lda is made from the training videos; train first, the checkpoint then holds it")
    return lda_vectors(*asked.train_features(), asked.class_names)


def _file(asked: Asked) -> Tensor:
    path = asked.settings.classifier.partition(":")[2]
    return read_vectors(path, asked.class_names, asked.towers.spec.embed_dim)


# Names of text4vis.classifier beside text (file stands for file:PATH) -> vectors [K, D], not normalised.
CLASSIFIERS: dict[str, Callable[[Asked], Tensor]] = {
    "random": lambda asked: random_vectors(*asked.shape, asked.seed),
    "orthogonal": lambda asked: orthogonal_vectors(*asked.shape, asked.seed),
    "lda": _lda,
    "linear": lambda asked: linear_vectors(*asked.shape, asked.seed),
    "file": _file,
    "prompt": lambda asked: torch.empty(0),  # see ``LearnedPrompts``
}
LEARNED = ("linear",)


def build_classifier(
    settings: ClassifierSettings,
    towers: Towers,
    class_names: list[str],
    seed: int,
    checkpoint: Mapping[str, Any],
    train_features: TrainFeatures | None,
) -> Classes:
    """The classifier of a checkpoint, or if it has none a new one.

    Raises:
        ValueError: it cannot be made, or the checkpoint's is not one of these classes.
    """
    name = settings.classifier.partition(":")[0]
    if name == "prompt":
        position, per_class = settings.prompt_position, settings.prompt_per_class
        prompts = LearnedPrompts(towers, class_names, settings.prompt_length, position, per_class, seed)
        if CLASSIFIER in checkpoint:
            context = known_rows(checkpoint, "ctx", class_names) if per_class else checkpoint[CLASSIFIER].get("ctx")
            prompts.load_context(context)
        return prompts
    if CLASSIFIER in checkpoint:
        vectors = known_rows(checkpoint, "vectors", class_names)
    else:
        vectors = CLASSIFIERS[name](Asked(settings, towers, class_names, seed, train_features))
    return Vectors(vectors, settings.classifier_trainable or name in LEARNED)


def known_rows(checkpoint: Mapping[str, Any], name: str, class_names: list[str]) -> Tensor:
    """Rows of a checkpoint's classifier, in the order of ``class_names``.

    Args:
        name: of the tensor, [K', ...] for the checkpoint's K' classes.

    Raises:
        ValueError: it is not there, or not for these classes.
    """
    rows, names = checkpoint[CLASSIFIER].get(name), list(checkpoint.get("class_names", ()))
    if rows is None or not rows.ndim or len(rows) != len(names):
        found = "none" if rows is None else f"the shape {list(rows.shape)} for {len(names)} class names"
        raise ValueError(f"{KEY}: expected {name} in the checkpoint, a row for each of its class names, found {found}")
    places = {name: place for place, name in enumerate(names)}
    if missing := [name for name in class_names if name not in places]:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise ValueError(
            f"{KEY}: the checkpoint's classifier knows the classes of its training only, not "
            f"{', '.join(map(repr, missing[:MOST_NAMED]))}{more}; text makes classes of any name"
        )
    return rows[torch.tensor([places[name] for name in class_names])]
