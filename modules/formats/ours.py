"""Checkpoints with our names: one state dict in the model and in safetensors, two in the four-key format.

``model_state_dict`` holds CLIP (``visual.*``, ``logit_scale``), ``fusion_model_state_dict`` the temporal head; in the
model and in safetensors these are ``clip.*`` and ``head.*``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.files import no_file
from utils.weights.files import is_torchscript, read_safetensors, read_torch_file
from utils.weights.four_keys import HEAD, MODEL, check_parts, plain_content
from utils.weights.model_files import is_model_file, locate, read_facts, weights_file

PREFIXES = {MODEL: "clip.", HEAD: "head."}
TRAIN_CLASS_FEATURES = "spe_cls_feature"  # [K_train, D], belongs to the data set that the head was trained on
CLIP_HINT = "a CLIP is given as network.arch (or --arch of predict.py), a checkpoint of this project is expected here"


def split(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The two state dicts of the four-key format, from the model's; others of its tensors are left out."""
    return {
        part: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for part, prefix in PREFIXES.items()
    }


def joined(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's state dict, from the two of the four-key format."""
    return {prefix + name: value for part, prefix in PREFIXES.items() for name, value in content[part].items()}


def read_checkpoint(name: str | Path) -> dict[str, Any]:
    """Read a checkpoint, ours or a published one, on the CPU; see ``read_content``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, damaged, or not in the four-key format.
        ConnectionError: the Hub cannot be reached, and the model is not in its cache.
    """
    content = read_content(name)
    if isinstance(content, dict) and "visual.conv1.weight" in content:
        raise ValueError(f"checkpoint {name}: found the weights of CLIP alone; {CLIP_HINT}")
    return check_parts(content, f"checkpoint {name}")


def read_content(name: str | Path) -> Any:
    """What a file holds, whatever that is. Weights are finite, without the prefixes that wrappers put before names.

    Args:
        name: a file of torch.save or safetensors, a folder in the Hub's format, or ``hf://owner/name``.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: see ``read_checkpoint``.
    """
    path = locate(name)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path}: {no_file(path)}")
    if is_model_file(path):
        content = _read_model(path)
    elif path.is_file() and is_torchscript(path):
        raise ValueError(f"checkpoint {path}: found a TorchScript archive, such as CLIP's own; {CLIP_HINT}")
    else:
        content = read_torch_file(path, f"checkpoint {path}: not readable")
    return plain_content(content, f"checkpoint {name}")


def _read_model(path: Path) -> dict[str, Any]:
    """The checkpoint in a safetensors file of ours, or in a folder with one and ``config.json``."""
    weights = weights_file(path)
    tensors, metadata = read_safetensors(weights, f"checkpoint {weights}: not readable")
    if stray := sorted(name for name in tensors if not name.startswith(tuple(PREFIXES.values()))):
        raise ValueError(f"checkpoint {weights}: expected tensors clip.* and head.*, found {', '.join(stray[:4])}")
    return {"epoch": 0, **read_facts(path, metadata), **split(tensors), "optimizer_state_dict": {}}
