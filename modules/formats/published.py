"""The published checkpoint formats: how each is told from the others, and its key names in ours and back.

All of them keep CLIP's tensors under ``visual.*`` and ``logit_scale`` and a temporal head with the same block names:

- MoTE (and ours): two state dicts, the head's with ``spe_cls_feature`` and experts (``mlp.fc_up.e``, ``mlp.fc_dn.e``);
- BIKE: two state dicts, CLIP's with its text tower, the head's with plain FFNs;
- Text4Vis: one state dict, the head's names behind ``fusion_model.``; no text tower;
- OST, ViFi-CLIP, TVTSv2: see ``vifi.py`` and ``tvts.py``, which give them our names when they are read.

Ours adds entries beside the four that MoTE and BIKE have; ``merged`` is one of them.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modules.formats.ours import TEXT4VIS_HEAD, TRAIN_CLASS_FEATURES
from modules.formats.tvts import is_told_tvts
from modules.formats.vifi import FORMAT, FORMATS
from utils.weights.four_keys import HEAD, MERGED, MODEL, outline

PUBLISHED_KEYS = ("epoch", MODEL, HEAD, "optimizer_state_dict")
PUBLISHED_LAYERS = 6  # of a Text4Vis or BIKE head; their code has no other
PROJECTIONS = ("visual.proj", "visual.attnpool.c_proj.weight")  # of a ViT and of a ResNet, the last of the image tower
# Of CLIP; of towers that keep their text tower as a module of its own, the last.
TEXT_TOWER = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "text.")
# Parts of published models that are not read: part of a name, what it is.
FOREIGN = {
    "query_fc.": "BIKE's attribute branch",
    "sentence_fc.": "BIKE's attribute branch",
    "prompt_learner.": "a learned prompt, whose class names and their place in it are not told",
}


def format_of(content: Any, source: str) -> str:
    """``ours``, ``mote``, ``merged``, ``bike``, ``text4vis``, ``ost``, ``vificlip`` or ``tvts``.

    Raises:
        ValueError: none of them, or with parts that are not read.
    """
    if not isinstance(content, dict) or not isinstance(content.get(MODEL), dict):
        raise ValueError(f"{source}: expected a checkpoint with {MODEL}, found {outline(content)}")
    if not isinstance(content.get(HEAD, {}), dict):
        raise ValueError(f"{source}: expected tensors under {HEAD}, found {outline(content[HEAD])}")
    names = [*content[MODEL], *content.get(HEAD, ())]
    for mark, what in FOREIGN.items():
        if found := next((name for name in names if mark in name), None):
            raise ValueError(f"{source}: {found} belongs to {what}; it is not read")
    # What carries a configuration says by it what it is; towers of other libraries have names of their own.
    is_told = "config" in content and any(name.startswith("visual.") for name in names)
    if not is_told and not any(name in names for name in PROJECTIONS):
        found = outline(content[MODEL])
        raise ValueError(f"{source}: {MODEL} holds no image tower of CLIP ({' or '.join(PROJECTIONS)}), found {found}")
    if HEAD not in content:
        return "text4vis"
    if (is_told_vifi(content) or is_told_tvts(content)) and "config" not in content:
        return content[FORMAT]
    if MERGED in content:
        return "merged"
    if "config" in content:
        return "ours"
    return "mote" if TRAIN_CLASS_FEATURES in content[HEAD] or not has_text(content) else "bike"


def system_of(checkpoint: Mapping[str, Any]) -> str:
    """The system that published weights without a configuration are of, where it is not the default.

    Args:
        checkpoint: two state dicts, see ``modules.formats.ours.read_checkpoint``.
    """
    if is_told_tvts(checkpoint):
        return "tvtsv2"
    if is_told_vifi(checkpoint):
        return checkpoint[FORMAT]
    is_mote = TRAIN_CLASS_FEATURES in checkpoint[HEAD]
    is_text4vis = checkpoint.get(FORMAT) == "text4vis" or bool(checkpoint[HEAD]) or has_text(checkpoint)
    return "text4vis" if is_text4vis and not is_mote else ""


def is_told_vifi(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was read from a file of OST or ViFi-CLIP."""
    return isinstance(content.get(FORMAT), str) and content[FORMAT] in FORMATS and not content.get(HEAD)


def has_text(content: Mapping[str, Any]) -> bool:
    """Whether the text tower is in the checkpoint."""
    return "text_projection" in content[MODEL]


def text_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors of a CLIP's state dict."""
    return {name: value for name, value in state.items() if name.startswith(TEXT_TOWER)}


def join_text4vis(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint with the head behind ``fusion_model.``, as Text4Vis has it."""
    head = {TEXT4VIS_HEAD + name: value for name, value in plain_head(content, "Text4Vis").items()}
    return {"epoch": content.get("epoch", 0), MODEL: {**content[MODEL], **head}, "optimizer_state_dict": {}}


def join_bike(content: Mapping[str, Any], text: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint with the text tower beside the image tower, as BIKE has it."""
    weights = {MODEL: {**content[MODEL], **text}, HEAD: plain_head(content, "BIKE")}
    return {"epoch": content.get("epoch", 0), **weights, "optimizer_state_dict": {}}


def plain_head(content: Mapping[str, Any], target: str) -> dict[str, Tensor]:
    """The head as Text4Vis and BIKE know it: no class features, plain FFNs, six layers, or nothing at all.

    Raises:
        ValueError: it is not like that.
    """
    head = {name: value for name, value in content[HEAD].items() if name != TRAIN_CLASS_FEATURES}
    if expert := next((name for name in head if ".fc_up." in name), None):
        raise ValueError(f"{target} has no experts ({expert}): convert --to merged first")
    layers = {name.split(".")[2] for name in head if name.startswith("transformer.resblocks.")}
    if head and len(layers) != PUBLISHED_LAYERS:
        raise ValueError(f"{target}'s head has {PUBLISHED_LAYERS} layers, this one {len(layers)}")
    return head
