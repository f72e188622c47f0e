"""The settings that the shapes of a checkpoint's tensors tell."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from utils.weights.four_keys import HEAD, MODEL

# Of OpenAI's ViTs: width, patch size and patches along an edge of the image tower.
ARCHS = {
    (768, 32, 7): "ViT-B/32",
    (768, 16, 14): "ViT-B/16",
    (1024, 14, 16): "ViT-L/14",
    (1024, 14, 24): "ViT-L/14@336px",
}
FUSION_WEIGHT = "transformer.resblocks.0.mlp.mote_fusion_weight"  # [E]


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
