"""Loaders: who gets which video, and that neither workers nor processes change what comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.build import build_eval_loader, build_train_loader
from datasets.clips.presets import MOTE
from datasets.clips.samplers import TrainBatches
from datasets.clips.sampling import dense_eval_indices, eval_indices
from datasets.decode.other_readers import DecordReader
from datasets.read import read_data, read_lists
from datasets.shapes.videos import encode_video
from utils.config import DataConfig, RandAugmentConfig, load_config

CLASS_NAMES = ["a bar moving left", "a bar moving right", "a bar moving up", "a bar moving down"]


# --- who gets which video


def global_batches(num_videos: int, batch_size: int, world_size: int, epoch: int = 0, seed: int = 3) -> list[list]:
    """The global batches of an epoch, put together from all processes."""
    shares = []
    for rank in range(world_size):
        batches = TrainBatches(num_videos, batch_size, rank, world_size, seed)
        batches.set_epoch(epoch)
        shares.append(list(batches))
        assert len(shares[-1]) == len(batches)
    return [[key for part in parts for key in part] for parts in zip(*shares, strict=True)]


@pytest.mark.parametrize("num_videos", [8, 23, 24, 61])
@pytest.mark.parametrize("epoch", [0, 5])
def test_global_batches_do_not_depend_on_the_number_of_processes(num_videos, epoch):
    reference = global_batches(num_videos, 8, 1, epoch)
    assert global_batches(num_videos, 4, 2, epoch) == reference
    assert global_batches(num_videos, 2, 4, epoch) == reference


def test_an_epoch_holds_every_video_at_most_once_in_full_batches():
    batches = global_batches(61, 4, 2)
    indices = [index for batch in batches for _, index in batch]
    assert [len(batch) for batch in batches] == [8] * 7
    assert len(set(indices)) == 56
    assert set(indices) <= set(range(61))


def test_every_video_has_its_turn_over_the_epochs():
    seen = {index for epoch in range(10) for batch in global_batches(13, 4, 2, epoch) for _, index in batch}
    assert seen == set(range(13))


def test_keys_carry_the_epoch():
    assert {epoch for batch in global_batches(24, 8, 1, epoch=7) for epoch, _ in batch} == {7}


def test_epochs_and_seeds_shuffle_differently():
    def order(epoch: int, seed: int) -> list[int]:
        return [index for batch in global_batches(24, 8, 1, epoch, seed) for _, index in batch]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(1, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != sorted(order(0, 3))


def test_fewer_videos_than_a_global_batch_are_an_error():
    assert len(TrainBatches(8, 4, 0, 2, 0)) == 1
    with pytest.raises(ValueError, match=r"7 videos, fewer than one batch of 4 x 2 processes.*data\.batch_size"):
        TrainBatches(7, 4, 0, 2, 0)


# --- loaders


@pytest.fixture
def data(debug_config) -> DataConfig:
    return load_config(debug_config).data


def train_batches(data: DataConfig, epoch: int = 0, rank: int = 0, world_size: int = 1) -> list:
    loader = build_train_loader(data, read_lists(data, "train", 4), CLASS_NAMES, 5, rank, world_size)
    loader.batch_sampler.set_epoch(epoch)
    return list(loader)


def eval_batches(data: DataConfig, rank: int = 0, world_size: int = 1, num_clips: int = 2, num_crops: int = 3) -> list:
    videos = read_lists(data, "val", 4)
    return list(build_eval_loader(data, videos, rank, world_size, num_clips, num_crops))


def assert_equal_batches(ours: list, others: list) -> None:
    assert len(ours) == len(others)
    for one, other in zip(ours, others, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert one.labels.tolist() == other.labels.tolist()
        assert torch.equal(one.clips, other.clips)
        assert one.failures == other.failures


@pytest.mark.parametrize("batches_of", [train_batches, eval_batches])
def test_workers_do_not_change_a_bit(data, batches_of):
    assert_equal_batches(batches_of(data), batches_of(replace(data, workers=2)))


def test_workers_do_not_change_replacements(data, tmp_path):
    lines = read_text(data.train_list).splitlines()
    (tmp_path / "train.txt").write_text("\n".join([*lines, "gone.mp4 0", "gone too.mp4 1"]))
    data = replace(data, train_list=str(tmp_path / "train.txt"), batch_size=7)
    batches = train_batches(data)
    assert sum(len(batch.failures) for batch in batches) >= 2
    assert_equal_batches(batches, train_batches(replace(data, workers=2)))


def read_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_two_processes_train_on_the_batches_of_one(data):
    together = train_batches(replace(data, batch_size=4), epoch=1)
    halves = [train_batches(replace(data, batch_size=2), 1, rank, 2) for rank in (0, 1)]
    for whole, first, second in zip(together, *halves, strict=True):
        assert torch.equal(whole.clips, torch.cat([first.clips, second.clips]))
        assert whole.labels.tolist() == first.labels.tolist() + second.labels.tolist()


@pytest.mark.parametrize("world_size", [2, 3, 11])
def test_several_processes_evaluate_the_videos_of_one(data, world_size):
    whole = {
        index: views
        for batch in eval_batches(data)
        for index, views in zip(batch.indices.tolist(), batch.clips, strict=True)
    }
    for rank in range(world_size):
        for batch in eval_batches(data, rank, world_size):
            for index, views in zip(batch.indices.tolist(), batch.clips, strict=True):
                assert torch.equal(views, whole.pop(index))
    assert not whole


def test_a_process_without_videos_has_nothing_to_do(data):
    assert eval_batches(data, rank=8, world_size=9) == []


def test_epochs_differ_and_repeat(data):
    assert_equal_batches(train_batches(data, epoch=1), train_batches(data, epoch=1))
    first, second = (torch.cat([batch.clips for batch in train_batches(data, epoch)]) for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_a_loader_can_go_on_to_the_next_epoch_with_its_workers(data):
    data = replace(data, workers=1)
    loader = build_train_loader(data, read_lists(data, "train", 4), CLASS_NAMES, 5, 0, 1)
    for epoch in (0, 1):
        loader.batch_sampler.set_epoch(epoch)
        assert_equal_batches(list(loader), train_batches(replace(data, workers=0), epoch))


@pytest.fixture
def long_video(data, tmp_path) -> DataConfig:
    """A list of one video of 150 frames, each of its own grey level, that no crop changes much."""
    levels = np.arange(50, 200, dtype=np.uint8)
    encode_video(np.broadcast_to(levels[:, None, None, None], (150, 48, 64, 3)), tmp_path / "long.mp4")
    (tmp_path / "list.txt").write_text("long.mp4 2\n")
    listed = {f"{part}_{key}": str(path) for part in ("train", "val")
              for key, path in (("root", tmp_path), ("list", tmp_path / "list.txt"))}  # fmt: skip
    return replace(data, **listed, batch_size=1, num_segments=8)


def grey_levels(frames: torch.Tensor) -> np.ndarray:
    return frames.float().mean(dim=(-1, -2, -3)).numpy()


def frame_levels(config: DataConfig, indices: np.ndarray) -> np.ndarray:
    return grey_levels(DecordReader(f"{config.val_root}/long.mp4").read(indices))


@pytest.mark.parametrize(
    ("dense", "indices"), [(False, eval_indices(150, 8)[0]), (True, dense_eval_indices(150, 8)[0])]
)
def test_random_shift_off_trains_on_the_frames_of_validation(long_video, dense, indices):
    config = replace(long_video, random_shift=False, dense=dense)
    for epoch in (0, 1):
        (batch,) = train_batches(config, epoch)
        assert grey_levels(batch.clips[0, 0]) == pytest.approx(frame_levels(config, indices), abs=1.1)


def test_random_shift_trains_on_other_frames_every_epoch(long_video):
    levels = [grey_levels(train_batches(long_video, epoch)[0].clips[0, 0]) for epoch in range(3)]
    assert np.abs(levels[0] - levels[1]).max() > 2
    assert np.abs(levels[1] - levels[2]).max() > 2
    assert np.ptp(levels[0]) > 100


def test_dense_training_stays_within_a_window_of_128_frames(long_video):
    for epoch in range(5):
        levels = grey_levels(train_batches(replace(long_video, dense=True), epoch)[0].clips[0, 0])
        assert np.diff(levels) == pytest.approx([16] * 7, abs=2)


@pytest.mark.parametrize(("dense", "rule"), [(False, eval_indices), (True, dense_eval_indices)])
def test_dense_chooses_the_frames_of_evaluation(long_video, dense, rule):
    (batch,) = eval_batches(replace(long_video, dense=dense), num_clips=3, num_crops=1)
    reader = DecordReader(f"{long_video.val_root}/long.mp4")
    expected = torch.stack([MOTE.eval_views(reader.read(clip), 32, 1)[0] for clip in rule(150, 8, 3)])
    assert torch.equal(batch.clips[0], expected)


def test_randaug_and_crop_area_reach_the_transform(data):
    plain = torch.cat([batch.clips for batch in train_batches(data)])
    for change in ({"randaug": RandAugmentConfig(2, 9)}, {"crop_area": (0.9, 1.0)}):
        assert not torch.equal(torch.cat([b.clips for b in train_batches(replace(data, **change))]), plain)


def test_labels_follow_flips_through_the_loader(data):
    """Class 0 moves left and class 1 right, so some of them change sides; up and down never do."""
    listed = read_lists(data, "train", 4).labels
    pairs = set()
    for epoch in range(4):
        for batch in train_batches(data, epoch):
            pairs |= set(zip(listed[batch.indices].tolist(), batch.labels.tolist(), strict=True))
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 3)}


def test_a_batch_of_many_views_holds_about_as_many_clips_as_one_of_single_views(debug_config):
    config = replace(load_config(debug_config).data, batch_size=8)
    videos = read_lists(config, "val", 4)
    clips = [
        next(iter(build_eval_loader(config, videos, 0, 1, num_clips, num_crops))).clips.shape[:2].numel()
        for num_clips, num_crops in ((1, 1), (2, 1), (1, 3), (4, 3))
    ]
    assert clips == [8, 8, 6, 12]  # never less than one video


def test_a_template_that_names_all_frames_alike_is_an_error(debug_config):
    config = replace(load_config(debug_config).data, modality="RGB", image_tmpl="img_%05d.jpg")
    with pytest.raises(ValueError, match=r"data\.image_tmpl: expected a name with a number.*img_%05d"):
        read_lists(config, "val", 4)


# --- few-shot


def test_passes_of_an_epoch_each_hold_every_video_once():
    batches = TrainBatches(6, 4, 0, 1, seed=3, num_passes=4)
    batches.set_epoch(2)
    keys = [key for batch in batches for key in batch]
    assert len(batches) == 6
    assert len(set(keys)) == 24
    passes = [sorted(index for epoch, index in keys[6 * i : 6 * i + 6]) for i in range(4)]
    assert passes == [list(range(6))] * 4
    assert [epoch for epoch, _ in keys] == [8] * 6 + [9] * 6 + [10] * 6 + [11] * 6


def test_passes_count_as_epochs_of_their_own():
    """No two passes of a run share a key, and so the augmentation."""
    batches = TrainBatches(6, 4, 0, 1, seed=3, num_passes=4)
    keys = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        keys += [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys) == 72


def test_passes_are_shared_out_and_resumed_like_single_ones():
    def keys(batch_size: int, rank: int, world_size: int, first_batch: int = 0) -> list[list[tuple[int, int]]]:
        batches = TrainBatches(7, batch_size, rank, world_size, 3, num_passes=5)
        batches.set_epoch(1, first_batch)
        return list(batches)

    reference = keys(4, 0, 1)
    assert [a + b for a, b in zip(keys(2, 0, 2), keys(2, 1, 2), strict=True)] == reference
    assert keys(4, 0, 1, first_batch=3) == reference[3:]


def test_few_videos_make_a_large_batch_over_several_passes():
    assert len(TrainBatches(7, 4, 0, 4, 0, num_passes=3)) == 1
    with pytest.raises(ValueError, match="7 videos x 2 passes, fewer than one batch of 4 x 4 processes"):
        TrainBatches(7, 4, 0, 4, 0, num_passes=2)


def test_a_few_shot_loader_repeats_videos_with_other_augmentation(debug_config):
    config = replace(load_config(debug_config).data, shot=1, shot_repeat=3, batch_size=4)
    videos = read_data(config, ("train",)).parts["train"]
    assert sorted(videos.labels.tolist()) == [0, 1, 2, 3]
    loader = build_train_loader(config, videos, CLASS_NAMES, seed=0, rank=0, world_size=1)
    clips = [clip for batch in loader for index, clip in zip(batch.indices, batch.clips, strict=True) if index == 0]
    assert len(clips) == 3
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[1], clips[2])


@pytest.mark.parametrize(
    ("shot", "repeat", "passes"), [(1, 0, 3), (2, 0, 1), (3, 0, 1), (1, 5, 5), (0, 0, 1), (0, 2, 2)]
)
def test_shot_repeat_0_makes_an_epoch_as_long_as_one_of_the_whole_list(debug_config, shot, repeat, passes):
    data = replace(load_config(debug_config).data, shot=shot, shot_repeat=repeat)  # of 12 videos of 4 classes
    assert read_data(data, ("train",)).num_passes == passes


def test_without_shots_the_train_list_is_whole(debug_config):
    assert len(read_data(load_config(debug_config).data, ("train",)).parts["train"]) == 12


def test_an_unknown_decoder_is_an_error_that_lists_them_before_a_file_is_read():
    config = DataConfig(decoder="ffmpeg", label_list="gone.csv")
    with pytest.raises(ValueError, match=r"data\.decoder: expected one of auto, decord, .*pyav, found 'ffmpeg'"):
        read_data(config, ("val",))
