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
from utils.weights.state_dicts import check_weights, laid_out, plain_names

MODEL, HEAD = STATE_DICTS = ("model_state_dict", "fusion_model_state_dict")
CLASSIFIER = "classifier_state_dict"  # a third one, where what videos are compared with is not made from texts
SORTER = "sorter_state_dict"  # and a part that training alone has: tests pass it over, and what is shared leaves it out
PROJECTION = "projection_state_dict"  # and what is for the training classes alone, which other tests leave out
EXTRAS = (CLASSIFIER, SORTER, PROJECTION)
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
    "towers": ("facts by name", lambda value: isinstance(value, dict)),  # what pictures and texts must be like
}
WRITER = "inline_container"  # the part of torch that reports a full disk, as a RuntimeError


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values so that ``path`` always holds a complete file, old or new.

    Raises:
        OSError: it could not be written, on a full disk for example; what was there before is intact.
    """
    try:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        if not isinstance(error, OSError) and WRITER not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise OSError(f"could not write {path} ({reason}); checkpoints written before are intact") from error


def read_four_keys(path: Path) -> dict[str, Any]:
    """Read a checkpoint that ``save_checkpoint`` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, damaged, or not in the four-key format.
    """
    source = f"checkpoint {path}"
    return check_state_dicts(plain_content(read_torch_file(path, f"{source}: not readable"), source), source)


def plain_content(content: Any, source: str) -> Any:
    """What a file holds, whatever that is: the two state dicts, where there are such, with ``plain_names``.

    Raises:
        ValueError: a fact or a weight cannot be one; it is named.
    """
    if not isinstance(content, dict):
        return content
    check_facts(content, source)
    states = {
        key: plain_names(content[key], source) for key in (*STATE_DICTS, *EXTRAS) if isinstance(content.get(key), dict)
    }
    for state in states.values():
        check_weights(state, source)
    return content | {key: laid_out(state) for key, state in states.items()}


def check_state_dicts(content: Any, source: str) -> dict[str, Any]:
    """``content``, which has the two state dicts.

    Raises:
        ValueError: it has not.
    """
    if not isinstance(content, dict) or not content.keys() >= set(STATE_DICTS):
        raise ValueError(f"{source}: expected keys {', '.join(sorted(STATE_DICTS))}, found {outline(content)}")
    for key in (*STATE_DICTS, *EXTRAS):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"{source}: expected tensors under {key}, found {outline(content[key])}")
    return content


def check_facts(content: Mapping[str, Any], source: str) -> None:
    """See that what a checkpoint says beside its tensors has the types that it is used with.

    Raises:
        ValueError: it names the entry.
    """
    for name, (expected, fits) in FACTS.items():
        if name in content and not fits(content[name]):
            raise ValueError(f"{source}: {name}: expected {expected}, found {outline(content[name])}")


def outline(value: Any) -> str:
    """What is in a checkpoint in the place of something else, as a short text for an error."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        text = f"a dict of {', '.join(map(str, list(value)[:4]))}" if value else "an empty dict"
    else:
        text = f"{type(value).__name__} {str(value)[:40]}"
    return repr(text)[1:-1]  # in one line
