"""Checkpoints with our names: one state dict in the model and in safetensors, two in the four-key format.

``model_state_dict`` holds CLIP (``visual.*``, ``logit_scale``), ``fusion_model_state_dict`` the temporal head; in
safetensors these are ``clip.*`` and ``head.*``, in a system ``towers.*`` and ``head.*``. Where videos are compared with
vectors that no text tower makes, ``classifier_state_dict`` has them (``classifier.*``, ``classes.*``). What training
alone has is in ``sorter_state_dict`` (``sorter.*``), in the four-key format only; what is for its classes alone, in
``projection_state_dict`` (``projection.*``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clip.names.tvts import is_tvts, read_any
from modules.formats.tvts import checkpoint_from_tvts
from modules.formats.vifi import FORMAT, STAND_INS, from_vifi, is_vifi
from utils.files import no_file
from utils.weights.files import is_safetensors, is_torchscript, read_safetensors
from utils.weights.four_keys import CLASSIFIER, HEAD, MODEL, PROJECTION, SORTER, check_state_dicts, plain_content
from utils.weights.model_files import WEIGHTS_FILE, locate, read_facts

IN_FILES = {MODEL: "clip.", HEAD: "head.", CLASSIFIER: "classifier.", PROJECTION: "projection."}  # of safetensors
IN_MODEL = {MODEL: "towers.", HEAD: "head.", CLASSIFIER: "classes.", SORTER: "sorter.", PROJECTION: "projection."}
TEXT4VIS_HEAD = "fusion_model."  # before the head's names in Text4Vis's one state dict
TRAIN_CLASS_FEATURES = "spe_cls_feature"  # [K_train, D], belongs to the data set that the head was trained on
CLIP_HINT = "a CLIP is given as network.arch (or --arch of predict.py), a checkpoint of this project is expected here"


def split(state: Mapping[str, Tensor], prefixes: Mapping[str, str] = IN_FILES) -> dict[str, dict[str, Tensor]]:
    """The state dicts of the four-key format, from one; tensors with other prefixes are left out."""
    parts = {
        key: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for key, prefix in prefixes.items()
    }
    return {key: part for key, part in parts.items() if part or key in (MODEL, HEAD)}


def joined(content: Mapping[str, Any], prefixes: Mapping[str, str] = IN_FILES) -> dict[str, Tensor]:
    """One state dict, from those of the four-key format."""
    return {prefix + name: value for key, prefix in prefixes.items() for name, value in content.get(key, {}).items()}


def read_checkpoint(name: str | Path) -> dict[str, Any]:
    """Read a checkpoint, ours or a published one, on the CPU, as two state dicts; see ``read_content``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, damaged, or no checkpoint.
        ConnectionError: the Hub cannot be reached, and the model is not in its cache.
    """
    content = read_content(name)
    if isinstance(content, dict) and "visual.conv1.weight" in content:
        raise ValueError(f"checkpoint {name}: found the weights of CLIP alone; {CLIP_HINT}")
    if isinstance(content, dict) and content.get(MODEL) and isinstance(content[MODEL], dict) and HEAD not in content:
        content = split_text4vis(content)
    return check_state_dicts(content, f"checkpoint {name}")


def split_text4vis(content: Mapping[str, Any]) -> dict[str, Any]:
    """A Text4Vis checkpoint with its head in a state dict of its own."""
    state = content[MODEL]
    head = {k.removeprefix(TEXT4VIS_HEAD): v for k, v in state.items() if k.startswith(TEXT4VIS_HEAD)}
    towers = {k: v for k, v in state.items() if not k.startswith(TEXT4VIS_HEAD)}
    return {**content, MODEL: towers, HEAD: head, FORMAT: "text4vis"}


def read_content(name: str | Path) -> Any:
    """What a file holds, whatever that is; of OST, ViFi-CLIP and TVTSv2 with our names.

    Weights are finite, without the prefixes that wrappers put before names.

    Args:
        name: a file of torch.save or safetensors, a folder in the Hub's format, or ``hf://owner/name``.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: see ``read_checkpoint``.
    """
    path = locate(name)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"checkpoint {file}: {no_file(file)}")
    problem = f"checkpoint {file}: not readable"
    if file.suffix == ".safetensors" or (file.is_file() and is_safetensors(file)):
        tensors, metadata = read_safetensors(file, problem)
        if stray := sorted(name for name in tensors if not name.startswith(tuple(IN_FILES.values()))):
            expected = ", ".join(f"{prefix}*" for prefix in IN_FILES.values())
            raise ValueError(f"checkpoint {file}: expected tensors {expected}, found {', '.join(stray[:4])}")
        content = {"epoch": 0, **read_facts(path, metadata), **split(tensors), "optimizer_state_dict": {}}
    elif file.is_file() and is_torchscript(file):
        raise ValueError(f"checkpoint {file}: found a TorchScript archive, such as CLIP's own; {CLIP_HINT}")
    else:
        content = read_any(file, problem, STAND_INS)
        if is_vifi(content):
            content = from_vifi(content, f"checkpoint {name}")
        elif is_tvts(content):
            content = checkpoint_from_tvts(content, f"checkpoint {name}")
    return plain_content(content, f"checkpoint {name}")
