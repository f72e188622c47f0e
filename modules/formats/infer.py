"""The configuration of a checkpoint: what it carries, or what the shapes of its tensors tell."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.config import Config, load_config, parse_config
from utils.weights.four_keys import HEAD, MODEL

logger = logging.getLogger(__name__)

# Of OpenAI's ViTs: width, patch size and patches along an edge of the image tower.
ARCHS = {
    (768, 32, 7): "ViT-B/32",
    (768, 16, 14): "ViT-B/16",
    (1024, 14, 16): "ViT-L/14",
    (1024, 14, 24): "ViT-L/14@336px",
}
FUSION_WEIGHT = "transformer.resblocks.0.mlp.mote_fusion_weight"  # [E]


def resolve_config(
    checkpoint: Mapping[str, Any] | None,
    source: str,
    path: str | Path | None,
    settings: Mapping[str, Any],
    overrides: Sequence[str],
) -> Config:
    """The configuration file if one is given, else the checkpoint's own, else the one inferred.

    Args:
        checkpoint: see ``modules.formats.ours``; None: plain CLIP.
        source: the checkpoint's name in errors.
        path: YAML file.
        settings: keys and values laid over it.
        overrides: ``section.key=value``, laid over both.

    Raises:
        ValueError, FileNotFoundError: see ``utils.config`` and ``infer_settings``.
    """
    carried = (checkpoint or {}).get("config")
    inferred: Mapping[str, Any] = {}
    if checkpoint and not path and not isinstance(carried, str):
        inferred = infer_settings(checkpoint, source)
        logger.info("%s carries no configuration; its tensors say %s", source, inferred["network.arch"])
    laid_over = [f"{key}={json.dumps(value)}" for key, value in {**inferred, **settings}.items()] + list(overrides)
    if path:
        return load_config(path, laid_over)
    if isinstance(carried, str):
        return parse_config(carried, f"the configuration in {source}", laid_over)
    return parse_config("", "the default configuration", laid_over)


def infer_settings(checkpoint: Mapping[str, Mapping[str, Tensor]], source: str) -> dict[str, Any]:
    """Configuration keys and values that the weights of a checkpoint imply.

    Raises:
        ValueError: the image tower is none of OpenAI's.
    """
    clip, head = checkpoint[MODEL], checkpoint[HEAD]
    arch, input_size = _image_tower(clip, source)
    settings: dict[str, Any] = {
        "network.arch": arch,
        "data.input_size": input_size,
        "network.fix_text": "token_embedding.weight" not in clip,
    }
    if "visual.time_embedding" in clip:
        _check_ndim(clip, "visual.time_embedding", 2, source)
        settings |= {"network.joint_st": True, "data.num_segments": len(clip["visual.time_embedding"])}
    if not head:
        return settings | {"network.sim_header": "None"}
    blocks = {name.split(".")[2] for name in head if name.startswith("transformer.resblocks.")}
    if FUSION_WEIGHT in head:
        _check_ndim(head, FUSION_WEIGHT, 1, source)
    experts = head.get(FUSION_WEIGHT, ())
    return settings | {"network.temporal_layer": len(blocks), "network.num_experts": len(experts)}


def _image_tower(clip: Mapping[str, Tensor], source: str) -> tuple[str, int]:
    """Name and image size in pixels."""
    missing = [name for name in ("visual.conv1.weight", "visual.positional_embedding") if name not in clip]
    if missing:
        raise ValueError(f"checkpoint {source}: {MODEL} holds no CLIP, missing {', '.join(missing)}")
    _check_ndim(clip, "visual.conv1.weight", 4, source)
    _check_ndim(clip, "visual.positional_embedding", 2, source)
    width, _, patch_size, _ = clip["visual.conv1.weight"].shape
    grid = round((len(clip["visual.positional_embedding"]) - 1) ** 0.5)
    arch = ARCHS.get((width, patch_size, grid))
    if arch is None:
        raise ValueError(
            f"checkpoint {source} carries no configuration, and its image tower (width {width}, {grid} x {grid} "
            f"patches of {patch_size} pixels) is none of {', '.join(ARCHS.values())}; give its --config"
        )
    return arch, grid * patch_size


def _check_ndim(state: Mapping[str, Tensor], name: str, ndim: int, source: str) -> None:
    if state[name].ndim != ndim:
        raise ValueError(f"checkpoint {source}: {name} is {list(state[name].shape)}, expected {ndim} dimensions")
