"""Checkpoints of OST and ViFi-CLIP: a whole tuned CLIP without head, in names of their own, beside a configuration.

``model`` has ``image_encoder.*``, ``text_encoder.*`` and ``logit_scale``, most often behind ``module.``; a file may be
that state dict alone. OST's has the token embedding. ViFi-CLIP does not train it and leaves it out: it is that of
``network.arch``. The moments of the optimizer, most of a released file, are not taken along.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clip.shift import time_module_in
from utils.config.pixels import IMAGENET
from utils.weights.four_keys import HEAD, MERGED, MODEL
from utils.weights.state_dicts import plain_names

logger = logging.getLogger(__name__)

OST, VIFICLIP = FORMATS = ("ost", "vificlip")
FORMAT = "format"  # entry of a checkpoint that was read: the published format, where its tensors do not tell any more
NUM_FRAMES = "num_frames"  # entry of a checkpoint that was read: T, where its configuration tells
STATE = "model"
ACCURACY = "max_accuracy"  # percent, of the best epoch; ours is ``best_top1``
WRAPPER = "module."  # which the published code expects
IMAGE, TEXT = "image_encoder.", "text_encoder."
OUR_IMAGE, OUR_SCALE = "visual.", "logit_scale"
TOKENS = "token_embedding.weight"
# Buffers of class texts: other classes have others.
DROPPED = ("complete_text_embeddings", "token_prefix", "token_suffix")
PROMPTS = ("prompt_learner.", "VPT")  # in names of what a prompting stage learned
# Names under which a file may hold objects, and what they are read as: the configuration, a mapping of mappings.
STAND_INS = ((OrderedDict, "yacs.config.CfgNode"),)


def is_vifi(content: Any) -> bool:
    """Whether a file is one of these formats."""
    if not isinstance(content, dict) or MODEL in content:
        return False
    state = content.get(STATE, content)
    return isinstance(state, dict) and any(isinstance(name, str) and IMAGE in name for name in state)


def from_vifi(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A published file with our names and keys, and what it tells beside its weights.

    Raises:
        ValueError: learned prompts, which have no counterpart here; two names that become one.
    """
    names = plain_names(content.get(STATE, content), source)
    names = {name: value for name, value in names.items() if name.rpartition("prompt_learner.")[2] not in DROPPED}
    if prompt := next((name for name in names if any(mark in name for mark in PROMPTS)), None):
        raise ValueError(f"{source}: {prompt} belongs to the learned prompts of ViFi-CLIP, which are not read")
    state: dict[str, Any] = {}
    for name, value in names.items():
        ours = OUR_IMAGE + name.removeprefix(IMAGE) if name.startswith(IMAGE) else name.removeprefix(TEXT)
        if ours in state:
            raise ValueError(f"{source}: {name} and another tensor are both {ours}, expected one of them")
        state[ours] = value
    config, told = content.get("config"), {}
    if type(accuracy := content.get(ACCURACY)) in (int, float):
        told["best_top1"] = accuracy
    if type(num_frames := _entry(config, "DATA", "NUM_FRAMES")) is int:
        told[NUM_FRAMES] = num_frames
    own = {FORMAT: _kind(state, config), "towers": {name: list(values) for name, values in IMAGENET.items()}}
    return {"epoch": content.get("epoch", 0), MODEL: state, HEAD: {}, "optimizer_state_dict": {}, **own, **told}


def _kind(state: Mapping[str, Any], config: Any) -> str:
    """Whose file it is: its configuration says it; else the token embedding does."""
    trainers = _entry(config, "TRAINER")
    if isinstance(trainers, Mapping) and len({"OST", "ViFi_CLIP"} & trainers.keys()) == 1:
        return OST if "OST" in trainers else VIFICLIP
    return OST if TOKENS in state else VIFICLIP


def _entry(config: Any, *keys: str) -> Any:
    """A value of a published configuration; None where it is not there."""
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def to_vifi(content: Mapping[str, Any], text: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """A file as the published code writes it, without configuration and optimizer.

    Args:
        content: our checkpoint.
        text: tensors of the text tower that are not in it.

    Raises:
        ValueError: it has more than the two towers of a plain ViT.
    """
    state = {**content[MODEL], **text}
    if content[HEAD]:
        raise ValueError(f"{source} has a temporal head, which OST's and ViFi-CLIP's format has no place for")
    if "visual.proj" not in state or "visual.time_embedding" in state or time_module_in(state):
        raise ValueError(f"{source}: expected the image tower of a plain ViT, which OST and ViFi-CLIP have alone")
    if content.get(MERGED):
        logger.warning("%s holds CLIP's share already: test it with MODEL.FUSE_WEIGHT_FOR_ORIGIN 0", source)
    published = OrderedDict((WRAPPER + _published(name), value) for name, value in state.items())
    accuracy = {ACCURACY: content["best_top1"]} if "best_top1" in content else {}
    return {STATE: published, "epoch": content.get("epoch", 0), **accuracy}


def _published(name: str) -> str:
    if name.startswith(OUR_IMAGE):
        return IMAGE + name.removeprefix(OUR_IMAGE)
    return name if name == OUR_SCALE else TEXT + name
