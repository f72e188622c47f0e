"""Models to share: the content of a checkpoint as safetensors, alone or in a folder of the Hub's format.

Tensors have the names of a VideoCLIP's state dict (``clip.*``, ``head.*``). Everything else, the *facts* (epoch,
configuration, class names, whether the experts are merged), is JSON: in the metadata of a single file, in
``config.json`` beside ``model.safetensors`` of a folder.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save

from utils.files import whole_file, write_text
from utils.weights.files import SHA256_KEY, one_line, read_safetensors, tensors_sha256

CLIP_PREFIX, HEAD_PREFIX = "clip.", "head."
PREFIXES = {"model_state_dict": CLIP_PREFIX, "fusion_model_state_dict": HEAD_PREFIX}
FACTS = ("epoch", "merged", "config", "class_names")
FACTS_KEY = "mote"  # in the metadata of a single file
HUB = "hf://"
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
OWNER_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


def is_hub_id(name: str | Path) -> bool:
    """Whether ``name`` is a model on the Hub, ``hf://owner/name``."""
    return str(name).startswith(HUB)


def locate(name: str | Path) -> Path:
    """The local file or folder of a checkpoint; a model on the Hub is downloaded once.

    Raises:
        ConnectionError: the Hub cannot be reached, and the model is not in its cache.
        FileNotFoundError: the Hub has no such model, or does not show it.
        ValueError: not an ``owner/name``.
    """
    return _download(str(name).removeprefix(HUB)) if is_hub_id(name) else Path(name)


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    if not OWNER_NAME.fullmatch(model):
        raise ValueError(f"{HUB}{model}: expected {HUB}owner/name")
    try:
        return Path(snapshot_download(model, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except HFValidationError as error:
        raise ValueError(f"{HUB}{model}: {one_line(error)}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{HUB}{model}: no such model on the Hub, or not for your token") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"{HUB}{model}: not in the cache, and the Hub cannot be reached") from error
    except (OSError, HTTPError) as error:
        raise ConnectionError(f"{HUB}{model}: could not be downloaded ({one_line(error)})") from error


def upload(folder: Path, model: str) -> None:
    """Put ``folder`` on the Hub as the model ``owner/name``, which is made if there is none.

    Raises:
        ConnectionError: no network, no token, or no permission.
        ValueError: not an ``owner/name``.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    if not OWNER_NAME.fullmatch(model):
        raise ValueError(f"model {model!r} for the Hub: expected owner/name")
    try:
        HfApi().create_repo(model, exist_ok=True)
        HfApi().upload_folder(repo_id=model, folder_path=folder, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE, CARD_FILE])
    except (OSError, HTTPError) as error:
        raise ConnectionError(
            f"could not upload {folder} to {model} ({one_line(error)}); log in with `hf auth login` or set HF_TOKEN"
        ) from error


def write_model_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint's weights and facts as one safetensors file; what belongs to training is left out."""
    tensors = {
        prefix + name: value.contiguous().clone()  # safetensors refuses tensors that share memory
        for part, prefix in PREFIXES.items()
        for name, value in content[part].items()
    }
    facts = {name: content[name] for name in FACTS if name in content}
    metadata = {"format": "pt", FACTS_KEY: json.dumps(facts)}
    metadata |= {SHA256_KEY: tensors_sha256(tensors, metadata)}
    with whole_file(path) as part:
        part.write_bytes(save(tensors, metadata=metadata))


def write_model_folder(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``config.json`` (the facts, the configuration as a tree)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model_file(folder / WEIGHTS_FILE, content)
    facts = {name: content[name] for name in FACTS if name in content}
    facts |= {"config": _finite(yaml.safe_load(content["config"]))} if "config" in content else {}
    facts = {"library_name": "mote", **facts}
    write_text(folder / CONFIG_FILE, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def read_model_file(path: Path) -> dict[str, Any]:
    """The checkpoint in a safetensors file of ours, or in a folder with one and ``config.json``.

    Raises:
        FileNotFoundError, ValueError: a file is missing, not readable, or not ours; it is named.
    """
    is_folder = path.is_dir()
    weights = path / WEIGHTS_FILE if is_folder else path
    if not weights.exists():
        raise FileNotFoundError(f"checkpoint {weights}: no such file")
    tensors, metadata = read_safetensors(weights, f"checkpoint {weights}: not readable")
    if stray := sorted(name for name in tensors if not name.startswith((CLIP_PREFIX, HEAD_PREFIX))):
        raise ValueError(f"checkpoint {weights}: expected tensors clip.* and head.*, found {', '.join(stray[:4])}")
    facts = _read_config_file(path / CONFIG_FILE) if is_folder else _parse_facts(metadata, weights)
    parts = {
        part: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for part, prefix in PREFIXES.items()
    }
    return {"epoch": 0, **facts, **parts, "optimizer_state_dict": {}}


def check_facts(content: Mapping[str, Any], source: str) -> None:
    """See that what a checkpoint says beside its tensors has the types that it is used with.

    Raises:
        ValueError: it names the entry.
    """
    expected = {
        "epoch": "an integer",
        "merged": "true or false",
        "config": "YAML text",
        "class_names": "a list of texts",
    }
    fits = {
        "epoch": lambda value: type(value) is int,
        "merged": lambda value: type(value) is bool,
        "config": lambda value: isinstance(value, str),
        "class_names": lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
    }
    for name in FACTS:
        if name in content and not fits[name](content[name]):
            found = f"{type(content[name]).__name__} {str(content[name])[:40]!r}"
            raise ValueError(f"{source}: {name}: expected {expected[name]}, found {found}")


def _parse_facts(metadata: Mapping[str, str], source: Path) -> dict[str, Any]:
    try:
        facts = json.loads(metadata.get(FACTS_KEY, ""))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ValueError(f"checkpoint {source}: expected metadata under {FACTS_KEY!r}, which export.py writes")
    return {name: facts[name] for name in FACTS if name in facts}


def _read_config_file(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts, dict) and isinstance(facts.get("config"), dict):
            facts["config"] = yaml.safe_dump(facts["config"], sort_keys=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"checkpoint {path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: not JSON ({one_line(error)})") from None
    except RecursionError:
        raise ValueError(f"checkpoint {path}: nested too deeply") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("config", ""), str):
        raise ValueError(f"checkpoint {path}: expected keys {', '.join(FACTS)}")
    check_facts(facts, f"checkpoint {path}")
    return {name: facts[name] for name in FACTS if name in facts}


def _finite(tree: Any) -> Any:
    """JSON has no infinity; as text the configuration reads it back."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree
