"""Datasets: the order of views, failures as data, and samples that depend on (seed, epoch, index) alone."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.clips.presets import MOTE
from datasets.clips.sampling import eval_indices, train_indices
from datasets.clips.video import MAX_TRIES, Batch, EvalVideos, Failure, Sample, TrainVideos, VideoSource, collate
from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import FrameFolderReader, UnreadableVideo
from datasets.lists.records import VideoList
from datasets.shapes.videos import encode_video

SIZE = 32


def make_source(root: Path, names: list[str]) -> VideoSource:
    """A source of the named files, whose labels count 0, 1, 2, 0, ..."""
    labels = np.arange(len(names)) % 3
    return VideoSource(VideoList(str(root), np.array([name.encode() for name in names]), labels, None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Folder with 0.mp4 to 9.mp4, 20 to 29 frames of different noise; 3.mp4 and 7.mp4 are broken."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(10):
        mosaic = rng.integers(0, 256, (20 + number, 6, 16, 3), dtype=np.uint8)
        encode_video(mosaic.repeat(8, axis=1).repeat(8, axis=2), folder / f"{number}.mp4")
    (folder / "3.mp4").write_bytes(b"")
    (folder / "7.mp4").write_text("not a video")
    return folder


def eval_videos(source: VideoSource, num_clips: int = 1, num_crops: int = 1) -> EvalVideos:
    indices_of = partial(eval_indices, num_segments=4, num_clips=num_clips)
    return EvalVideos(source, indices_of, partial(MOTE.eval_views, input_size=SIZE, num_crops=num_crops))


def train_videos(source: VideoSource, seed: int = 0) -> TrainVideos:
    def indices_of(num_frames: int, rng: np.random.Generator) -> np.ndarray:
        return train_indices(num_frames, 4, rng)

    return TrainVideos(source, indices_of, MOTE.train_transform(SIZE, [0, 1, 2]), seed)


def assert_equal_samples(one: Sample, other: Sample) -> None:
    assert torch.equal(one.clips, other.clips)
    assert one._replace(clips=None) == other._replace(clips=None)


# --- source


def test_a_source_opens_videos_below_its_root(videos):
    reader = make_source(videos, ["2.mp4"]).open(0)
    assert isinstance(reader, PyAVReader)
    assert reader.num_frames == 22


def test_a_source_opens_absolute_paths_without_a_root(videos):
    assert make_source("", [str(videos / "2.mp4")]).open(0).num_frames == 22


def test_a_source_opens_folders_where_the_list_counts_frames(tmp_path):
    paths = np.array([b"a clip"])
    listed = VideoList(str(tmp_path), paths, np.array([0]), np.array([17]))
    reader = VideoSource(listed, "{}.png", 0).open(0)
    assert isinstance(reader, FrameFolderReader)
    assert reader.num_frames == 17
    with pytest.raises(UnreadableVideo, match=r"16\.png"):
        reader.read(np.array([16]))


# --- evaluation


def test_views_are_crop_major_then_clip(videos):
    source = make_source(videos, ["5.mp4"])
    sample = eval_videos(source, num_clips=3, num_crops=5)[0]
    assert sample.clips.shape == (15, 4, 3, SIZE, SIZE)
    reader = PyAVReader(videos / "5.mp4")
    for clip, indices in enumerate(eval_indices(25, 4, 3)):
        crops = MOTE.eval_views(reader.read(indices), SIZE, 5)
        for crop in range(5):
            assert torch.equal(sample.clips[crop * 3 + clip], crops[crop])


def test_every_video_comes_in_list_order_with_its_label(videos):
    dataset = eval_videos(make_source(videos, ["2.mp4", "0.mp4", "1.mp4", "0.mp4"]))
    samples = [dataset[index] for index in range(len(dataset))]
    assert [(sample.index, sample.label, sample.failures) for sample in samples] == [
        (0, 0, ()), (1, 1, ()), (2, 2, ()), (3, 0, ()),
    ]  # fmt: skip
    assert torch.equal(samples[1].clips, samples[3].clips)
    assert not torch.equal(samples[1].clips, samples[2].clips)


def test_an_unreadable_video_is_a_failure_with_its_label_and_never_another_video(videos):
    sample = eval_videos(make_source(videos, ["0.mp4", "3.mp4", "gone.mp4"]))[1]
    assert (sample.index, sample.label, sample.clips) == (1, 1, None)
    (failure,) = sample.failures
    assert failure.path == "3.mp4"
    assert failure.reason
    (failure,) = eval_videos(make_source(videos, ["gone.mp4"]))[0].failures
    assert failure == Failure("gone.mp4", "no such file")


# --- batches


def sample_of(index: int, label: int, failures: tuple[Failure, ...] = (), is_readable: bool = True) -> Sample:
    frames = torch.full((2, 4, 3, 8, 8), index, dtype=torch.uint8) if is_readable else None
    return Sample(index, label, frames, failures)


def test_a_batch_stacks_its_samples():
    batch = collate([sample_of(4, 1), sample_of(2, 0)])
    assert isinstance(batch, Batch)
    assert batch.indices.tolist() == [4, 2]
    assert batch.labels.tolist() == [1, 0]
    assert batch.clips.shape == (2, 2, 4, 3, 8, 8)
    assert batch.clips.dtype == torch.uint8
    assert batch.features is None
    assert not batch.is_empty
    assert batch.clips[:, 0, 0, 0, 0, 0].tolist() == [4, 2]
    assert batch.failed_indices.tolist() == []
    assert batch.failures == []


def test_a_batch_leaves_failed_videos_out_and_names_them():
    lost, replaced = Failure("lost.mp4", "empty"), Failure("replaced.mp4", "cut")
    samples = [sample_of(4, 1), sample_of(3, 2, (lost,), is_readable=False), sample_of(2, 0, (replaced,))]
    batch = collate(samples)
    assert batch.indices.tolist() == [4, 2]
    assert batch.labels.tolist() == [1, 0]
    assert batch.clips[:, 0, 0, 0, 0, 0].tolist() == [4, 2]
    assert batch.failed_indices.tolist() == [3]
    assert batch.failures == [lost, replaced]


def test_a_batch_without_any_readable_video_is_empty():
    batch = collate([sample_of(3, 2, (Failure("a", "b"),), is_readable=False)])
    assert batch.is_empty
    assert (batch.clips, batch.features) == (None, None)
    assert batch.indices.dtype == batch.labels.dtype == batch.failed_indices.dtype == torch.long
    assert (batch.indices.tolist(), batch.failed_indices.tolist()) == ([], [3])


# --- training

READABLE = ["0.mp4", "1.mp4", "2.mp4", "4.mp4"]


def test_a_training_sample_is_one_view(videos):
    sample = train_videos(make_source(videos, READABLE))[0, 1]
    assert (sample.index, sample.label, sample.failures) == (1, 1, ())
    assert sample.clips.shape == (1, 4, 3, SIZE, SIZE)
    assert sample.clips.dtype == torch.uint8


def test_a_training_sample_depends_on_seed_epoch_and_index_alone(videos):
    source = make_source(videos, READABLE)
    reference = train_videos(source)[2, 1]
    dataset = train_videos(source)
    torch.manual_seed(99)  # as another worker, with another history
    for index in (3, 0, 2):
        dataset[2, index]
    np.random.default_rng().integers(5)
    assert_equal_samples(dataset[2, 1], reference)
    for seed, key in ((1, (2, 1)), (0, (3, 1)), (0, (2, 2))):
        assert not torch.equal(train_videos(source, seed)[key].clips, reference.clips)


def test_loading_leaves_torchs_generator_alone(videos):
    dataset = train_videos(make_source(videos, READABLE))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_training_video_is_replaced_by_the_same_other_one_each_time(videos):
    names = [*READABLE, "3.mp4"]
    sample = train_videos(make_source(videos, names))[1, 4]
    assert [failure.path for failure in sample.failures] == ["3.mp4"] * len(sample.failures)
    assert sample.failures
    assert sample.index in range(4)
    assert sample.label == sample.index % 3
    for epoch in range(10):
        once, again = (train_videos(make_source(videos, names))[epoch, 4] for _ in range(2))
        assert_equal_samples(once, again)


def test_replacements_vary_over_the_epochs_and_name_every_failure(videos):
    names = [*READABLE, "3.mp4", "7.mp4"]
    dataset = train_videos(make_source(videos, names))
    samples = [dataset[epoch, 4] for epoch in range(30)]
    assert {sample.index for sample in samples} == {0, 1, 2, 3}
    assert {sample.failures[0].path for sample in samples} == {"3.mp4"}
    assert "7.mp4" in {failure.path for sample in samples for failure in sample.failures}


def test_a_list_of_unreadable_videos_is_given_up(videos, caplog):
    with caplog.at_level(logging.WARNING):
        sample = train_videos(make_source(videos, ["3.mp4", "7.mp4"]))[0, 0]
    assert sample.clips is None
    assert len(sample.failures) == MAX_TRIES
