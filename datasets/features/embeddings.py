"""One unit vector a video in a file (.npz or .parquet), with what it depends on."""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import DAMAGED
from utils.files import no_file, whole_file

EMBEDDING_SUFFIXES = (".npz", ".parquet")
PARQUET_METADATA = b"embeddings"


@dataclass(frozen=True)
class Embeddings:
    """N videos.

    ``metadata`` says what the vectors depend on: ``model`` (fingerprint of all weights), views, frames.
    """

    paths: list[str]
    vectors: np.ndarray  # float32 [N, D], unit length
    metadata: dict
    norms: np.ndarray | None = None  # float32 [N], how long the vectors were before; None: unknown


def check_embeddings_path(path: Path) -> None:
    """See that a file of embeddings can be written under this name.

    Raises:
        ValueError: another suffix; or pyarrow, which .parquet needs, is not installed.
    """
    if path.suffix not in EMBEDDING_SUFFIXES:
        raise ValueError(f"embeddings {path}: expected a name that ends in {' or '.join(EMBEDDING_SUFFIXES)}")
    if path.suffix == ".parquet":
        _pyarrow(path)


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write a file that ``read_embeddings`` reads back; parquet has the columns ``path``, ``embedding``, ``norm``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = json.dumps(embeddings.metadata)
    if path.suffix == ".npz":
        paths = np.array(embeddings.paths, dtype=str)
        with whole_file(path) as part, part.open("wb") as file:
            norms = {} if embeddings.norms is None else {"norms": embeddings.norms}
            np.savez(file, paths=paths, embeddings=embeddings.vectors, metadata=np.array(metadata), **norms)
        return
    pa, parquet = _pyarrow(path)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.vectors.ravel()), embeddings.vectors.shape[1])
    columns = {"path": pa.array(embeddings.paths, pa.string()), "embedding": vectors}
    table = pa.table(columns if embeddings.norms is None else columns | {"norm": embeddings.norms})
    with whole_file(path) as part:
        parquet.write_table(table.replace_schema_metadata({PARQUET_METADATA: metadata.encode()}), part)


def read_embeddings(path: Path) -> Embeddings:
    """Read what ``write_embeddings`` wrote.

    Raises:
        FileNotFoundError, ValueError: no such file; not a file of embeddings.
    """
    check_embeddings_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"embeddings {path}: {no_file(path)}")
    try:
        embeddings = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
        _check(embeddings)
    except (OSError, zipfile.BadZipFile, zlib.error, LookupError, AttributeError, RuntimeError, *DAMAGED) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"embeddings {path}: not a file that predict.py --embed wrote ({reason})") from error
    return embeddings


def _read_npz(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as file:
        paths, vectors, metadata = (file[name] for name in ("paths", "embeddings", "metadata"))
        norms = file.get("norms")
    if paths.dtype.kind != "U" or paths.ndim != 1 or metadata.dtype.kind != "U" or metadata.ndim:
        raise ValueError(
            f"paths are {paths.dtype} {list(paths.shape)}, metadata {metadata.dtype} {list(metadata.shape)}"
        )
    return Embeddings(paths.tolist(), vectors, json.loads(metadata.item()), norms)


def _read_parquet(path: Path) -> Embeddings:
    pa, parquet = _pyarrow(path)
    table = parquet.read_table(path)
    metadata = json.loads((table.schema.metadata or {})[PARQUET_METADATA])
    column = table["embedding"].combine_chunks()
    if not pa.types.is_fixed_size_list(column.type) or column.null_count:
        raise ValueError(f"embedding is {column.type}, expected lists of one size without gaps")
    vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    norms = table["norm"].to_numpy() if "norm" in table.column_names else None
    return Embeddings(table["path"].to_pylist(), vectors, metadata, norms)


def _check(embeddings: Embeddings) -> None:
    """See that the parts of a file fit together."""
    paths, vectors, metadata = embeddings.paths, embeddings.vectors, embeddings.metadata
    if not all(isinstance(path, str) for path in paths) or not isinstance(metadata, dict):
        raise ValueError("paths are no texts, or metadata no object")
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(paths) or not vectors.size:
        raise ValueError(f"embeddings are {vectors.dtype} {list(vectors.shape)}, expected float32 [{len(paths)}, D]")
    if not np.isfinite(vectors).all():
        raise ValueError("embeddings are not finite")
    norms = np.ones(len(paths), dtype=np.float32) if embeddings.norms is None else embeddings.norms
    if norms.dtype != np.float32 or norms.shape != (len(paths),) or not np.isfinite(norms).all():
        raise ValueError(f"norms are {norms.dtype} {list(norms.shape)}, expected finite float32 [{len(paths)}]")


def _pyarrow(path: Path) -> tuple:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"embeddings {path}: .parquet needs pyarrow: pip install -r requirements-export.txt") from None
    return pyarrow, parquet
