"""Files of embeddings: both kinds hold the same, and anything else is refused by name."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from datasets.features.embeddings import Embeddings, check_embeddings_path, read_embeddings, write_embeddings


@pytest.fixture
def embeddings() -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    norms = np.array([1, 2.5, 9], dtype=np.float32)
    return Embeddings(["a/b c.mp4", "ü.mp4", "x"], vectors, {"model": "0123", "num_clips": 3}, norms)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_without_norms_are_read_too(suffix, embeddings, tmp_path):
    path = tmp_path / f"e{suffix}"
    write_embeddings(path, replace(embeddings, norms=None))
    assert read_embeddings(path).norms is None


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_is_written_is_read_back(suffix, embeddings, tmp_path):
    path = tmp_path / "new folder" / f"e{suffix}"
    write_embeddings(path, embeddings)
    found = read_embeddings(path)
    assert (found.paths, found.metadata) == (embeddings.paths, embeddings.metadata)
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, embeddings.vectors)
    np.testing.assert_array_equal(found.norms, embeddings.norms, strict=True)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_other_files_are_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"other{suffix}"
    with pytest.raises(FileNotFoundError, match=path.name):
        read_embeddings(path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"{path.name}: not a file that predict.py"):
        read_embeddings(path)


def test_an_npz_of_other_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"not a file that predict\.py"):
        read_embeddings(tmp_path / "other.npz")


VECTORS = np.ones((2, 3), dtype=np.float32)
PARTS = {"paths": np.array(["a", "b"]), "embeddings": VECTORS, "metadata": np.array('{"model": "x"}')}
NPZ = {
    "pickled paths": {"paths": np.array(["a", 1], dtype=object)},
    "pickled vectors": {"embeddings": np.array([None, {}], dtype=object)},
    "paths of numbers": {"paths": np.arange(2)},
    "paths of a table": {"paths": np.array([["a", "b"]])},
    "fewer paths": {"paths": np.array(["a"])},
    "one vector": {"embeddings": VECTORS[0]},
    "fewer vectors": {"embeddings": VECTORS[:1]},
    "no vectors": {"paths": np.array([], dtype=str), "embeddings": VECTORS[:0]},
    "vectors in fp64": {"embeddings": VECTORS.astype(float)},
    "vectors of texts": {"embeddings": np.array([["a"], ["b"]])},
    "vectors of NaN": {"embeddings": VECTORS * np.float32("nan")},
    "fewer norms": {"norms": np.ones(1, dtype=np.float32)},
    "norms of NaN": {"norms": np.float32([1, "nan"])},
    "norms in fp64": {"norms": np.ones(2)},
    "metadata of a number": {"metadata": np.array(3)},
    "metadata of a list": {"metadata": np.array("[]")},
    "metadata that are no JSON": {"metadata": np.array("{")},
    "metadata of many levels": {"metadata": np.array("[" * 100_000)},
    "metadata twice": {"metadata": np.array(["{}", "{}"])},
}


@pytest.mark.parametrize("case", NPZ)
def test_an_npz_of_other_content_is_refused_by_name(case, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **(PARTS | NPZ[case]))
    with pytest.raises(ValueError, match=r"^embeddings .*x\.npz: not a file that predict\.py") as error:
        read_embeddings(path)
    assert "\n" not in str(error.value)
    np.savez(path, **PARTS)
    assert read_embeddings(path).paths == ["a", "b"]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_damaged_file_is_refused_by_name(suffix, embeddings, tmp_path):
    path = tmp_path / f"x{suffix}"
    write_embeddings(path, embeddings)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100], b"PK\x03\x04", b"PAR1" + bytes(50) + b"PAR1", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^embeddings .*x\{suffix}: not a file that predict\.py"):
            read_embeddings(path)


def test_a_parquet_file_of_other_content_is_refused_by_name(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    path, fixed = tmp_path / "x.parquet", pa.list_(pa.float32(), 2)
    good = {"path": pa.array(["a"]), "embedding": pa.array([[1.0, 2.0]], fixed)}
    others = [
        {"path": good["path"]},
        good | {"embedding": pa.array([1.0])},
        good | {"embedding": pa.array([[1.0, 2.0]], pa.list_(pa.float32()))},
        good | {"embedding": pa.array([[1.0, None]], fixed)},
        good | {"embedding": pa.array([None], fixed)},
        good | {"embedding": pa.array([["a", "b"]], pa.list_(pa.string(), 2))},
        good | {"path": pa.array([None], pa.string())},
        good | {"path": pa.array([3])},
    ]
    for metadata in (b"{}", b"[]", b"\xff", None):
        for columns in [*others, good]:
            table = pa.table(columns).replace_schema_metadata(metadata and {b"embeddings": metadata})
            parquet.write_table(table, path)
            if columns is good and metadata == b"{}":
                assert read_embeddings(path).vectors.tolist() == [[1.0, 2.0]]
                continue
            with pytest.raises(ValueError, match=r"^embeddings .*x\.parquet: not a file that predict\.py"):
                read_embeddings(path)


def test_only_two_suffixes_are_known(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.npz or \.parquet"):
        check_embeddings_path(tmp_path / "e.csv")


def test_without_pyarrow_parquet_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-export\.txt"):
        check_embeddings_path(tmp_path / "e.parquet")
