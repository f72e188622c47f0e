"""CLIP in the names of Hugging Face's transformers, as OpenAI's: state dict and ``config.json``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.files import read_json

MARK = "vision_model.embeddings.patch_embedding.weight"
ACTIVATIONS = ("quick_gelu", "gelu")
# Of the whole model: transformers' name, OpenAI's. "layrnorm" is transformers' own spelling.
NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
BLOCK = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def is_transformers_clip(state: Mapping[str, Any]) -> bool:
    """Whether the tensors of a CLIP have transformers' names."""
    return MARK in state


def from_transformers(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under OpenAI's names; query, key and value are one matrix there, projections are transposed.

    Raises:
        ValueError: a name that a CLIP does not have, or one of query, key and value is missing.
    """
    ours: dict[str, Tensor] = {}
    joint: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        block = BLOCK.fullmatch(name)
        if name.endswith(".position_ids"):  # 0, 1, 2, ...
            continue
        if name in NAMES:
            ours[NAMES[name]] = value
        elif name in TRANSPOSED:
            ours[TRANSPOSED[name]] = value.T
        elif block and block[3] in (*PARTS, *QKV):
            tower, layer, part, kind = block.groups()
            prefix = f"{'visual.' * (tower == 'vision')}transformer.resblocks.{layer}."
            if part in PARTS:
                ours[f"{prefix}{PARTS[part]}.{kind}"] = value
            else:
                joint.setdefault(f"{prefix}attn.in_proj_{kind}", {})[part] = value
        else:
            raise ValueError(f"{source}: a CLIP of transformers, but {name} is no part of a CLIP ViT")
    for name, parts in joint.items():
        if missing := [part for part in QKV if part not in parts]:
            raise ValueError(f"{source}: a CLIP of transformers, {missing[0]} is missing for {name}")
        ours[name] = torch.cat([parts[part] for part in QKV])
    return ours


def read_transformers_config(path: Path) -> dict[str, Any]:
    """What ``config.json`` says that shapes do not: ``activation``, ``vision_heads`` and ``text_heads``.

    Raises:
        ValueError: not the configuration of a CLIP, or of one whose parts are computed otherwise here.
    """
    config = read_json(path, "the configuration of a CLIP")
    towers = [config.get(key) for key in ("vision_config", "text_config")]
    if config.get("model_type") != "clip" or not all(isinstance(tower, dict) for tower in towers):
        raise ValueError(f"{path}: not the configuration of a CLIP, expected model_type clip with two towers")
    activations = [tower.get("hidden_act", "quick_gelu") for tower in towers]
    heads = [tower.get("num_attention_heads", default) for tower, default in zip(towers, (12, 8), strict=True)]
    if activations[0] != activations[1] or activations[0] not in ACTIVATIONS:
        raise ValueError(f"{path}: hidden_act: expected {' or '.join(ACTIVATIONS)} in both towers, found {activations}")
    if any(type(count) is not int or count < 1 for count in heads):
        raise ValueError(f"{path}: num_attention_heads: expected positive integers, found {heads}")
    return {"activation": activations[0], "vision_heads": heads[0], "text_heads": heads[1]}
