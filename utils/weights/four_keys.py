"""The four-key format of checkpoints: two state dicts, ``epoch`` and ``optimizer_state_dict``, and ours beside them.

What the names of tensors in the two mean is the model's business. ``model_files.py`` keeps the same content as
safetensors.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from utils.files import whole_file
from utils.weights.files import read_torch_file
from utils.weights.state_dicts import plain_weights

MODEL, HEAD = PARTS = ("model_state_dict", "fusion_model_state_dict")
# Entry of a checkpoint whose experts are merged and whose weights are averaged with the pretrained ones.
MERGED = "merged"
# What is kept with weights that are shared: what it is, and whether a value can be it.
FACTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "epoch": ("an integer", lambda value: type(value) is int),
    MERGED: ("true or false", lambda value: type(value) is bool),
    "config": ("YAML text", lambda value: isinstance(value, str)),
    "class_names": (
        "a list of texts",
        lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
    ),
}
WRITER = "inline_container"  # the part of torch that reports a full disk, as a RuntimeError


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values so that ``path`` always holds a complete file, old or new.

    Raises:
        OSError: it could not be written, on a full disk for example; what was there before is intact.
    """
    try:
        with whole_file(path) as part, part.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch reports that its file is too short; why stands in the error before.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) and WRITER not in str(error):
            raise
        reason = getattr(cause, "strerror", None) or str(error).split("\n")[0]
        raise OSError(f"could not write {path} ({reason}); checkpoints written before are intact") from error


def read_four_keys(path: Path) -> dict[str, Any]:
    """Read a checkpoint that ``save_checkpoint`` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, damaged, or not in the four-key format.
    """
    source = f"checkpoint {path}"
    return check_parts(plain_content(read_torch_file(path, f"{source}: not readable"), source), source)


def plain_content(content: Any, source: str) -> Any:
    """What a file holds, whatever that is: the two state dicts, where there are such, as ``plain_weights``.

    Raises:
        ValueError: a fact or a weight cannot be one; it is named.
    """
    if not isinstance(content, dict):
        return content
    check_facts(content, source)
    parts = {part: content[part] for part in PARTS if isinstance(content.get(part), dict)}
    return {**content, **{part: plain_weights(state, source) for part, state in parts.items()}}


def check_parts(content: Any, source: str) -> dict[str, Any]:
    """``content``, which has the two state dicts.

    Raises:
        ValueError: it has not.
    """
    if not isinstance(content, dict) or not content.keys() >= set(PARTS):
        found = sorted(map(str, content))[:4] if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source}: expected keys {', '.join(sorted(PARTS))}, found {found}")
    for part in PARTS:
        if not isinstance(content[part], dict):
            raise ValueError(f"{source}: expected tensors under {part}, found {type(content[part]).__name__}")
    return content


def check_facts(content: Mapping[str, Any], source: str) -> None:
    """See that what a checkpoint says beside its tensors has the types that it is used with.

    Raises:
        ValueError: it names the entry.
    """
    for name, (expected, fits) in FACTS.items():
        if name in content and not fits(content[name]):
            found = f"{type(content[name]).__name__} {str(content[name])[:40]!r}"
            raise ValueError(f"{source}: {name}: expected {expected}, found {found}")
