"""Files of embeddings: both kinds hold the same, and anything else is refused by name."""

import sys

import numpy as np
import pytest

from datasets.embeddings import Embeddings, check_embeddings_path, read_embeddings, write_embeddings


@pytest.fixture
def embeddings() -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    return Embeddings(["a/b c.mp4", "ü.mp4", "x"], vectors, {"model": "0123", "num_clips": 3})


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_is_written_is_read_back(suffix, embeddings, tmp_path):
    path = tmp_path / "new folder" / f"e{suffix}"
    write_embeddings(path, embeddings)
    found = read_embeddings(path)
    assert (found.paths, found.metadata) == (embeddings.paths, embeddings.metadata)
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, embeddings.vectors)


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


def test_only_two_suffixes_are_known(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.npz or \.parquet"):
        check_embeddings_path(tmp_path / "e.csv")


def test_without_pyarrow_parquet_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-export\.txt"):
        check_embeddings_path(tmp_path / "e.parquet")
