"""The settings that the shapes of a checkpoint's tensors tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clip.resnet import STAGES, STRIDE
from clip.shapes import DIVIDED, TEMPORAL, count_blocks
from clip.shift import time_module_in
from modules.formats.tvts import is_told_tvts
from modules.formats.vifi import NUM_FRAMES
from utils.weights.four_keys import HEAD, MODEL

# Of OpenAI's ViTs: width, patch size and patches along an edge of the image tower.
ARCHS = {
    (768, 32, 7): "ViT-B/32",
    (768, 16, 14): "ViT-B/16",
    (1024, 14, 16): "ViT-L/14",
    (1024, 14, 24): "ViT-L/14@336px",
}
LAION = {(1280, 14, 16): "ViT-H-14/laion2b_s32b_b79k"}  # that TVTSv2 begins at
# Of OpenAI's ResNets: width of the stem, blocks of each stage, and places along an edge of the last layer.
RESNETS = {
    (64, (3, 4, 6, 3), 7): "RN50",
    (64, (3, 4, 23, 3), 7): "RN101",
    (80, (4, 6, 10, 6), 9): "RN50x4",
    (96, (6, 8, 18, 8), 12): "RN50x16",
    (128, (3, 15, 36, 10), 14): "RN50x64",
}
TELLING_VIT = {"visual.conv1.weight": 4, "visual.positional_embedding": 2}  # names and dimensions
POOL = "visual.attnpool.positional_embedding"
FUSION_WEIGHT = "transformer.resblocks.0.mlp.mote_fusion_weight"  # [E]


def infer_settings(checkpoint: Mapping[str, Mapping[str, Tensor]], source: str) -> dict[str, Any]:
    """Configuration keys and values that the weights of a checkpoint imply.

    Raises:
        ValueError: the image tower is none of OpenAI's.
    """
    clip, head = checkpoint[MODEL], checkpoint[HEAD]
    if is_told_tvts(checkpoint):
        return _tvts(clip, source)
    arch, input_size = _image_tower(clip, source)
    settings: dict[str, Any] = {
        "network.arch": arch,
        "data.input_size": input_size,
        "network.fix_text": "text_projection" not in clip,
    }
    if type(num_frames := checkpoint.get(NUM_FRAMES)) is int:
        settings["data.num_segments"] = num_frames
    if time_module := time_module_in(clip):
        settings["network.tm"] = time_module
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


def _tvts(clip: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Of a file of TVTSv2, which has both towers whole: it is the network.arch, too, and needs no other weights."""
    if missing := [name for name in (*TELLING_VIT, TEMPORAL) if name not in clip]:
        raise ValueError(f"checkpoint {source}: {MODEL} holds no space-time tower, missing {', '.join(missing)}")
    _check_ndim(clip, TEMPORAL, 2, source)
    width, patch_size, grid = _shapes_of_vit(clip, source)
    return {
        "network.arch": source if Path(source).is_file() else {**ARCHS, **LAION}.get((width, patch_size, grid), source),
        "network.tower": DIVIDED,
        "data.input_size": grid * patch_size,
        "data.num_segments": len(clip[TEMPORAL]),
    }


def _image_tower(clip: Mapping[str, Tensor], source: str) -> tuple[str, int]:
    """Name and image size in pixels."""
    if POOL in clip:
        return _resnet(clip, source)
    if missing := [name for name in TELLING_VIT if name not in clip]:
        raise ValueError(f"checkpoint {source}: {MODEL} holds no CLIP, missing {', '.join(missing)}")
    width, patch_size, grid = _shapes_of_vit(clip, source)
    arch = ARCHS.get((width, patch_size, grid))
    if arch is None:
        raise ValueError(
            f"checkpoint {source} carries no configuration, and its image tower (width {width}, {grid} x {grid} "
            f"patches of {patch_size} pixels) is none of {', '.join(ARCHS.values())}; give its --config"
        )
    return arch, grid * patch_size


def _shapes_of_vit(clip: Mapping[str, Tensor], source: str) -> tuple[int, int, int]:
    """Width, patch size and patches along an edge."""
    for name, ndim in TELLING_VIT.items():
        _check_ndim(clip, name, ndim, source)
    width, _, patch_size, _ = clip["visual.conv1.weight"].shape
    return width, patch_size, round((len(clip["visual.positional_embedding"]) - 1) ** 0.5)


def _resnet(clip: Mapping[str, Tensor], source: str) -> tuple[str, int]:
    """Name and image size in pixels."""
    for name, ndim in (("visual.conv3.weight", 4), (POOL, 2)):
        if name not in clip:
            raise ValueError(f"checkpoint {source}: {MODEL} holds no CLIP, missing {name}")
        _check_ndim(clip, name, ndim, source)
    width, grid = len(clip["visual.conv3.weight"]), round((len(clip[POOL]) - 1) ** 0.5)
    layers = tuple(count_blocks(clip, f"visual.layer{stage + 1}.") for stage in range(STAGES))
    arch = RESNETS.get((width, layers, grid))
    if arch is None:
        raise ValueError(
            f"checkpoint {source} carries no configuration, and its image tower (a ResNet of {list(layers)} blocks, "
            f"width {width}, for {grid * STRIDE} pixels) is none of {', '.join(RESNETS.values())}; give its --config"
        )
    return arch, grid * STRIDE


def _check_ndim(state: Mapping[str, Tensor], name: str, ndim: int, source: str) -> None:
    if state[name].ndim != ndim:
        raise ValueError(f"checkpoint {source}: {name} is {list(state[name].shape)}, expected {ndim} dimensions")
