"""From a name or a path to a loaded CLIP: OpenAI's models, open_clip tags, archives, state dicts."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.model import CLIP, CLIPConfig
from clip.towers import Towers
from clip.transformers_names import from_transformers, is_transformers_clip, read_transformers_config
from utils.weights.files import is_safetensors, read_safetensors, read_torch_file
from utils.weights.state_dicts import check_fit, check_weights, plain_names

logger = logging.getLogger(__name__)

# OpenAI's released ViTs: file and SHA-256, which is also a part of the address.
OPENAI_MODELS = {
    "ViT-B/32": ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "ViT-L/14": ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "ViT-L/14@336px": (
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
}
OPENAI_URL = "https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"

# Attention heads are 64 wide but for LAION's larger towers, which no tensor shape tells: width -> heads.
# The same towers use the exact GELU, all of OpenAI's the quick one.
WIDE_VISION_HEADS = {1280: 16, 1408: 16, 1664: 16}
HEAD_WIDTH = 64
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
# Tensors that tell the shapes of a CLIP, and their dimensions.
TELLING = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    "token_embedding.weight": 2,
    "positional_embedding": 2,
    "text_projection": 2,
}
# Of a model folder of transformers, the first that is there.
FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FOLDER_CONFIG = "config.json"


@dataclass(frozen=True)
class ClipWeights:
    """A state dict in OpenAI's names, and what its shapes cannot tell (None: by the rules above)."""

    state_dict: Mapping[str, Tensor]
    activation: str | None = None
    vision_heads: int | None = None
    text_heads: int | None = None
    is_activation_unknown: bool = False  # weights of several origins have these names


def load_clip(arch: str, visual_only: bool = False, **options) -> CLIP:
    """Load a CLIP in fp32 on the CPU.

    Args:
        arch: ``ViT-B/16`` and the like (downloaded once, checked by SHA-256, kept in ``$CLIP_CACHE``);
            an open_clip tag ``MODEL/PRETRAINED`` such as ``ViT-B-16/laion2b_s34b_b88k``; or a file: an
            OpenAI archive, a plain state dict or safetensors, with OpenAI's or transformers' names; or a folder of
            transformers.
        visual_only: leave the text tower at its random initialisation (published option ``init: False``).
        **options: fields of ``CLIPConfig`` to set, e.g. ``drop_path``.
    """
    weights = read_weights(arch)
    if weights.is_activation_unknown and "activation" not in options:
        logger.warning(
            "%s: transformers' names, without the config.json that tells the activation: quick_gelu is taken, which is "
            "OpenAI's; LAION's models need network.activation=gelu",
            arch,
        )
    config = replace(infer_config(weights, source=arch), **options)
    model = CLIP(config)
    expected, state = (
        {name: value for name, value in each.items() if name.startswith("visual.") or not visual_only}
        for each in (model.state_dict(), weights.state_dict)
    )
    for name in model.additions:  # trained from their initialisation
        expected.pop(name, None)
    check_fit(expected, state, f"{arch}: not a CLIP ViT,")
    model.load_state_dict(state, strict=False)  # in fp32, whatever the file has
    return model


# Towers by name; any other name is one that ``load_clip`` finds. A function takes those fields of ``CLIPConfig`` and
# ``visual_only`` that it has a meaning for, and gets what the configuration sets.
TOWERS: dict[str, Callable[..., Towers]] = {name: partial(load_clip, name) for name in OPENAI_MODELS}


def load_towers(arch: str, **options) -> Towers:
    """A pair of towers with its pretrained weights, in fp32 on the CPU; arguments and errors as of ``load_clip``."""
    return TOWERS[arch](**options) if arch in TOWERS else load_clip(arch, **options)


def read_weights(arch: str) -> ClipWeights:
    """Find and read the weights that ``arch`` names, see ``load_clip``."""
    if arch in OPENAI_MODELS:
        return _read_local(_download(arch))
    if Path(arch).is_file() or Path(arch, FOLDER_CONFIG).is_file():
        return _read_local(Path(arch))
    model_name, _, tag = arch.rpartition("/")
    if model_name and not Path(arch).suffix:
        return _read_open_clip(model_name, tag)
    raise FileNotFoundError(
        f"network.arch {arch!r}: no such file, and none of {', '.join(TOWERS)} "
        "or an open_clip tag such as ViT-B-16/laion2b_s34b_b88k"
    )


def infer_config(weights: ClipWeights, source: str = "weights") -> CLIPConfig:
    """Read a CLIPConfig off the tensor shapes.

    Raises:
        ValueError: the state dict is not that of a CLIP with a ViT.
    """
    state = weights.state_dict
    if missing := [name for name in TELLING if name not in state]:
        raise ValueError(f"{source}: not a CLIP ViT, missing {', '.join(missing)}")
    for name, ndim in TELLING.items():
        if state[name].ndim != ndim or not state[name].numel():
            found = list(state[name].shape)
            raise ValueError(f"{source}: not a CLIP ViT, {name} has the shape {found}, expected {ndim} dimensions")
    vision_width, _, patch_size, _ = state["visual.conv1.weight"].shape
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    text_width = state["token_embedding.weight"].shape[1]
    is_wide = vision_width in WIDE_VISION_HEADS
    first_mlp = state.get("visual.transformer.resblocks.0.mlp.c_fc.weight")
    vision_heads = weights.vision_heads or WIDE_VISION_HEADS.get(vision_width, vision_width // HEAD_WIDTH)
    text_heads = weights.text_heads or text_width // HEAD_WIDTH
    for tower, width, heads in (("image", vision_width, vision_heads), ("text", text_width, text_heads)):
        if not heads or width % heads:
            raise ValueError(
                f"{source}: the {tower} tower is {width} wide, which {heads or 'no'} attention heads do not share "
                f"(a head is {HEAD_WIDTH} wide)"
            )
    return CLIPConfig(
        embed_dim=state["visual.proj"].shape[1],
        image_size=grid * patch_size,
        patch_size=patch_size,
        vision_width=vision_width,
        vision_layers=_count_blocks(state, "visual.transformer.resblocks."),
        vision_heads=vision_heads,
        text_width=text_width,
        text_layers=_count_blocks(state, "transformer.resblocks."),
        text_heads=text_heads,
        vision_mlp=None if first_mlp is None or len(first_mlp) == 4 * vision_width else len(first_mlp),
        context_length=state["positional_embedding"].shape[0],
        vocab_size=state["token_embedding.weight"].shape[0],
        activation=weights.activation or ("gelu" if is_wide else "quick_gelu"),
    )


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({k[len(prefix) :].split(".")[0] for k in state if k.startswith(prefix)})


def cache_dir() -> Path:
    """Where downloaded weights are kept: ``$CLIP_CACHE``, else ``~/.cache/clip``."""
    return Path(os.environ.get("CLIP_CACHE", "~/.cache/clip")).expanduser()


def _download(name: str) -> Path:
    file, sha256 = OPENAI_MODELS[name]
    path = cache_dir() / file
    if path.exists():
        return path  # only a verified download gets this name
    path.parent.mkdir(parents=True, exist_ok=True)
    url = OPENAI_URL.format(sha256=sha256, file=file)
    try:
        # Writes beside the target, checks the hash, renames; shows a progress bar.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"could not download {name} from {url} ({error}); "
            f"fetch it elsewhere and put it at {path}, or give its path as network.arch"
        ) from error
    return path


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
    if missing := [name for name in TELLING if name not in state]:
        raise ValueError(f"{path}: not a CLIP ViT, missing {', '.join(missing)}")
    check_weights(state, str(path))
    return ClipWeights(state, **facts)


def _read_state(path: Path) -> dict[str, Any]:
    """The state dict in a file, without the prefixes of wrappers."""
    problem = f"{path}: not readable as CLIP weights"
    if path.is_file() and is_safetensors(path):
        state, _ = read_safetensors(path, problem)
    else:
        state = read_torch_file(path, problem)
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a state dict, found {type(state).__name__}")
    return plain_names(state, str(path))


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
    return ClipWeights(
        model.state_dict(),
        activation="quick_gelu" if quick_gelu else "gelu",
        vision_heads=vision.get("width", 0) // vision.get("head_width", HEAD_WIDTH) or None,
        text_heads=text.get("heads"),
    )
