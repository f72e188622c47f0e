"""Feature caches that are damaged: one line that names the file, never another video's features."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.build import build_eval_loader, build_train_loader
from datasets.features.cache import FeatureCache, FeatureVideos
from datasets.lists.records import VideoList
from datasets.read import read_lists
from utils.config import DataConfig

SHAPE = (3, 1, 2, 4)  # two videos that could be read, one that could not
FEATURES = np.arange(24, dtype=np.float16).reshape(SHAPE)
METADATA = {
    "shape": list(SHAPE), "augmented": True, "modality": "video", "decoder": "pyav", "num_crops": None,
    "num_segments": 2, "input_size": 32, "dense": False, "random_shift": True, "crop_area": [0.08, 1.0],
    "randaug": None,
}  # fmt: skip
NAN = FEATURES * np.float16("nan")


def write_cache(folder: Path, metadata: dict = METADATA) -> None:
    (folder / "metadata.json").write_text(json.dumps(metadata))
    np.save(folder / "features.npy", FEATURES)
    np.save(folder / "labels.npy", np.array([[0], [1], [-1]]))
    (folder / "index.txt").write_text("0 0 a.mp4\n1 1 b b.mp4\n")
    (folder / "failed.txt").write_text("gone.mp4\tno such file\n")
    (folder / "list.txt").write_text("a.mp4 0\nb b.mp4 1\ngone.mp4 0\n")


def config_of(folder: Path) -> DataConfig:
    return DataConfig(
        modality="features", train_root=str(folder), train_list=str(folder / "list.txt"), num_segments=2, input_size=32,
        batch_size=2, workers=0,
    )  # fmt: skip


def train_on(folder: Path) -> np.ndarray:
    """Read one epoch as training does; returns its features."""
    config = config_of(folder)
    loader = build_train_loader(config, read_lists(config, "train", 2), ["first", "second"], 0, 0, 1)
    return np.concatenate([batch.features.numpy() for batch in loader])


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def array(name: str, values: np.ndarray, pickled: bool = False) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / name, values, allow_pickle=pickled)


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def more(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + bytes(8))


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def metadata(**changes) -> Callable[[Path], object]:
    return text("metadata.json", json.dumps(METADATA | changes))


def zipped(folder: Path) -> None:
    np.savez(folder / "features.npz", FEATURES)
    (folder / "features.npz").rename(folder / "features.npy")


# What is wrong -> how the cache comes to it, the file and what the error says of it.
DAMAGES = {
    "metadata []": (text("metadata.json", "[]"), "metadata.json", "a JSON list"),
    "metadata {}": (text("metadata.json", "{}"), "metadata.json", "missing shape, augmented"),
    "metadata null": (text("metadata.json", "null"), "metadata.json", "a JSON NoneType"),
    "metadata {x": (text("metadata.json", "{x"), "metadata.json", "not JSON"),
    "metadata empty": (text("metadata.json", ""), "metadata.json", "not JSON"),
    "metadata not UTF-8": (text("metadata.json", b"\xff\xfe{}"), "metadata.json", "not JSON"),
    "metadata of many levels": (text("metadata.json", "[" * 100_000), "metadata.json", "nested too deeply"),
    "metadata of an endless number": (text("metadata.json", '{"a": 1' + "0" * 5000 + "}"), "metadata.json", "not JSON"),
    "shape of three": (metadata(shape=[3, 1, 2]), "metadata.json", "shape: "),
    "shape of texts": (metadata(shape=["3", 1, 2, 4]), "metadata.json", "shape.0: "),
    "shape below 0": (metadata(shape=[-3, 1, 2, 4]), "metadata.json", "shape.0: "),
    "shape of nothing": (metadata(shape=[0, 1, 2, 4]), "metadata.json", "shape.0: "),
    "shape of truth": (metadata(shape=[True, 1, 2, 4]), "metadata.json", "shape.0: "),
    "shape null": (metadata(shape=None), "metadata.json", "shape: "),
    "augmented of text": (metadata(augmented="no"), "metadata.json", "augmented: Input should be a valid boolean"),
    "modality of none": (metadata(modality="sound"), "metadata.json", "modality: Input should be 'video', "),
    "modality of a list": (metadata(modality=["video"]), "metadata.json", "modality: Input should be 'video', "),
    "decoder of a number": (metadata(decoder=3), "metadata.json", "decoder: Input should be a valid string"),
    "crops of text": (metadata(num_crops="10"), "metadata.json", "num_crops: Input should be a valid integer"),
    "a row below 0": (text("index.txt", "-3 0 a.mp4\n1 1 b b.mp4\n"), "index.txt:1", "expected `row label path`"),
    "the row of none": (text("index.txt", "0 0 a.mp4\n-1 1 b b.mp4\n"), "index.txt:2", "expected `row label path`"),
    "a row beyond": (text("index.txt", "0 0 a.mp4\n3 1 b b.mp4\n"), "index.txt:2", "row 3, but the cache has 3"),
    "a row far beyond": (text("index.txt", "999999999 0 a.mp4\n1 1 b b.mp4\n"), "index.txt:1", "row 999999999"),
    "an endless row": (text("index.txt", "9" * 5000 + " 0 a.mp4\n"), "index.txt:1", "expected `row label path`"),
    "a shared row": (text("index.txt", "0 0 a.mp4\n0 1 b b.mp4\n"), "index.txt:2", "belongs to both a.mp4 and b b.mp4"),
    "a row of letters": (text("index.txt", "x 0 a.mp4\n1 1 b b.mp4\n"), "index.txt:1", "expected `row label path`"),
    "a row of another script": (text("index.txt", "\u00b2 0 a.mp4\n"), "index.txt:1", "expected `row label path`"),
    "a label of letters": (text("index.txt", "0 x a.mp4\n1 1 b b.mp4\n"), "index.txt:1", "expected `row label path`"),
    "a line without a path": (text("index.txt", "0 0\n1 1 b b.mp4\n"), "index.txt:1", "expected `row label path`"),
    "an empty line": (text("index.txt", "0 0 a.mp4\n\n1 1 b b.mp4\n"), "index.txt:2", "expected `row label path`"),
    "an index cut short": (text("index.txt", "0 0 a.mp4\n1 1 b b"), "index.txt", "its last line is cut"),
    "another index": (text("index.txt", "0 0 c.mp4\n"), "", "2 of 3 videos of the list are not in it"),
    "no index": (remove("index.txt"), "index.txt", "No such file"),
    "a failure without a tab": (text("failed.txt", "gone.mp4 no such file\n"), "failed.txt:1", "a tab and a reason"),
    "a failure that has a row": (text("failed.txt", "a.mp4\tgone\n"), "failed.txt:1", "that the index does not have"),
    "failures cut short": (text("failed.txt", "gone.mp4\tno su"), "failed.txt", "its last line is cut"),
    "no failures": (remove("failed.txt"), "failed.txt", "No such file"),
    "fewer features": (array("features.npy", FEATURES[:2]), "features.npy", "expected float16 [3, 1, 2, 4], found"),
    "wider features": (array("features.npy", np.zeros((3, 1, 2, 5), np.float16)), "features.npy", "expected float16"),
    "flat features": (array("features.npy", FEATURES.ravel()), "features.npy", "found float16 [24]"),
    "features in fp32": (array("features.npy", FEATURES.astype(np.float32)), "features.npy", "found float32"),
    "features of integers": (array("features.npy", FEATURES.astype(np.int16)), "features.npy", "found int16"),
    "pickled features": (array("features.npy", np.array([{}], object), True), "features.npy", "not an array"),
    "features cut short": (cut("features.npy", 150), "features.npy", "not an array"),
    "features without a header": (cut("features.npy", 20), "features.npy", "not an array"),
    "empty features": (text("features.npy", ""), "features.npy", "not an array"),
    "features and more": (more("features.npy"), "features.npy", "bytes, expected"),
    "features of text": (text("features.npy", "features"), "features.npy", "not an array"),
    "features in a zip": (zipped, "features.npy", "not an array"),
    "no features": (remove("features.npy"), "features.npy", "No such file"),
    "features of NaN": (array("features.npy", NAN), "features.npy", "is not finite"),
    "labels too few": (array("labels.npy", np.array([[0]])), "labels.npy", "expected int64 [3, 1], found int64 [1, 1]"),
    "labels in fp32": (array("labels.npy", np.zeros((3, 1), np.float32)), "labels.npy", "found float32"),
    "pickled labels": (array("labels.npy", np.array([[{}]] * 3, object), True), "labels.npy", "not an array"),
    "labels beyond": (array("labels.npy", np.array([[0], [2], [-1]])), "labels.npy", "labels 0 to 1, found 0 to 2"),
    "labels below 0": (array("labels.npy", np.array([[-1], [0], [0]])), "labels.npy", "expected labels 0 to 1"),
    "no labels": (remove("labels.npy"), "labels.npy", "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_named_before_any_features_are_used(case, tmp_path):
    damage, name, message = DAMAGES[case]
    write_cache(tmp_path)
    damage(tmp_path)
    with pytest.raises((ValueError, OSError)) as error:
        train_on(tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_whole_cache_is_read(tmp_path):
    write_cache(tmp_path)
    assert all(any(np.array_equal(found[0], row) for row in FEATURES[:2, 0]) for found in train_on(tmp_path))


@pytest.mark.parametrize("rows", ["-3 0 a.mp4\n1 1 b.mp4\n", "2 0 a.mp4\n1 1 b.mp4\n", "0 0 a.mp4\n0 1 b.mp4\n"])
def test_rows_are_checked_without_the_arrays(rows, tmp_path):
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA | {"shape": [2, 1, 1, 1], "augmented": False}))
    (tmp_path / "failed.txt").write_text("")
    videos = VideoList.of_pairs("", [("a.mp4", 0), ("b.mp4", 1)])
    (tmp_path / "index.txt").write_text(rows)
    with pytest.raises(ValueError, match=r"index\.txt:\d: damaged"):
        FeatureCache.open(tmp_path, "val_root").rows(videos)
    (tmp_path / "index.txt").write_text("1 0 a.mp4\n0 1 b.mp4\n")
    assert FeatureCache.open(tmp_path, "val_root").rows(videos)[0].tolist() == [1, 0]


def test_a_path_that_was_listed_twice_has_two_rows(tmp_path):
    write_cache(tmp_path)
    (tmp_path / "index.txt").write_text("0 0 a.mp4\n1 0 a.mp4\n2 1 b b.mp4\n")
    cache = FeatureCache.open(tmp_path, "val_root")
    assert cache.rows(VideoList.of_pairs("", [("b b.mp4", 1), ("a.mp4", 0)]))[0].tolist() == [2, 0]


@pytest.mark.parametrize("views", [{"num_clips": 2}, {"num_crops": 3}])
def test_a_cache_of_fewer_views_than_it_says_is_refused(views, tmp_path):
    said = {"augmented": False, "num_clips": 1, "num_crops": 1} | views
    write_cache(tmp_path, METADATA | said)
    videos = VideoList.of_pairs(str(tmp_path), [("a.mp4", 0)])
    with pytest.raises(ValueError, match="its shape is not that of"):
        build_eval_loader(config_of(tmp_path), videos, 0, 1, **({"num_clips": 1, "num_crops": 1} | views))


def test_features_of_nan_name_their_video(tmp_path):
    write_cache(tmp_path)
    broken = FEATURES.copy()
    broken[1, 0, 1, 2] = np.inf
    np.save(tmp_path / "features.npy", broken)
    videos = FeatureVideos(
        FeatureCache.open(tmp_path, "val_root"), VideoList.of_pairs("", [("a.mp4", 0), ("b b.mp4", 1)])
    )
    assert videos.__getitems__([0]).features is not None
    with pytest.raises(ValueError, match=r"features\.npy: damaged, row 1, of b b\.mp4, is not finite"):
        videos.__getitems__([0, 1])
