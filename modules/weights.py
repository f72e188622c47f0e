"""A model's weights: out into a checkpoint, and from one into the model, averaged with the pretrained ones."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modules.formats.ours import PREFIXES, TRAIN_CLASS_FEATURES, joined, split
from utils.config import Config, to_yaml
from utils.weights.four_keys import HEAD, MERGED, MODEL

# Additions to CLIP have no pretrained value to be averaged with.
NOT_IN_CLIP = ("visual.time_embedding",)


def weights_of(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The two weight entries of a checkpoint, from a VideoCLIP."""
    return split(model.state_dict())


def load_weights(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    source: str,
    weight_average: float = 1.0,
    keep_train_classes: bool = False,
) -> None:
    """Load a checkpoint's weights into a VideoCLIP that holds CLIP's pretrained ones.

    Args:
        source: name of the checkpoint in errors.
        weight_average: CLIP's tensors become ``weight_average * checkpoint + (1 - weight_average) * model``.
            The published test uses 0.99 for ``visual.*`` and ``logit_scale``.
        keep_train_classes: keep the model's training-class features, for a start from another data set.

    Raises:
        ValueError: keys or shapes do not fit; it names them.
    """
    expected = model.state_dict()
    pretrained = split(expected)[MODEL]
    tuned, head = (dict(checkpoint[part]) for part in (MODEL, HEAD))
    if weight_average < 1.0:
        for name in tuned.keys() & pretrained.keys() - set(NOT_IN_CLIP):
            if tuned[name].shape == pretrained[name].shape:
                tuned[name] = _average(tuned[name].float(), pretrained[name].cpu(), weight_average)
    name = PREFIXES[HEAD] + TRAIN_CLASS_FEATURES
    if TRAIN_CLASS_FEATURES in head and name in expected:
        if keep_train_classes:
            head[TRAIN_CLASS_FEATURES] = expected[name]
        elif head[TRAIN_CLASS_FEATURES].ndim and len(head[TRAIN_CLASS_FEATURES]):  # any number of training classes fits
            expected[name] = expected[name].new_empty(len(head[TRAIN_CLASS_FEATURES]), expected[name].shape[1])
    state = joined({MODEL: tuned, HEAD: head})
    _check_fit(expected, state, source)
    if name in expected:
        setattr(model.head, TRAIN_CLASS_FEATURES, torch.empty_like(expected[name]))
    model.load_state_dict(state)


def _average(tuned: Tensor, pretrained: Tensor, share: float) -> Tensor:
    """``share * tuned + (1 - share) * pretrained``; equal tensors stay what they are, to the last bit.

    So the image tower of a head trained on cached features is the tower that the cache was made with.
    """
    return tuned if torch.equal(tuned, pretrained) else share * tuned + (1.0 - share) * pretrained


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise one error that lists what is missing, what is too much, and what has another shape."""
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name].shape)}, the configured model has {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(f"checkpoint {source} does not fit the configured model: {'; '.join(problems[:4])}{more}")


def config_of_tested(config: Config, checkpoint: Mapping[str, Any]) -> Config:
    """``config``; a merged checkpoint has plain FFNs and holds CLIP's share already."""
    if not checkpoint.get(MERGED):
        return config
    network, evaluation = replace(config.network, num_experts=0), replace(config.eval, weight_average=1.0)
    return replace(config, network=network, eval=evaluation)


def merged_checkpoint(model: nn.Module, checkpoint: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """A VideoCLIP with the weights of ``checkpoint`` as tests see them, written as a checkpoint with ordinary FFNs."""
    with model.merged_experts():
        weights = model.weights()
    merged = {"epoch": checkpoint.get("epoch", 0), **weights, "optimizer_state_dict": {}, MERGED: True}
    merged["config"] = to_yaml(config_of_tested(config, merged))
    class_names = checkpoint.get("class_names")
    return merged if class_names is None else {**merged, "class_names": class_names}
