"""From a name or a path to a loaded CLIP: OpenAI's models, open_clip tags, archives, state dicts."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from clip.model import CLIP
from clip.names.transformers import from_transformers, is_transformers_clip, read_transformers_config
from clip.names.tvts import STATE, from_tvts, is_tvts, read_any
from clip.released import OPENAI_MODELS, download
from clip.shapes import DIVIDED, HEAD_WIDTH, POOLED, ClipWeights, heads_of_width, infer_config, is_space_time, kind_of
from clip.shift import pretrained_name
from clip.towers import Towers
from utils.config import SAME_ARCHS
from utils.weights.files import is_safetensors, read_safetensors
from utils.weights.four_keys import HEAD, MODEL
from utils.weights.state_dicts import check_fit, check_weights, plain_names

logger = logging.getLogger(__name__)

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
# Of a model folder of transformers, the first that is there.
FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FOLDER_CONFIG = "config.json"


def load_clip(arch: str, visual_only: bool = False, head_width: int = 0, **options) -> CLIP:
    """Load a CLIP in fp32 on the CPU.

    Args:
        arch: ``ViT-B/16``, ``RN50`` and the like (downloaded once, checked by SHA-256, kept in ``$CLIP_CACHE``);
            an open_clip tag ``MODEL/PRETRAINED`` such as ``ViT-B-16/laion2b_s34b_b88k``; or a file: an
            OpenAI archive, a plain state dict or safetensors, with OpenAI's, transformers' or TVTSv2's names; or a
            folder of transformers.
        visual_only: leave the text tower at its random initialisation (published option ``init: False``).
        head_width: of an attention head in the image tower, which no shape tells; 0: as known, see ``clip.shapes``.
        **options: fields of ``CLIPConfig`` to set, e.g. ``drop_path``.

    Raises:
        FileNotFoundError, ValueError: no weights are there; they are none of a CLIP, or not of the tower asked for.
    """
    weights = read_weights(arch)
    if head_width:
        weights = replace(weights, vision_heads=heads_of_width(weights.state_dict, head_width, arch))
    if weights.is_activation_unknown and "activation" not in options:
        logger.warning(
            "%s: transformers' names, without the config.json that tells the activation: quick_gelu is taken, which is "
            "OpenAI's; LAION's models need network.activation=gelu",
            arch,
        )
    config = replace(infer_config(weights, source=arch), **options)
    if is_space_time(weights.state_dict) and config.tower != DIVIDED:
        raise ValueError(f"network.tower: expected {DIVIDED}, which {arch} is the weights of, found {config.tower}")
    model = CLIP(config)
    if head_width:
        model.facts["head_width"] = head_width
    # A temporal module may have changed names; the weights, which were made without it, have the plain ones.
    names = {pretrained_name(name): name for name in model.state_dict()}
    pretrained = {names.get(name, name): value for name, value in weights.state_dict.items()}
    expected, state = (
        {name: value for name, value in each.items() if name.startswith("visual.") or not visual_only}
        for each in (model.state_dict(), pretrained)
    )
    if is_space_time(weights.state_dict):
        model.additions = ()  # the weights have them
    for name in model.additions:  # trained from their initialisation
        expected.pop(name, None)
    check_fit(expected, state, f"{arch}: not a CLIP {kind_of(weights.state_dict, arch)},")
    model.load_state_dict(state, strict=False)  # in fp32, whatever the file has
    return model


# Towers by name; any other name is one that ``load_clip`` finds. A function takes those fields of ``CLIPConfig`` and
# ``visual_only`` that it has a meaning for, and gets what the configuration sets.
TOWERS: dict[str, Callable[..., Towers]] = {name: partial(load_clip, name) for name in OPENAI_MODELS}


def load_towers(arch: str, **options) -> Towers:
    """A pair of towers with its pretrained weights, in fp32 on the CPU; arguments and errors as of ``load_clip``."""
    name = SAME_ARCHS.get(arch, arch)
    return TOWERS[name](**options) if name in TOWERS else load_clip(name, **options)


def read_weights(arch: str) -> ClipWeights:
    """Find and read the weights that ``arch`` names, see ``load_clip``."""
    arch = SAME_ARCHS.get(arch, arch)
    if arch in OPENAI_MODELS:
        return _read_local(download(arch))
    if Path(arch).is_file() or Path(arch, FOLDER_CONFIG).is_file():
        return _read_local(Path(arch))
    model_name, _, tag = arch.rpartition("/")
    if model_name and not Path(arch).suffix:
        return _read_open_clip(model_name, tag)
    raise FileNotFoundError(
        f"network.arch {arch!r}: no such file, and none of {', '.join(TOWERS)} "
        "or an open_clip tag such as ViT-B-16/laion2b_s34b_b88k"
    )


def _read_local(path: Path) -> ClipWeights:
    """A file, or a folder of transformers, whose ``config.json`` also counts where it stands beside its file.

    Raises:
        FileNotFoundError, ValueError: not readable, not finite, or no CLIP.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        path = next((path / name for name in FOLDER_WEIGHTS if (path / name).is_file()), path / FOLDER_WEIGHTS[0])
    state = _read_state(path)
    facts: dict[str, Any] = {}
    if is_transformers_clip(state):
        facts["is_activation_unknown"] = True
        if path.name in FOLDER_WEIGHTS and (folder / FOLDER_CONFIG).is_file():
            facts = read_transformers_config(folder / FOLDER_CONFIG)
        check_weights({name: value for name, value in state.items() if not name.endswith("position_ids")}, str(path))
        state = from_transformers(state, str(path))
    # Three integers that OpenAI stored beside the weights; their values follow from the shapes.
    state = {name: value for name, value in state.items() if name not in OPENAI_EXTRAS}
    kind_of(state, str(path))  # a file of something else is told as such, before its values are looked at
    check_weights(state, str(path))
    return ClipWeights(state, **facts)


def _read_state(path: Path) -> dict[str, Any]:
    """The state dict in a file, without the prefixes of wrappers."""
    problem = f"{path}: not readable as CLIP weights"
    if path.is_file() and is_safetensors(path):
        state, _ = read_safetensors(path, problem)
    else:
        state = read_any(path, problem)
    if isinstance(state, dict):
        # Of a checkpoint in our format, too, where it holds a CLIP and nothing else.
        state = state.get(STATE, state.get(MODEL, state) if not state.get(HEAD) else state)
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a state dict, found {type(state).__name__}")
    return from_tvts(state, str(path)) if is_tvts(state) else plain_names(state, str(path))


def _read_open_clip(model_name: str, tag: str) -> ClipWeights:
    import open_clip

    if (model_name, tag) not in open_clip.list_pretrained():
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        unknown = f"open_clip knows no such model; known without it: {', '.join(TOWERS)}"
        hint = f"its tags are {', '.join(tags)}" if tags else unknown
        raise FileNotFoundError(f"network.arch '{model_name}/{tag}': no such file or open_clip tag; {hint}")
    model_config = open_clip.get_model_config(model_name)
    vision, text = model_config["vision_cfg"], model_config["text_cfg"]
    pretrained = open_clip.get_pretrained_cfg(model_name, tag)
    quick_gelu = pretrained.get("quick_gelu", model_config.get("quick_gelu", False))
    model = open_clip.create_model(model_name, pretrained=tag, force_quick_gelu=quick_gelu)
    attends = vision.get("width", 0) * (POOLED if isinstance(vision.get("layers"), list) else 1)  # a ResNet's stages
    return ClipWeights(
        model.state_dict(),
        activation="quick_gelu" if quick_gelu else "gelu",
        vision_heads=attends // vision.get("head_width", HEAD_WIDTH) or None,
        text_heads=text.get("heads"),
    )
