"""From a name or a path to a loaded CLIP: OpenAI's models, open_clip tags, archives, state dicts."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from clip.model import CLIP
from clip.names.open_clip import Described, describe, plain_weights
from clip.names.transformers import from_transformers, is_transformers_clip, read_transformers_config
from clip.released import OPENAI_MODELS, download, read_state, size_of
from clip.shapes import DIVIDED, ClipWeights, heads_of_width, infer_config, is_space_time, kind_of
from clip.shift import pretrained_name
from clip.towers import Towers
from utils.config import SAME_ARCHS
from utils.config.pixels import OWN_RESIZE, rule_name
from utils.weights.state_dicts import check_fit, check_weights

logger = logging.getLogger(__name__)

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
# Of a model folder of transformers, the first that is there.
FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FOLDER_CONFIG = "config.json"


def load_clip(arch: str, visual_only: bool = False, head_width: int = 0, **options) -> CLIP:
    """Load a CLIP in fp32 on the CPU.

    Args:
        arch: ``ViT-B/16``, ``RN50`` and the like (downloaded once, checked by SHA-256, kept in ``$CLIP_CACHE``);
            a model of open_clip that is of OpenAI's kind, see ``clip.names.open_clip``; or a file: an
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
    model.set_spec(replace(model.spec, **weights.rules))
    model.has_narrow_cone = weights.is_openai
    return model


# Towers by name; any other name is one that ``load_clip`` finds. A function takes those fields of ``CLIPConfig`` and
# ``visual_only`` that it has a meaning for, and gets what the configuration sets.
TOWERS: dict[str, Callable[..., Towers]] = {name: partial(load_clip, name) for name in OPENAI_MODELS}


def load_towers(arch: str, **options) -> Towers:
    """A pair of towers with its pretrained weights, in fp32 on the CPU; arguments and errors as of ``load_clip``.

    Args:
        arch: as of ``load_clip``, or any other model of open_clip, see ``clip.names.open_clip``.
    """
    name = SAME_ARCHS.get(arch, arch)
    if name in TOWERS:
        return TOWERS[name](**options)
    found = _described(name)
    if found is None or found.is_plain:
        return load_clip(name, **options)
    from clip.open_clip_tower import load_open_clip  # here, since timm takes seconds to import

    return load_open_clip(found, **options)


class Pictures(NamedTuple):
    """What is known of a tower's pictures before its weights are read."""

    size: int  # pixels along an edge; 0: only the weights tell
    resize: str  # a key of ``utils.config.pixels.RESIZES``


def pictures_of(arch: str) -> Pictures:
    """The pictures that a tower takes.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: see ``clip.names.open_clip.describe``.
    """
    name = SAME_ARCHS.get(arch, arch)
    found = None if name in TOWERS else _described(name)
    return Pictures(found.image_size, rule_name(**found.rules)) if found else Pictures(size_of(name), OWN_RESIZE)


def _described(name: str) -> Described | None:
    is_file = Path(name).is_file() or Path(name, FOLDER_CONFIG).is_file()
    return None if is_file else describe(name)


def read_weights(arch: str) -> ClipWeights:
    """Find and read the weights that ``arch`` names, see ``load_clip``."""
    arch = SAME_ARCHS.get(arch, arch)
    if arch in OPENAI_MODELS:
        return _read_local(download(arch))
    if Path(arch).is_file() or Path(arch, FOLDER_CONFIG).is_file():
        return _read_local(Path(arch))
    if found := describe(arch):
        if found.is_plain:
            return plain_weights(found)
        raise ValueError(f"network.arch {arch}: not of OpenAI's kind, which is needed here")
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
    state = read_state(path)
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
