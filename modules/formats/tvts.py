"""Checkpoints of TVTSv2: both towers in one state dict, in names of their own; see ``clip.names.tvts``.

Those of the trainer have the sorter, too, with which training may go on; it is never written.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clip.names.tvts import LOGIT_SCALE, SCALE, STATE, from_tvts, to_tvts
from clip.names.tvts import SORTER as SORTER_PREFIX
from modules.formats.vifi import FORMAT
from utils.config.pixels import IMAGENET
from utils.weights.four_keys import HEAD, MODEL, SORTER
from utils.weights.state_dicts import plain_names

TVTS = "tvts"  # the format; the system is ``tvtsv2``


def checkpoint_from_tvts(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A file of TVTSv2 with our names and keys; optimizer and configuration are not taken along.

    Raises:
        ValueError: see ``from_tvts``.
    """
    epoch = content.get("epoch", 0)
    told = {FORMAT: TVTS, "towers": {name: list(values) for name, values in IMAGENET.items()}}
    state = plain_names(content.get(STATE, content), source)
    sorter = {
        name.removeprefix(SORTER_PREFIX): value for name, value in state.items() if name.startswith(SORTER_PREFIX)
    }
    weights = {MODEL: from_tvts(state, source), HEAD: {}, **({SORTER: sorter} if sorter else {})}
    return {"epoch": epoch if type(epoch) is int else 0, **weights, "optimizer_state_dict": {}, **told}


def checkpoint_to_tvts(content: Mapping[str, Any], text: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Our checkpoint as a file that the published evaluation reads.

    Args:
        content: our checkpoint.
        text: tensors of the text tower that are not in it.

    Raises:
        ValueError: it has a head, another tower, or a logit scale other than 100, which is not stored.
    """
    if content[HEAD]:
        raise ValueError(f"{source} has a temporal head, which TVTSv2's format has no place for")
    state = {**content[MODEL], **text}
    scale = float(state[LOGIT_SCALE].exp()) if LOGIT_SCALE in state else SCALE
    if abs(scale - SCALE) > 0.01 * SCALE:  # CLIP's own are 100, but for the last bits of half precision
        raise ValueError(f"{source}: its logit scale is {scale:.1f}, and TVTSv2's is always {SCALE:.0f}")
    return {"epoch": content.get("epoch", 0), STATE: to_tvts(state, source)}


def is_told_tvts(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was read from a file of TVTSv2."""
    return content.get(FORMAT) == TVTS and not content.get(HEAD)
