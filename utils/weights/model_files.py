"""Models to share: the content of a checkpoint as safetensors, alone or in a folder of the Hub's format.

The tensors are one state dict, with the names that the caller gives them. Everything else, the *facts* (epoch,
configuration, class names, whether the experts are merged), is JSON: in the metadata of a single file, in
``config.json`` beside ``model.safetensors`` of a folder.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import Tensor

from utils.files import whole_file, write_text
from utils.weights.files import SHA256_KEY, one_line, tensors_sha256
from utils.weights.four_keys import FACTS, check_facts

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


def write_model_file(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Write tensors and the facts in ``content``, a checkpoint, as one safetensors file."""
    # safetensors refuses tensors that share memory
    tensors = {name: value.contiguous().clone() for name, value in tensors.items()}
    metadata = {"format": "pt", FACTS_KEY: json.dumps(_facts(content))}
    metadata |= {SHA256_KEY: tensors_sha256(tensors, metadata)}
    with whole_file(path) as part:
        part.write_bytes(save(tensors, metadata=metadata))


def write_model_folder(folder: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``config.json`` (the facts, the configuration as a tree)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model_file(folder / WEIGHTS_FILE, tensors, content)
    facts = {"library_name": "mote", **_facts(content)}
    if "config" in facts:
        # JSON has no infinity; as text the configuration reads it back.
        tree = json.dumps(yaml.safe_load(facts["config"]))
        facts["config"] = json.loads(tree, parse_constant=lambda number: str(float(number)))
    write_text(folder / CONFIG_FILE, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def read_facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The facts of a model: of a file from its ``metadata``, of a folder from its ``config.json``.

    Raises:
        FileNotFoundError, ValueError: they are missing, not readable, or not ours.
    """
    if path.is_dir():
        return _facts(_read_config_file(path / CONFIG_FILE))
    try:
        facts = json.loads(metadata.get(FACTS_KEY, ""))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ValueError(f"checkpoint {path}: expected metadata under {FACTS_KEY!r}, which export.py writes")
    return _facts(facts)


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in FACTS if name in content}


def _read_config_file(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts, dict) and isinstance(facts.get("config"), dict):
            facts["config"] = yaml.safe_dump(facts["config"], sort_keys=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"checkpoint {path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: not JSON ({one_line(error)})") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("config", ""), str):
        raise ValueError(f"checkpoint {path}: expected keys {', '.join(FACTS)}")
    check_facts(facts, f"checkpoint {path}")
    return facts
