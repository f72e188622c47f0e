"""Checkpoints in the published four-key format, plus keys of our own; written atomically, read safely.

``model_state_dict`` holds CLIP (``visual.*``, ``logit_scale``), ``fusion_model_state_dict`` the temporal head,
beside ``epoch`` and ``optimizer_state_dict``. In a VideoCLIP these are ``clip.*`` and ``head.*``.
``utils/weights/model_files.py`` keeps the same content as safetensors.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.files import no_file, remove_parts, whole_file
from utils.weights.files import is_safetensors, is_torchscript, read_torch_file
from utils.weights.model_files import CLIP_PREFIX, HEAD_PREFIX, PREFIXES, check_facts, locate, read_model_file
from utils.weights.state_dicts import check_weights, plain_names

logger = logging.getLogger(__name__)

TRAIN_CLASS_FEATURES = "spe_cls_feature"  # [K_train, D], belongs to the data set that the head was trained on
CLIP_HINT = "a CLIP is given as network.arch (or --arch of predict.py), a checkpoint of this project is expected here"
WRITER = "inline_container"  # the part of torch that reports a full disk, as a RuntimeError
# Entry of a checkpoint whose experts are merged and whose CLIP weights are averaged with the pretrained ones.
MERGED = "merged"
# Additions to CLIP have no pretrained value to be averaged with.
NOT_IN_CLIP = ("visual.time_embedding",)


def weights_of(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The two weight entries of a checkpoint, from a VideoCLIP."""
    state = model.state_dict()
    return {
        "model_state_dict": _with_prefix(state, CLIP_PREFIX),
        "fusion_model_state_dict": _with_prefix(state, HEAD_PREFIX),
    }


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


class CheckpointStore:
    """The checkpoints that a run can be resumed from: the newest few, in ``FOLDER/checkpoints``."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder / "checkpoints", keep

    def path(self, epoch: int, step: int) -> Path:
        """Where the state after ``step`` steps beyond ``epoch`` finished epochs is, or would be."""
        return self.folder / f"epoch_{epoch:04d}_step_{step:07d}.pt"

    def save(self, content: dict[str, Any], epoch: int, step: int) -> Path:
        """Write the state after ``step`` steps of the epoch, then remove the oldest beyond ``keep``.

        Later ones are of a future that a run left when it went back: they are renamed to ``*.abandoned``.
        """
        self.folder.mkdir(exist_ok=True)
        remove_parts(self.folder)  # of runs that were killed while they wrote
        path = self.path(epoch, step)
        save_checkpoint(path, content)
        for later in self._newest_first():
            if later.name > path.name:
                later.replace(later.with_name(later.name + ".abandoned"))
                logger.warning("%s is later than what was saved now; renamed to %s.abandoned", later, later.name)
        for old in self._newest_first()[self.keep :]:
            old.unlink()
        return path

    def read_newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest readable checkpoint; unreadable newer ones are named in a warning. None: there is none.

        Raises:
            ValueError: there are some, but none is readable.
        """
        candidates = self._newest_first()
        for path in candidates:
            try:
                return path, read_checkpoint(path)
            except (ValueError, OSError) as error:
                logger.warning("%s; trying the one before", error)
        if candidates:
            raise ValueError(
                f"none of the {len(candidates)} checkpoints in {self.folder} is readable; remove them all to start anew"
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch_*_step_*.pt"), reverse=True)


def publish(checkpoint: Path, path: Path) -> None:
    """Give a written checkpoint a second name, atomically and without a second copy where links exist."""
    if path.exists() and path.samefile(checkpoint):
        return  # renaming one link of a file to another does nothing, not even remove the first
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        os.link(checkpoint, partial)
    except OSError:
        shutil.copyfile(checkpoint, partial)
    partial.replace(path)


def read_checkpoint(name: str | Path) -> dict[str, Any]:
    """Read a checkpoint, ours or a published one, on the CPU; see ``read_content``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, damaged, or not in the four-key format.
        ConnectionError: the Hub cannot be reached, and the model is not in its cache.
    """
    content = read_content(name)
    if not isinstance(content, dict) or not PREFIXES.keys() <= content.keys():
        if isinstance(content, dict) and "visual.conv1.weight" in content:
            raise ValueError(f"checkpoint {name}: found the weights of CLIP alone; {CLIP_HINT}")
        found = sorted(map(str, content))[:4] if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"checkpoint {name}: expected keys {', '.join(sorted(PREFIXES))}, found {found}")
    for part in PREFIXES:
        if not isinstance(content[part], dict):
            raise ValueError(f"checkpoint {name}: expected tensors under {part}, found {type(content[part]).__name__}")
    return content


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
    if path.is_dir() or path.suffix == ".safetensors" or (path.is_file() and is_safetensors(path)):
        content = read_model_file(path)
    elif path.is_file() and is_torchscript(path):
        raise ValueError(f"checkpoint {path}: found a TorchScript archive, such as CLIP's own; {CLIP_HINT}")
    else:
        content = read_torch_file(path, f"checkpoint {path}: not readable")
    if not isinstance(content, dict):
        return content
    check_facts(content, f"checkpoint {name}")
    parts = {part: content[part] for part in PREFIXES if isinstance(content.get(part), dict)}
    return {**content, **{part: plain_weights(state, f"checkpoint {name}") for part, state in parts.items()}}


def plain_weights(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Weights that came from a file, see ``utils.weights.state_dicts``.

    Raises:
        ValueError: they cannot be weights; the tensor is named.
    """
    state = plain_names(state, source)
    check_weights(state, source)
    return state


def load_weights(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    source: str,
    weight_average: float = 1.0,
    keep_train_classes: bool = False,
) -> None:
    """Load a checkpoint's weights into a VideoCLIP that holds CLIP's pretrained ones.

    Args:
        source: name of the checkpoint in errors.
        weight_average: CLIP's tensors become ``weight_average * checkpoint + (1 - weight_average) * model``.
            The published test uses 0.99 for ``visual.*`` and ``logit_scale``.
        keep_train_classes: keep the model's training-class features, for a start from another data set.

    Raises:
        ValueError: keys or shapes do not fit; it names them.
    """
    pretrained = _with_prefix(model.state_dict(), CLIP_PREFIX)
    tuned = {}
    for name, value in checkpoint["model_state_dict"].items():
        is_averaged = weight_average < 1.0 and name not in NOT_IN_CLIP and name in pretrained
        if is_averaged and value.shape == pretrained[name].shape:
            value = _average(value.float(), pretrained[name].cpu(), weight_average)
        tuned[CLIP_PREFIX + name] = value
    head = dict(checkpoint["fusion_model_state_dict"])
    expected = model.state_dict()
    name = HEAD_PREFIX + TRAIN_CLASS_FEATURES
    if TRAIN_CLASS_FEATURES in head and name in expected:
        if keep_train_classes:
            head[TRAIN_CLASS_FEATURES] = expected[name]
        elif head[TRAIN_CLASS_FEATURES].ndim and len(head[TRAIN_CLASS_FEATURES]):  # any number of training classes fits
            expected[name] = expected[name].new_empty(len(head[TRAIN_CLASS_FEATURES]), expected[name].shape[1])
    state = tuned | {HEAD_PREFIX + name: value for name, value in head.items()}
    _check_fit(expected, state, source)
    if name in expected:
        setattr(model.head, TRAIN_CLASS_FEATURES, torch.empty_like(expected[name]))
    model.load_state_dict(state)


def _average(tuned: Tensor, pretrained: Tensor, share: float) -> Tensor:
    """``share * tuned + (1 - share) * pretrained``; equal tensors stay what they are, to the last bit.

    So the image tower of a head trained on cached features is the tower that the cache was made with.
    """
    return tuned if torch.equal(tuned, pretrained) else share * tuned + (1.0 - share) * pretrained


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and fp32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.numpy())
    return digest.hexdigest()


def _with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise one error that lists what is missing, what is too much, and what has another shape."""
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name].shape)}, the configured model has {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(f"checkpoint {source} does not fit the configured model: {'; '.join(problems[:4])}{more}")
