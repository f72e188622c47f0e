"""Class vectors in a file (``text4vis.classifier: file:PATH``): an npz of ``vectors`` and ``class_names``."""

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.classes.vectors import KEY
from utils.arrays import DAMAGED
from utils.files import no_file, whole_file
from utils.text import shown

VECTORS = ("vectors", "classifier")  # names of the matrix, the first that is there; else the only array
CLASS_NAMES = "class_names"


def write_vectors(path: Path, vectors: Tensor, class_names: list[str]) -> None:
    """Write a file that ``read_vectors`` reads: [K, D], any length."""
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, vectors=vectors.detach().float().cpu().numpy(), class_names=np.array(class_names, dtype=str))


def read_vectors(path: str | Path, class_names: list[str], dim: int) -> Tensor:
    """One vector a class from an npz, float32 [K, D]: ``vectors`` or ``classifier`` or the only array; of any length.

    Args:
        class_names: K of them; where the file has ``class_names``, they must be these, in this order.
        dim: D of the features.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no npz of arrays; numbers of another shape, not finite, or 0 throughout a row; other classes.
    """
    where = f"{KEY} file:{path}"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{where}: {no_file(path)}")
    try:
        arrays = _read_arrays(path)
    except (OSError, zipfile.BadZipFile, zlib.error, LookupError, AttributeError, RuntimeError, *DAMAGED) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"{where}: not an npz of arrays ({reason})") from None
    name = _matrix_of(arrays)
    if name is None:
        raise ValueError(f"{where}: expected an array 'vectors', found {shown(sorted(arrays))}")
    _check_numbers(arrays[name], (len(class_names), dim), f"{where}: {name}")
    if CLASS_NAMES in arrays:
        _check_names(arrays[CLASS_NAMES], class_names, where)
    return torch.from_numpy(arrays[name].astype(np.float32))


def _matrix_of(names: Collection[str]) -> str | None:
    """Which of the names of arrays is that of the matrix."""
    others = [name for name in names if name != CLASS_NAMES]
    return next((name for name in VECTORS if name in names), others[0] if len(others) == 1 else None)


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz that are of use; others only by name."""
    with np.load(path, allow_pickle=False) as file:
        wanted = (_matrix_of(file.files), CLASS_NAMES)
        return {name: file[name] if name in wanted else np.empty(0) for name in file.files}


def _check_numbers(array: np.ndarray, shape: tuple[int, int], where: str) -> None:
    if array.dtype.kind != "f" or array.shape != shape:
        raise ValueError(
            f"{where} are {array.dtype} {list(array.shape)}, expected floats {list(shape)}, classes x dimensions of "
            f"the features"
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    for what, is_wrong in (("not finite", ~np.isfinite(array).all(axis=1)), ("0 throughout", ~array.any(axis=1))):
        if is_wrong.any():
            raise ValueError(
                f"{where} has rows that are {what}: {is_wrong.sum()} of {len(array)}, the first is class "
                f"{is_wrong.argmax()}"
            )


def _check_names(array: np.ndarray, class_names: list[str], where: str) -> None:
    if array.dtype.kind not in "US" or array.shape != (len(class_names),):
        raise ValueError(
            f"{where}: class_names are {array.dtype} {list(array.shape)}, expected texts [{len(class_names)}]"
        )
    found = array.astype(str).tolist() if array.dtype.kind == "U" else [name.decode(errors="replace") for name in array]
    for label, (name, expected) in enumerate(zip(found, class_names, strict=True)):
        if name != expected:
            order = "the classes of data.label_list in another order" if set(found) == set(class_names) else "others"
            raise ValueError(
                f"{where}: its class_names are {order}: class {label} is {shown(name)}, expected {shown(expected)}"
            )
