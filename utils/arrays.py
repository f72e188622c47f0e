"""NumPy arrays in files, mapped into memory and never unpickled."""

import tokenize
from pathlib import Path

import numpy as np

# What reading the header of an array may raise.
DAMAGED = (
    ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError, tokenize.TokenError,
)  # fmt: skip


def map_array(path: Path, kind: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A read-only map of an ``.npy`` file.

    Args:
        kind: of its numbers, such as ``float16``; ``bytes``: texts of any one length.
        shape: None: any size.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no array, cut short, or of another kind or shape.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except DAMAGED as error:
        raise ValueError(
            f"{path}: damaged, not an array ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from None
    fits = len(array.shape) == len(shape) and all(
        want in (None, size) for want, size in zip(shape, array.shape, strict=True)
    )
    is_kind = array.dtype.kind == "S" if kind == "bytes" else array.dtype == np.dtype(kind)
    if not fits or not is_kind:
        wanted = ["any" if size is None else size for size in shape]
        raise ValueError(
            f"{path}: damaged, expected {kind} {wanted}, found {array.dtype} {list(array.shape)}".replace("'", "")
        )
    if array.offset + array.nbytes != path.stat().st_size:
        raise ValueError(f"{path}: damaged, {path.stat().st_size} bytes, expected {array.offset + array.nbytes}")
    return array
