"""Feature caches: rows by list path, views by seed and epoch, failures by name; a writer that may be stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.features.cache import FeatureCache, FeatureVideos, TrainFeatureVideos
from datasets.features.writer import FeatureWriter
from datasets.lists.records import VideoList
from datasets.read import read_lists
from utils.config import DataConfig

NAMES = ["a b.mp4", "gone.mp4", "c\td.mp4", "é.mp4", "e.mp4"]
SHAPE = [5, 3, 2, 4]  # N, V, T, D
METADATA = {
    "shape": SHAPE,
    "augmented": False,
    "modality": "video",
    "decoder": "pyav",
    "num_crops": 1,
    "num_segments": 2,
}
FEATURES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float16)
LABELS = np.arange(15).reshape(5, 3)


def video_list(names: list[str], labels: list[int] | None = None) -> VideoList:
    labels = np.array(labels or [10 * NAMES.index(name) for name in names], dtype=np.int64)
    return VideoList("", np.array([name.encode() for name in names]), labels, None)


def write(folder: Path, *, augmented: bool = False, numbers: list[int] | None = None, finish: bool = True) -> None:
    """A cache in chunks of two videos; the second video is unreadable."""
    writer = FeatureWriter(folder, video_list(NAMES), METADATA | {"augmented": augmented}, chunk_size=2)
    for number in writer.begin() if numbers is None else numbers:
        rows = writer.chunks[number]
        failures = {"gone.mp4": "no such\tfile"} if number == 0 else {}
        writer.write(number, FEATURES[rows.start : rows.stop], LABELS[rows.start : rows.stop], failures)
    if finish:
        writer.finish(np.ones((4, 4)))


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    write(tmp_path)
    return FeatureCache.open(tmp_path, "val_root")


@pytest.fixture
def augmented(tmp_path) -> FeatureCache:
    write(tmp_path, augmented=True)
    return FeatureCache.open(tmp_path, "train_root")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_list_of_cached_videos_finds_its_rows(cache):
    videos = FeatureVideos(cache, video_list(["é.mp4", "a b.mp4", "c\td.mp4"], [7, 8, 9]))
    batch = videos.__getitems__([2, 0, 1])
    assert batch.clips is None
    assert batch.features.dtype == torch.float16
    np.testing.assert_array_equal(batch.features.numpy(), FEATURES[[2, 3, 0]])
    assert batch.indices.tolist() == [2, 0, 1]
    assert batch.labels.tolist() == [9, 7, 8]  # the list's: views of an evaluation have no label of their own


def test_a_known_failure_is_reported_with_its_reason_and_left_out(cache):
    batch = FeatureVideos(cache, video_list(NAMES)).__getitems__([0, 1, 2])
    assert batch.indices.tolist() == [0, 2]
    assert batch.failed_indices.tolist() == [1]
    assert batch.failures == [("gone.mp4", "no such file")]
    assert FeatureVideos(cache, video_list(["gone.mp4"])).__getitems__([0]).is_empty


def test_a_video_that_is_not_cached_is_an_error(cache):
    with pytest.raises(ValueError, match=r"1 of 2 videos of the list are not in it, the first: new\.mp4"):
        FeatureVideos(cache, video_list(["e.mp4", "new.mp4"], [0, 0]))


def test_training_takes_a_view_that_depends_on_seed_epoch_and_index(augmented):
    def views(seed: int, epoch: int) -> list[int]:
        names = ["a b.mp4", "c\td.mp4", "é.mp4", "e.mp4"]
        batch = TrainFeatureVideos(augmented, video_list(names), seed).__getitems__([(epoch, i) for i in range(4)])
        assert batch.features.shape == (4, 1, 2, 4)
        rows = [NAMES.index(name) for name in names]
        chosen = [label % 3 for label in batch.labels.tolist()]  # the labels tell which view it is
        np.testing.assert_array_equal(batch.features[:, 0].numpy(), FEATURES[rows, chosen])
        np.testing.assert_array_equal(batch.labels.numpy(), LABELS[rows, chosen])
        return chosen

    assert views(0, 0) == views(0, 0)
    drawn = [views(seed, epoch) for seed in range(3) for epoch in range(5)]
    assert set(map(tuple, drawn[:5])) != set(map(tuple, drawn[5:10]))
    assert {view for row in drawn for view in row} == {0, 1, 2}


def test_the_view_of_a_sample_does_not_depend_on_its_batch(augmented):
    videos = TrainFeatureVideos(augmented, video_list(NAMES), seed=3)
    together = videos.__getitems__([(2, 4), (2, 3), (2, 1)])
    alone = [videos.__getitems__([(2, index)]) for index in (4, 3, 1)]
    assert torch.equal(together.features, torch.cat([batch.features for batch in alone]))


def test_a_failed_video_is_replaced_in_training_and_reported(cache):
    videos = TrainFeatureVideos(cache, video_list(NAMES), seed=0)
    replaced = {videos.__getitems__([(epoch, 1)]).indices.item() for epoch in range(20)}
    assert replaced == {0, 2, 3, 4}
    assert videos.__getitems__([(0, 1)]).failures[0].path == "gone.mp4"
    nothing = TrainFeatureVideos(cache, video_list(["gone.mp4"]), seed=0).__getitems__([(0, 0)])
    assert nothing.is_empty
    assert nothing.failed_indices.tolist() == [0]


def test_augmented_views_refuse_a_list_with_other_labels(augmented):
    TrainFeatureVideos(augmented, video_list(NAMES), 0)
    with pytest.raises(ValueError, match=r"e\.mp4 has label 40 in the cache, 41 in the list"):
        TrainFeatureVideos(augmented, video_list(["e.mp4"], [41]), 0)


def test_metadata_that_differ_are_all_named(cache):
    cache.check({"num_segments": 2, "augmented": False})
    with pytest.raises(ValueError, match="augmented was False, is True; num_segments was 2, is 8; extract"):
        cache.check({"num_segments": 8, "augmented": True})


def test_a_folder_without_a_complete_cache_is_an_error(tmp_path):
    write(tmp_path / "part", numbers=None, finish=False)
    for folder in (tmp_path, tmp_path / "part"):
        with pytest.raises(FileNotFoundError, match=r"data\.val_root .*expected the folder of a feature cache"):
            FeatureCache.open(folder, "val_root")


@pytest.mark.parametrize("done", [[], [0], [2, 0], [0, 1, 2]])
def test_a_writer_goes_on_where_it_was_stopped(tmp_path, done):
    write(tmp_path / "whole")
    FeatureWriter(tmp_path / "parts", video_list(NAMES), METADATA, 2).begin()
    write(tmp_path / "parts", numbers=done, finish=False)
    writer = FeatureWriter(tmp_path / "parts", video_list(NAMES), METADATA, 2)
    assert writer.begin() == sorted({0, 1, 2} - set(done))
    write(tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert writer.begin() == []
    assert writer.failed() == ["gone.mp4"]


def test_a_writer_of_other_settings_is_refused(tmp_path):
    write(tmp_path, finish=False)
    writer = FeatureWriter(tmp_path, video_list(NAMES), METADATA | {"num_segments": 4}, 2)
    with pytest.raises(ValueError, match=r"num_segments was 2, is 4; remove it"):
        writer.begin()


def test_leftovers_of_a_removed_cache_are_not_taken_for_finished_rows(tmp_path):
    write(tmp_path, finish=False)
    (tmp_path / "unfinished.json").unlink()
    writer = FeatureWriter(tmp_path, video_list(NAMES), METADATA, 2)
    assert writer.begin() == [0, 1, 2]


def test_the_list_keeps_the_form_of_what_was_cached(tmp_path):
    (tmp_path / "list.txt").write_text("a folder 17 3\n")
    FeatureWriter(
        tmp_path / "c", video_list(["a b.mp4"]), METADATA | {"shape": [1, 1, 2, 4], "modality": "RGB"}, 1
    ).begin()
    (tmp_path / "c" / "unfinished.json").rename(tmp_path / "c" / "metadata.json")
    config = DataConfig(modality="features", val_root=str(tmp_path / "c"), val_list=str(tmp_path / "list.txt"))
    videos = read_lists(config, "val", num_classes=4)
    assert (videos.path(0), videos.labels.tolist()) == ("a folder", [3])


def test_other_programs_can_read_a_cache_with_numpy_alone(cache):
    np.testing.assert_array_equal(np.load(cache.folder / "features.npy", mmap_mode="r")[0], FEATURES[0])
    assert json.loads((cache.folder / "metadata.json").read_text())["shape"] == SHAPE
