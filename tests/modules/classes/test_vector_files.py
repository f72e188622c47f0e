"""Class vectors in files: round trip, and every kind of file that is none."""

import io

import numpy as np
import pytest
import torch

from modules.classes.vector_files import read_vectors, write_vectors

NAMES = ["yoga", "zumba", "tai chi"]
VECTORS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def test_vectors_come_back_as_they_were_written(tmp_path):
    vectors = torch.randn(3, 4, requires_grad=True)
    write_vectors(tmp_path / "vectors.npz", vectors, NAMES)
    assert torch.equal(read_vectors(tmp_path / "vectors.npz", NAMES, 4), vectors.detach())
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]


@pytest.mark.parametrize("name", ["vectors", "classifier"])
@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_any_floats_under_either_name_are_read_without_class_names(tmp_path, name, dtype):
    np.savez(tmp_path / "vectors.npz", **{name: VECTORS.astype(dtype)}, more=np.array([{}], object))
    found = read_vectors(str(tmp_path / "vectors.npz"), NAMES, 4)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(VECTORS))


def test_the_only_array_may_have_any_name(tmp_path):
    np.savez(tmp_path / "vectors.npz", matrix=VECTORS, class_names=np.array(NAMES))
    assert torch.equal(read_vectors(tmp_path / "vectors.npz", NAMES, 4), torch.from_numpy(VECTORS))


def test_class_names_may_be_bytes(tmp_path):
    np.savez(tmp_path / "vectors.npz", vectors=VECTORS, class_names=np.array([name.encode() for name in NAMES]))
    assert read_vectors(tmp_path / "vectors.npz", NAMES, 4).shape == (3, 4)


def changed(row: int, value: float) -> np.ndarray:
    return np.where(np.arange(3)[:, None] == row, np.float32(value), VECTORS)


BAD = {
    "pickled": ({"vectors": VECTORS.astype(object)}, r"not an npz of arrays \(.*allow_pickle"),
    "no vectors": ({"weights": VECTORS, "more": VECTORS}, r"expected an array 'vectors', found \['more', 'weights'\]"),
    "more classes": ({"vectors": np.ones((4, 4), "f4")}, r"vectors are float32 \[4, 4\], expected floats \[3, 4\]"),
    "other features": ({"classifier": np.ones((3, 5), "f4")}, r"classifier are float32 \[3, 5\], expected .*\[3, 4\]"),
    "no matrix": ({"vectors": np.ones(12, "f4")}, r"vectors are float32 \[12\], expected floats \[3, 4\]"),
    "whole numbers": ({"vectors": np.ones((3, 4), int)}, r"vectors are int64 \[3, 4\], expected floats"),
    "NaN": ({"vectors": changed(1, np.nan)}, r"vectors has rows that are not finite: 1 of 3, the first is class 1"),
    "too large": ({"vectors": VECTORS.astype("f8") * 1e300}, r"not finite: 3 of 3, the first is class 0"),
    "nothing": ({"vectors": changed(2, 0)}, r"rows that are 0 throughout: 1 of 3, the first is class 2"),
    "vanishing": ({"vectors": VECTORS.astype("f8") * 1e-300}, r"rows that are 0 throughout: 3 of 3"),
    "order": (
        {"vectors": VECTORS, "class_names": np.array(["yoga", "tai chi", "zumba"])},
        r"are the classes of data.label_list in another order: class 1 is 'tai chi', expected 'zumba'",
    ),
    "others": (
        {"vectors": VECTORS, "class_names": np.array(["yoga", "zumba", "boxing"])},
        r"class_names are others: class 2 is 'boxing', expected 'tai chi'",
    ),
    "fewer names": (
        {"vectors": VECTORS, "class_names": np.array(["yoga", "zumba"])},
        r"class_names are <U5 \[2\], expected texts \[3\]",
    ),
    "numbers": (
        {"vectors": VECTORS, "class_names": np.arange(3)},
        r"class_names are int64 \[3\], expected texts \[3\]",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_another_file_is_told_in_one_line(tmp_path, kind):
    arrays, message = BAD[kind]
    path = tmp_path / "vectors.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read_vectors(path, NAMES, 4)
    assert str(caught.value).startswith(f"text4vis.classifier file:{path}: ")
    assert "\n" not in str(caught.value)


def damaged_files() -> dict[str, bytes]:
    """Contents by kind."""
    whole, single = io.BytesIO(), io.BytesIO()
    np.savez_compressed(whole, vectors=np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    np.save(single, VECTORS)
    content = whole.getvalue()
    flipped = bytes(255 - byte for byte in content[60:100])
    return {
        "empty": b"",
        "text": b"yoga 1 2 3\n",
        "one array": single.getvalue(),
        "cut": content[: len(content) // 2],
        "flipped": content[:60] + flipped + content[100:],
    }


@pytest.mark.parametrize("kind", damaged_files())
def test_a_file_that_is_no_npz_is_told_in_one_line(tmp_path, kind):
    path = tmp_path / "vectors.npz"
    path.write_bytes(damaged_files()[kind])
    with pytest.raises(ValueError, match=r"text4vis.classifier file:.*: not an npz of arrays \(") as caught:
        read_vectors(path, NAMES, 4)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"text4vis.classifier file:.*none.npz: no such file"):
        read_vectors(tmp_path / "none.npz", NAMES, 4)
    with pytest.raises(FileNotFoundError, match="not a file"):
        read_vectors(tmp_path, NAMES, 4)
