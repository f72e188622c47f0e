"""Files of tensors from anywhere, read as data: nothing in them is run, and damage is found where their format allows.

Files of torch.save have a check sum for every part (before PyTorch 1.6 none). Safetensors have none: ours carry one in
their metadata.
"""

import hashlib
import io
import os
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SHA256_KEY = "mote_sha256"  # in the metadata of safetensors
# What the readers raise on garbage: torch's unpickler trips over whatever bytes come.
UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # also RecursionError, NotImplementedError
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,  # a size that cannot be
)
# What people find in the place of a file of weights: how it begins, what it is.
NOT_WEIGHTS = {
    b"version https://git-lfs": "a pointer of git-lfs in the place of the file: `git lfs pull` fetches it",
    b"<!doctype html": "a web page, as a failed download leaves it",
    b"<html": "a web page, as a failed download leaves it",
    b"\x1f\x8b": "a gzip archive, which must be unpacked first",
    b"<?xml": "an XML text, as a failed download leaves it",
}
MOST_UNFOLDED = 2**26  # bytes that the parts of an archive may have beyond its own
FOLDER_MARK = 0x10  # in a zip archive's attributes of a part
# How torch names the object that it refuses.
REFUSED = re.compile(r"GLOBAL (\S+)|(?:function|but got) <[a-z\- ]*'?([\w.]+)")
# Objects that belong to tensors.
PLAIN = re.compile(
    r"collections\.OrderedDict|torch\.(_utils\.\w+|\w*Storage|\w+|storage\.\w+|nn\.parameter\.Parameter)"
)


def is_safetensors(path: Path) -> bool:
    """Whether the content of a file, whatever its name, begins as safetensors do."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, such as those that OpenAI released CLIP in."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except UNREADABLE:
        return False


def check_weight_file(path: Path, problem: str) -> None:
    """See that a file is there, and nothing else than a file of weights.

    Args:
        problem: how errors begin, such as ``checkpoint PATH: not readable``.

    Raises:
        FileNotFoundError, ValueError: it is not there; it is empty, a text, a web page and the like.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{problem} ({'not a regular file' if path.exists() else 'no such file'})")
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise ValueError(f"{problem} (an empty file)")
    found = next((what for mark, what in NOT_WEIGHTS.items() if start.lstrip().lower().startswith(mark)), None)
    if found is None and not re.search(rb"[^\t\n\f\r -~\x80-\xff]", start):
        found = "a text, not a file of weights"
    if found:
        raise ValueError(f"{problem} ({found})")


def read_torch_file(
    path: Path, problem: str, stand_ins: Sequence[tuple[type, str]] = (), programs: Collection[str] = ()
) -> Any:
    """What torch.save wrote, on the CPU: tensors and plain values; of a TorchScript archive its state dict.

    Check sums are compared.

    Args:
        stand_ins: plain types with the names of classes in whose place they are read, which are never looked up.
        programs: SHA-256 of the TorchScript archives that may be opened, since opening one runs what is in it.

    Raises:
        FileNotFoundError, ValueError: see ``check_weight_file``; it is damaged; it holds other objects, the first is
            named; it is a TorchScript archive that nobody vouches for.
    """
    check_weight_file(path, problem)
    try:
        with path.open("rb") as file:  # opened once: nobody replaces it between the check and the reading
            if file.read(2) == b"PK":
                _check_sums(file)
            if is_torchscript(path):
                return _state_of_program(file, programs)
            file.seek(0)
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
                warnings.simplefilter("ignore")  # about a pickle_protocol that it may not read: then it is an error
                return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, *UNREADABLE) as error:
        raise ValueError(f"{problem} ({_reason(error, path)})") from error


def _state_of_program(file: BinaryIO, known: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive.

    Raises:
        ValueError: it is none of the known ones; nothing in it has run.
    """
    file.seek(0)
    content = file.read()  # what is hashed is what is opened
    if hashlib.sha256(content).hexdigest() not in known:
        raise ValueError(
            "a TorchScript archive is a program, and only those with the SHA-256 of OpenAI's released models are run; "
            "the safe way: where its source is trusted, save its state_dict as safetensors"
        )
    return dict(torch.jit.load(io.BytesIO(content), map_location="cpu").state_dict())


def read_safetensors(path: Path, problem: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file on the CPU, and its metadata. Our check sum is compared where there is one.

    Raises:
        FileNotFoundError, ValueError: see ``check_weight_file``; it is damaged.
    """
    check_weight_file(path, problem)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, *UNREADABLE) as error:
        raise ValueError(f"{problem} (damaged, or not safetensors: {one_line(error)})") from error
    expected = metadata.pop(SHA256_KEY, None)
    if expected not in (None, tensors_sha256(tensors, metadata)):
        raise ValueError(f"{problem} (damaged, it does not have its check sum)")
    return tensors, metadata


def tensors_sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes, in the order of the names, and of the metadata beside them."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def one_line(error: BaseException, most: int = 300) -> str:
    """The first line of an error's message without terminal codes, cut after a sentence or word; else its type."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[0].rstrip()
    if len(text) > most:
        text = text[:most].rsplit(". ", 1)[0].rsplit(" ", 1)[0] + " ..."
    return text or type(error).__name__


def _check_sums(file: BinaryIO) -> None:
    """Compare the parts of a zip archive with their check sums, which torch.load does not.

    Raises:
        ValueError, zipfile.BadZipFile and others of ``UNREADABLE``: they differ, or the archive is cut short.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            names, parts = archive.namelist(), archive.infolist()
            # torch.save stores each part once and as it is (TorchScript folds its code); a small file must not unfold
            # into a huge one. Of a part that is marked as a folder torch would read no byte.
            is_folder = any(part.external_attr & FOLDER_MARK for part in parts)
            unfolded = sum(part.file_size for part in parts)
            if is_folder or len(set(names)) < len(names) or unfolded > size + MOST_UNFOLDED:
                raise ValueError("damaged, its parts do not add up to the file")
            if not any(name.endswith("data.pkl") for name in names):
                raise ValueError("a zip archive that torch.save did not write")
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(f"damaged or cut short: {one_line(error)}") from error
    if broken:
        raise ValueError(f"damaged, {broken} does not have its check sum")


def _reason(error: BaseException, path: Path) -> str:
    """Why torch.load failed, in our words where it refused an object."""
    text = str(error)
    if "Weights only load failed" not in text:
        return one_line(error)
    match = REFUSED.search(text)
    name = next(filter(None, match.groups()), None) if match else _first_object(path)
    if name is None:
        details = one_line(ValueError(text.rsplit("WeightsUnpickler error: ", 1)[-1]))
        return f"damaged, or not written by torch.save with its usual pickle_protocol: {details}"
    what = "a NumPy value" if name.startswith("numpy") else "an object that only its own code can restore"
    return (
        f"it holds {name}, {what}, and is read with weights_only=True, which runs no code; the safe way: where its "
        "source is trusted, save it again with the state_dict tensors and plain numbers, texts and lists alone"
    )


def _first_object(path: Path) -> str | None:
    """The first object of somebody's class in a pickle of a protocol that torch does not refuse by name."""
    content = path.read_bytes()
    if content.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    texts: list[str] = []
    memo: list[str] = []
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name == "STACK_GLOBAL" and not PLAIN.fullmatch(name := ".".join(texts[-2:])):
                return name
            if code.name == "MEMOIZE":
                memo.append(texts[-1] if texts else "")
            elif code.name in ("BINGET", "LONG_BINGET"):
                texts.append(memo[argument])
            elif isinstance(argument, str):
                texts.append(argument)
    except UNREADABLE:
        pass
    return None
