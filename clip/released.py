"""OpenAI's released models: their names, and files that are downloaded once."""

import os
from pathlib import Path

import torch

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
OPENAI_URL = "https://openaipublic.azureedge.net/clip/models/{sha256}/{file}"


def cache_dir() -> Path:
    """Where downloaded weights are kept: ``$CLIP_CACHE``, else ``~/.cache/clip``."""
    return Path(os.environ.get("CLIP_CACHE", "~/.cache/clip")).expanduser()


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
