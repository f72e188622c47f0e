"""CLIP with a space-time tower in the names of TVTSv2's checkpoints, as ours, and back.

A file is what the published trainer writes (``state_dict`` beside other entries), or has ``state_dict`` alone. There is
no logit scale: the published code compares with 100 times the cosine.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.weights.files import read_torch_file
from utils.weights.state_dicts import plain_names

STATE = "state_dict"
MARK = "video_model."
SORTER = "pred_model."  # the head that puts transcripts in order, which the published evaluation drops
LOGIT_SCALE, SCALE = "logit_scale", 100.0
# Beginnings of names: published, ours.
PREFIXES = {
    MARK: "visual.",
    "text_model.": "transformer.",
    "text_token_embedding.": "token_embedding.",
    "text_positional_embedding": "positional_embedding",
    "text_ln_final.": "ln_final.",
    "text_projection": "text_projection",
}
# Ends of names in the image tower: published, ours.
PARTS = {
    "attn.qkv.weight": "attn.in_proj_weight",
    "attn.qkv.bias": "attn.in_proj_bias",
    "attn.proj.weight": "attn.out_proj.weight",
    "attn.proj.bias": "attn.out_proj.bias",
}


class Unread(dict):
    """In the place of an object of the published program that a file holds: nothing of it is kept, nothing is run."""

    def __new__(cls, *args: Any) -> "Unread":
        return super().__new__(cls)

    def __init__(self, *args: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """What the object was made of is let go."""


PROGRAM = "parse_config"  # modules of the published program, whose objects its files may hold
# Names under which the trainer's configuration holds objects, and what they are read as.
STAND_INS = tuple(
    (Unread, name)
    for name in (
        "parse_config_dist_multi.ConfigParser",
        "parse_config.ConfigParser",
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib._local.PosixPath",
    )
)


def read_any(
    path: Path, problem: str, stand_ins: Sequence[tuple[type, str]] = (), programs: Collection[str] = ()
) -> Any:
    """As ``utils.weights.files.read_torch_file``; of TVTSv2's trainer, without the objects of its configuration.

    Raises:
        FileNotFoundError, ValueError: as there; other objects are named.
    """
    try:
        return read_torch_file(path, problem, stand_ins, programs)
    except ValueError as error:
        try:
            content = read_torch_file(path, problem, (*stand_ins, *STAND_INS))
        except ValueError as second:
            raise (second if PROGRAM in str(error) else error) from None
        if not is_tvts(content):
            raise
        return content


def is_tvts(content: Any) -> bool:
    """Whether a file is one of these: its names tell."""
    state = content.get(STATE, content) if isinstance(content, dict) else None
    return isinstance(state, dict) and any(isinstance(name, str) and MARK in name for name in state)


def from_tvts(state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The tensors under our names, with the logit scale, without the head of training.

    Raises:
        ValueError: a name that these models do not have, or two that become one.
    """
    ours: dict[str, Any] = {LOGIT_SCALE: torch.tensor(math.log(SCALE))}
    first: dict[str, str] = {}
    for name, value in plain_names(state, source).items():
        if name.startswith(SORTER):
            continue
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"{source}: a checkpoint of TVTSv2, but {name} is no part of its towers")
        our_name = PREFIXES[prefix] + _replaced_end(name.removeprefix(prefix), PARTS)
        if our_name in first:
            raise ValueError(f"{source}: {first[our_name]} and {name} are both {our_name}, expected one of them")
        ours[our_name], first[our_name] = value, name
    return ours


def to_tvts(state: Mapping[str, Tensor], source: str) -> "OrderedDict[str, Tensor]":
    """Tensors of our names under those of the published evaluation, without the logit scale.

    Raises:
        ValueError: the towers are others, or not complete.
    """
    published: OrderedDict[str, Tensor] = OrderedDict()
    theirs = {ours: name for name, ours in PREFIXES.items()}
    parts = {ours: name for name, ours in PARTS.items()}
    for name, value in state.items():
        if name == LOGIT_SCALE:
            continue
        prefix = next((prefix for prefix in theirs if name.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"{source}: {name} has no place in TVTSv2's format")
        end = name.removeprefix(prefix)
        published[theirs[prefix] + (_replaced_end(end, parts) if theirs[prefix] == MARK else end)] = value
    if missing := [name for name in ("video_model.temporal_embedding", "text_projection") if name not in published]:
        raise ValueError(f"{source}: TVTSv2's format is a space-time tower with its text tower, missing {missing[0]}")
    return published


def _replaced_end(name: str, ends: Mapping[str, str]) -> str:
    end = next((end for end in ends if name.endswith(end)), None)
    return name.removesuffix(end) + ends[end] if end else name
