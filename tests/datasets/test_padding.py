"""Videos shorter than a clip, where a rule pads: black pictures, and lengths beside them that say so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.build import augmented_views_of, build_eval_loader, build_own_loader, build_source, build_train_loader
from datasets.clips.kept import KeptBatches
from datasets.clips.sampling import NO_FRAME
from datasets.clips.thumbnails import film_strip
from datasets.clips.trial import problem_of
from datasets.clips.video import Batch, VideoSource, collate
from datasets.lists.records import VideoList
from datasets.pack import __main__ as pack
from datasets.read import read_data
from datasets.shapes.videos import encode_video
from utils.config import DataConfig

SIZE, T = 32, 4
FRAMES = (3, 9, 1)  # of the videos


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataConfig:
    """Three bright videos, two of them shorter than a clip."""
    folder = tmp_path_factory.mktemp("short videos")
    rng = np.random.default_rng(0)
    for index, num_frames in enumerate(FRAMES):
        mosaic = rng.integers(90, 256, (num_frames, 6, 16, 3), dtype=np.uint8)
        encode_video(mosaic.repeat(8, axis=1).repeat(8, axis=2), folder / f"{index}.mp4")
    (folder / "list.txt").write_text("".join(f"{index}.mp4 {index}\n" for index in range(len(FRAMES))))
    (folder / "labels.csv").write_text("id,name\n0,a\n1,b\n2,c\n")
    lists = {f"{part}_list": str(folder / "list.txt") for part in ("train", "val")}
    roots = {f"{part}_root": str(folder) for part in ("train", "val")}
    return DataConfig(
        transforms="tvts", num_segments=T, batch_size=3, workers=0, input_size=SIZE,
        label_list=str(folder / "labels.csv"), **lists, **roots,
    )  # fmt: skip


def videos_of(data: DataConfig) -> VideoList:
    return read_data(data, ("val",)).parts["val"]


def eval_batch(data: DataConfig, num_clips: int = 1, num_crops: int = 1) -> Batch:
    data = replace(data, batch_size=data.batch_size * num_clips * num_crops)
    (batch,) = build_eval_loader(data, videos_of(data), 0, 1, num_clips, num_crops)
    return batch


def assert_padded(clips: torch.Tensor, lengths: torch.Tensor) -> None:
    """Of clips [B, V, T, 3, S, S]: pictures up to the length, black ones behind it."""
    is_black = clips.flatten(3).amax(dim=-1) == 0
    assert torch.equal(is_black, torch.arange(clips.shape[2]) >= lengths[..., None])


def test_every_view_of_a_short_video_is_padded_and_says_how_far(data):
    batch = eval_batch(data, num_clips=2, num_crops=3)
    assert batch.clips.shape[:3] == (3, 6, T)
    assert batch.lengths.dtype == torch.int64
    assert batch.lengths.tolist() == [[length] * 6 for length in (3, 4, 1)]
    assert_padded(batch.clips, batch.lengths)


def test_only_frames_that_there_are_get_read(data):
    source = build_source(data, videos_of(data))
    read = source.read(0, lambda num_frames: np.array([[2, 0, NO_FRAME], [1, NO_FRAME, NO_FRAME]]))
    expected = source.open(0).read(np.array([2, 0, 1]))
    assert torch.equal(read.pixels[[0, 1, 3]], expected)
    assert not read.pixels[[2, 4, 5]].any()
    assert read.lengths.tolist() == [2, 1]


def test_padding_has_no_time(data):
    seconds = eval_batch(data).seconds
    assert np.isfinite(seconds[0]).tolist() == [[True, True, True, False]]
    assert np.isfinite(seconds[1]).all()
    assert (np.diff(seconds[0][0, :3]) > 0).all()


def test_batches_of_whole_clips_have_no_lengths(data):
    whole = replace(data, transforms="mote")
    assert eval_batch(whole).lengths is None
    sample = build_eval_loader(data, videos_of(data), 0, 1).dataset[1]
    assert sample.lengths is None
    assert collate([sample]).lengths is None


def test_training_clips_are_padded_too(data):
    (batch,) = build_train_loader(data, videos_of(data), ["a", "b", "c"], 0, 0, 1)
    assert dict(zip(batch.labels.tolist(), batch.lengths[:, 0].tolist(), strict=True)) == {0: 3, 1: 4, 2: 1}
    assert_padded(batch.clips, batch.lengths)
    views = augmented_views_of(data, videos_of(data), ["a", "b", "c"], 0, num_views=2)
    batch = collate([views[index] for index in range(3)])
    assert batch.lengths.tolist() == [[3, 3], [4, 4], [1, 1]]
    assert_padded(batch.clips, batch.lengths)


def test_packed_and_own_videos_are_padded_alike(data, tmp_path):
    pack.main([data.val_list, "--root", data.val_root, "--out", str(tmp_path), "--workers", "0"])
    packed = eval_batch(replace(data, modality="shards", val_root=str(tmp_path), val_list=str(tmp_path / "list.txt")))
    paths = [str(Path(data.val_root, f"{index}.mp4")) for index in range(3)]
    (own,) = build_own_loader(data, paths, 1, 1)
    for batch in (packed, own):
        assert batch.lengths.tolist() == [[3], [4], [1]]
        assert_padded(batch.clips, batch.lengths)


def test_workers_and_kept_batches_hand_lengths_on(data):
    expected = eval_batch(data)
    loader = KeptBatches(build_eval_loader(replace(data, workers=1), videos_of(data), 0, 1), 1e9)
    for _ in range(2):
        (batch,) = loader
        assert torch.equal(batch.lengths, expected.lengths)
        assert torch.equal(batch.clips, expected.clips)


def test_trials_and_thumbnails_need_no_whole_clip(data):
    source: VideoSource = build_source(data, videos_of(data))
    assert problem_of(source, "data.val_list") == ""
    assert all(film_strip(source, index) for index in range(3))
