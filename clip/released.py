"""Files of weights: OpenAI's released models, which are downloaded once, and the state dict in any file."""

import os
from pathlib import Path
from typing import Any

import torch

from clip.names.tvts import STATE, from_tvts, is_tvts, read_any
from utils.weights.files import is_safetensors, read_safetensors
from utils.weights.four_keys import HEAD, MODEL
from utils.weights.state_dicts import plain_names

# OpenAI's released models: file and SHA-256, which is also a part of the address.
OPENAI_MODELS = {
    "ViT-B/32": ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "ViT-L/14": ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "ViT-L/14@336px": (
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
    "RN50": ("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    "RN101": ("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    "RN50x4": ("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    "RN50x16": ("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    "RN50x64": ("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
}
LARGER = {"ViT-L/14@336px": 336, "RN50x4": 288, "RN50x16": 384, "RN50x64": 448}  # pixels; all others: 224
OPENAI_URL = "https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"


def cache_dir() -> Path:
    """Where downloaded weights are kept: ``$CLIP_CACHE``, else ``~/.cache/clip``."""
    return Path(os.environ.get("CLIP_CACHE", "~/.cache/clip")).expanduser()


def size_of(name: str) -> int:
    """Pixels along an edge of the pictures of a released model; 0: it is none."""
    return LARGER.get(name, 224) if name in OPENAI_MODELS else 0


def download(name: str) -> Path:
    """The file of a released model, downloaded where it is not there yet.

    Raises:
        ConnectionError: it cannot be had; says where to put it.
    """
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


def read_state(path: Path) -> dict[str, Any]:
    """The state dict in a file of CLIP weights, without the prefixes of wrappers.

    OpenAI's own archives are TorchScript, which runs when it is opened: they are told by their SHA-256.

    Raises:
        FileNotFoundError, ValueError: not readable, another archive, or no state dict.
    """
    problem = f"{path}: not readable as CLIP weights"
    if path.is_file() and is_safetensors(path):
        state, _ = read_safetensors(path, problem)
    else:
        state = read_any(path, problem, programs={sha256 for _, sha256 in OPENAI_MODELS.values()})
    if isinstance(state, dict):
        # Of a checkpoint in our format, too, where it holds a CLIP and nothing else.
        state = state.get(STATE, state.get(MODEL, state) if not state.get(HEAD) else state)
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a state dict, found {type(state).__name__}")
    return from_tvts(state, str(path)) if is_tvts(state) else plain_names(state, str(path))
