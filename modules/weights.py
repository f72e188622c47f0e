"""A model's weights: out into a checkpoint, and from one into the model, averaged with the pretrained ones."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from clip.shift import time_module_in
from clip.towers import STATISTICS, Towers
from modules.formats.ours import IN_MODEL, TRAIN_CLASS_FEATURES, joined, split
from modules.formats.published import text_tower
from modules.formats.vifi import TOKENS
from utils.config import Config, to_yaml
from utils.weights.four_keys import CLASSIFIER, HEAD, MERGED, MODEL, PROJECTION, SORTER
from utils.weights.state_dicts import check_fit

logger = logging.getLogger(__name__)

OPTIONAL = {SORTER: "sorter", PROJECTION: "projection"}  # parts of checkpoints that models may lack, and their names


def weights_of(system: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The weight entries of a checkpoint, from a system."""
    return split(system.state_dict(), IN_MODEL)


def load_text_tower(towers: Towers, checkpoint: Mapping[str, Any], source: str) -> None:
    """Put a checkpoint's own text tower, if it has one, in the place of the pretrained one.

    A model that drops its text tower keeps the class features of this one.

    Raises:
        ValueError: it is another text tower; names or shapes tell.
    """
    if not (found := text_tower(checkpoint[MODEL])):
        return
    expected = text_tower(towers.state_dict())
    found = _with_tokens(found, expected, source)
    check_fit(expected, found, f"checkpoint {source} does not fit network.arch: its text tower has")
    towers.load_state_dict(found, strict=False)


def load_weights(
    system: nn.Module,
    checkpoint: Mapping[str, Any],
    source: str,
    weight_average: float = 1.0,
    keep_train_classes: bool = False,
    with_classifier: bool = False,
) -> None:
    """Load a checkpoint's weights into a system whose towers hold the pretrained ones.

    Args:
        source: name of the checkpoint in errors.
        weight_average: the towers' tensors become ``weight_average * checkpoint + (1 - weight_average) * model``.
            The published test of MoTE uses 0.99 for image tower and logit scale.
        keep_train_classes: keep the model's training-class features, for a start from another data set.
        with_classifier: the system's classes are those of the checkpoint, and go on learning; else they stay.

    Raises:
        ValueError: keys or shapes do not fit; it names them.
    """
    _compare_statistics(system.towers, checkpoint.get("towers", {}), source)
    expected = system.state_dict()
    pretrained = split(expected, IN_MODEL)[MODEL]
    tuned, head = (dict(checkpoint[key]) for key in (MODEL, HEAD))
    if not text_tower(pretrained):  # it was dropped: class features are encoded, see ``load_text_tower``
        not_needed = text_tower(tuned)
        tuned = {name: value for name, value in tuned.items() if name not in not_needed}
    elif not text_tower(tuned):  # its model was trained with the pretrained one
        logger.info("%s brings no text tower: the pretrained one is taken", source)
        tuned |= text_tower(pretrained)
    else:
        tuned = _with_tokens(tuned, pretrained, source)
    if weight_average < 1.0:
        for name in tuned.keys() & pretrained.keys() - set(system.not_averaged):
            # A BatchNorm's counter, an integer, stays the checkpoint's.
            if tuned[name].shape == pretrained[name].shape and pretrained[name].is_floating_point():
                tuned[name] = _average(tuned[name].float(), pretrained[name].cpu(), weight_average)
    name = IN_MODEL[HEAD] + TRAIN_CLASS_FEATURES
    if TRAIN_CLASS_FEATURES in head and name in expected:
        if keep_train_classes:
            head[TRAIN_CLASS_FEATURES] = expected[name]
        elif head[TRAIN_CLASS_FEATURES].ndim and len(head[TRAIN_CLASS_FEATURES]):  # any number of training classes fits
            expected[name] = expected[name].new_empty(len(head[TRAIN_CLASS_FEATURES]), expected[name].shape[1])
    classifier = checkpoint if with_classifier else split(expected, IN_MODEL)
    tensors = {MODEL: tuned, HEAD: head, CLASSIFIER: classifier.get(CLASSIFIER, {})}
    for key, what in OPTIONAL.items():
        tensors[key] = _optional(key, what, split(expected, IN_MODEL).get(key, {}), checkpoint, source)
    problem = f"checkpoint {source} does not fit the configured model:"
    _check_time_module(tuned, pretrained, problem)
    check_fit(joined(split(expected, IN_MODEL)), joined(tensors), problem)  # by their names in files
    if name in expected:
        setattr(system.head, TRAIN_CLASS_FEATURES, torch.empty_like(expected[name]))
    system.load_state_dict(joined(tensors, IN_MODEL))


def _with_tokens(tuned: Mapping[str, Tensor], pretrained: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A text tower with a token embedding: the pretrained one, where it did not train and is not in the file."""
    if TOKENS in tuned or TOKENS not in pretrained:
        return dict(tuned)
    logger.info("%s brings no token embedding: the pretrained one is taken", source)
    return {**tuned, TOKENS: pretrained[TOKENS]}


def _optional(
    key: str, what: str, expected: Mapping[str, Tensor], checkpoint: Mapping[str, Any], source: str
) -> Mapping[str, Tensor]:
    """A part that not every model has: nothing, whatever the file brings; the model's own, where it brings none."""
    found = checkpoint.get(key, {})
    if not expected:
        if found and key == PROJECTION:
            logger.warning("%s brings a %s, which network.residual_projection 0 leaves out", source, what)
        return {}
    if not found:
        logger.info("%s brings no %s: a new one is trained", source, what)
        return expected
    check_fit(expected, found, f"checkpoint {source} does not fit the configured model: its {what} has")
    return found


def _check_time_module(tuned: Mapping[str, Tensor], pretrained: Mapping[str, Tensor], problem: str) -> None:
    """Another module between frames has other names throughout, which say less than its own."""
    found, expected = time_module_in(tuned), time_module_in(pretrained)
    if found != expected:
        found, expected = (f"network.tm {name}" if name else "ordinary ones" for name in (found, expected))
        raise ValueError(f"{problem} its image tower has the names of {found}, expected those of {expected}")


def _compare_statistics(towers: Towers, facts: Mapping[str, Any], source: str) -> None:
    """Warn where weights that were trained with some statistics of pixels are used with others."""
    now = {name: list(getattr(towers.spec, name)) for name in STATISTICS}
    told = {name: list(facts[name]) for name in STATISTICS if isinstance(facts.get(name), list | tuple)}
    now["resize"] = towers.spec.resize
    told |= {"resize": facts["resize"]} if isinstance(facts.get("resize"), str) else {}
    # As texts: a file may hold anything.
    if other := [name for name in told if str(told[name]) != str(now[name])]:
        differ = ", ".join(f"{name} {told[name]}, now {now[name]}" for name in other)
        logger.warning(
            "checkpoint %s was made with other statistics of pixels: %s (data.transforms has them)", source, differ
        )


def _average(tuned: Tensor, pretrained: Tensor, share: float) -> Tensor:
    """``share * tuned + (1 - share) * pretrained``; equal tensors stay what they are, to the last bit.

    So the image tower of a head trained on cached features is the tower that the cache was made with.
    """
    return tuned if torch.equal(tuned, pretrained) else share * tuned + (1.0 - share) * pretrained


def config_of_tested(config: Config, checkpoint: Mapping[str, Any]) -> Config:
    """``config``; a merged checkpoint has plain FFNs and holds CLIP's share already."""
    if not checkpoint.get(MERGED):
        return config
    network, evaluation = replace(config.network, num_experts=0), replace(config.eval, weight_average=1.0)
    return replace(config, network=network, eval=evaluation)


def merged_checkpoint(system: nn.Module, checkpoint: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """A system with the weights of ``checkpoint`` as tests see them, as a checkpoint with ordinary FFNs."""
    with system.for_tests():
        weights = system.weights()
    merged = {"epoch": checkpoint.get("epoch", 0), **weights, "optimizer_state_dict": {}, MERGED: True}
    merged["towers"] = asdict(system.towers.spec)
    merged["config"] = to_yaml(config_of_tested(config, merged))
    class_names = checkpoint.get("class_names")
    return merged if class_names is None else {**merged, "class_names": class_names}
