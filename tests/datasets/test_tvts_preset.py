"""The presets of TVTSv2: the published frames and pixels to the last bit."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.build import build_eval_loader, build_train_loader
from datasets.clips.presets import TVTS, TVTS_FEATURE
from datasets.clips.resize import nearest_short_side, squash
from datasets.clips.sampling import NO_FRAME, part_eval_indices, part_train_indices, whole_eval_indices
from datasets.decode import DECODERS
from datasets.read import read_data
from utils.config import DataConfig

SIZE, T = 48, 12
SIDES = st.integers(1, 90)
FEW = settings(max_examples=60, deadline=None)


@pytest.fixture
def sampling_of(tvtsv2_golden) -> dict:
    return json.loads((tvtsv2_golden / "sampling.json").read_text())


@pytest.fixture
def data(golden, tmp_path) -> DataConfig:
    """Videos of 9 to 61 frames, two of them portraits."""
    names = ("clip_00", "clip_03", "clip_05", "clip_14")
    (tmp_path / "list.txt").write_text("".join(f"{name}.mp4 0\n" for name in names))
    (tmp_path / "labels.csv").write_text("id,name\n0,juggling\n")
    listed = {"val_list": str(tmp_path / "list.txt"), "train_list": str(tmp_path / "list.txt")}
    roots = {"val_root": str(golden / "videos"), "train_root": str(golden / "videos")}
    return DataConfig(
        transforms="tvts", num_segments=T, batch_size=4, workers=0, input_size=SIZE, decoder="decord",
        label_list=str(tmp_path / "labels.csv"), **listed, **roots,
    )  # fmt: skip


class Drawn:
    """A generator that notes what it may draw from."""

    def integers(self, low, high):
        self.ranges = np.stack([low, high], axis=1).tolist()
        return low


# --- frames


def test_frames_of_benchmarks_are_the_published_ones(sampling_of):
    for num_frames, expected in sampling_of["uniform_12"].items():
        (found,) = part_eval_indices(int(num_frames), T).tolist()
        assert found == expected + [NO_FRAME] * (T - len(expected))


def test_frames_of_features_are_the_published_ones(sampling_of):
    for num_frames, expected in sampling_of["feature_12"].items():
        assert whole_eval_indices(int(num_frames), T).tolist() == [expected]


def test_frames_of_training_are_drawn_from_the_published_ranges(sampling_of):
    for num_frames, expected in sampling_of["random_12_ranges"].items():
        part_train_indices(int(num_frames), T, drawn := Drawn())
        assert drawn.ranges == expected


def test_a_part_of_one_frame_gives_it_where_the_published_code_fails(sampling_of):
    assert sampling_of["random_12_fails_below"] == 24
    rng = np.random.default_rng(0)
    for num_frames in range(1, 24):
        found = part_train_indices(num_frames, T, rng)
        real = found[found != NO_FRAME]
        assert len(real) == min(num_frames, T)
        assert (np.diff(real) > 0).all()
        assert (found[len(real) :] == NO_FRAME).all()
        assert 0 <= real[0] <= real[-1] < num_frames


def test_several_clips_are_spread_over_the_parts_and_over_the_video():
    assert part_eval_indices(40, 4, 1).tolist() == [[4, 14, 24, 34]]
    assert part_eval_indices(40, 4, 2).tolist() == [[2, 12, 22, 32], [6, 16, 26, 36]]
    assert part_eval_indices(2, 4, 2).tolist() == [[0, 1, -1, -1]] * 2
    assert whole_eval_indices(16, 4, 2).tolist() == [[0, 4, 8, 12], [2, 6, 10, 15]]


@FEW
@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 5))
def test_frames_of_any_clip_are_in_the_video_and_in_order(num_frames, num_segments, num_clips):
    for rule in (part_eval_indices, whole_eval_indices):
        found = rule(num_frames, num_segments, num_clips)
        assert found.shape == (num_clips, num_segments)
        for clip in found:
            real = clip[clip != NO_FRAME]
            assert (np.diff(real) >= 0).all()
            assert 0 <= real[0] <= real[-1] < num_frames


# --- pixels


def eval_batch(data: DataConfig, num_clips: int = 1, num_crops: int = 1):
    (batch,) = build_eval_loader(
        data, read_data(data, ("val",)).parts["val"], 0, 1, num_clips=num_clips, num_crops=num_crops
    )
    return batch


def test_pixels_of_benchmarks_are_the_published_ones(decord, data, tvtsv2_golden):
    reference, batch = np.load(tvtsv2_golden / "preprocess.npz"), eval_batch(data)
    assert batch.lengths.tolist() == [[9], [12], [12], [9]]
    for row, name in enumerate(("clip_00", "clip_03", "clip_05")):
        real = batch.clips[row, 0, : batch.lengths[row, 0]]
        assert np.array_equal(real[::3].numpy(), reference[f"{name}/frames"])
    assert not batch.clips[0, 0, 9:].any()


@pytest.mark.parametrize("name", ["clip_00", "clip_05"])
def test_pixels_of_features_are_the_published_ones(decord, golden, tvtsv2_golden, name):
    reference = np.load(tvtsv2_golden / "features_b32.npz")
    reader = DECODERS["decord"](golden / "videos" / f"{name}.mp4")
    (indices,) = TVTS_FEATURE.sampling.evaluation(reader.num_frames, T)
    assert np.array_equal(indices, reference[f"{name}/frame_indices"])
    (view,) = TVTS_FEATURE.eval_views(reader.read(indices), SIZE, 1)
    assert np.array_equal(view[::3].numpy(), reference[f"{name}/frames"])


@FEW
@given(SIDES, SIDES, SIDES, st.integers(0, 99))
def test_nearest_is_that_of_pillow(height, width, short_side, seed):
    frames = torch.randint(256, (2, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(seed))
    found = nearest_short_side(frames, short_side)
    picture = Image.fromarray(frames[1].permute(1, 2, 0).numpy())
    expected = picture.resize(tuple(found.shape[:1:-1]), Image.Resampling.NEAREST)
    assert min(found.shape[-2:]) == short_side
    assert np.array_equal(found[1].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_a_long_side_is_rounded_down():
    assert nearest_short_side(torch.zeros(1, 3, 240, 320, dtype=torch.uint8), 268).shape == (1, 3, 268, 357)
    assert nearest_short_side(torch.zeros(1, 3, 479, 270, dtype=torch.uint8), 268).shape == (1, 3, 475, 268)


@pytest.mark.parametrize(
    ("height", "width", "tall"), [(110, 62, True), (76, 62, False), (77, 62, True), (72, 96, False)]
)
def test_tall_pictures_are_squashed_from_above_first(height, width, tall):
    frame = torch.randint(256, (1, 3, height, width), dtype=torch.uint8)
    picture, bilinear = Image.fromarray(frame[0].permute(1, 2, 0).numpy()), Image.Resampling.BILINEAR
    by_order = {
        is_tall: np.asarray(picture.resize(first, bilinear).resize((SIZE, SIZE), bilinear)).transpose(2, 0, 1)
        for is_tall, first in {True: (width, SIZE), False: (SIZE, height)}.items()
    }
    found = squash(frame, SIZE)[0].numpy()
    assert np.array_equal(found, by_order[tall])
    assert not np.array_equal(found, by_order[not tall])


def numbered(height: int, width: int) -> torch.Tensor:
    """Pixels that tell where they were: uint8 [1, 3, H, W], row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, 0 * rows]).to(torch.uint8)[None]


def test_the_centre_crop_is_rounded_to_even():
    assert TVTS.resized_side(224) == 268
    assert TVTS.resized_side(32) == 38
    frames = numbered(38, 43)  # 38 pixels for 32: no resize; 11 / 2 = 5.5 columns and 3 rows are free
    assert TVTS.eval_views(frames, 32, 1)[0, 0, :2, 0, 0].tolist() == [3, 6]
    assert TVTS.eval_views(numbered(38, 45), 32, 1)[0, 0, :2, 0, 0].tolist() == [3, 6]


def test_three_crops_are_the_ends_and_the_middle_of_the_long_side():
    views = TVTS.eval_views(numbered(32, 60), 32, 3)
    assert [tuple(view[0, :2, 0, 0].tolist()) for view in views] == [(0, 0), (0, 28), (0, 14)]


def test_training_takes_one_crop_a_clip_from_anywhere():
    frames = numbered(38, 60).repeat(2, 1, 1, 1)
    transform, places = TVTS.train_transform(32, [0]), Counter()
    for seed in range(300):
        torch.manual_seed(seed)
        clip, label = transform(frames, 0)
        assert (clip.shape, clip.dtype, label) == ((2, 3, 32, 32), torch.uint8, 0)
        assert torch.equal(clip[0], clip[1])
        top, left = clip[0, :2, 0, 0].tolist()
        assert torch.equal(clip[0], frames[0, :, top : top + 32, left : left + 32])  # neither mirrored nor gray
        places[top, left] += 1
    assert {top for top, _ in places} == set(range(7))
    assert {left for _, left in places} == set(range(29))


def test_crops_of_any_area_are_refused_with_this_preset():
    with pytest.raises(ValueError, match=r"data\.crop_area: .* data\.transforms=tvts .* found \[0\.5, 1\.0\]"):
        TVTS.train_transform(32, [0], (0.5, 1.0))


def test_training_reads_short_videos(decord, data):
    (batch,) = build_train_loader(data, read_data(data, ("train",)).parts["train"], ["juggling"], 0, 0, 1)
    lengths = dict(zip(batch.indices.tolist(), batch.lengths[:, 0].tolist(), strict=True))
    assert lengths == {0: 9, 1: 12, 2: 12, 3: 9}
    for clip, length in zip(batch.clips[:, 0], batch.lengths[:, 0], strict=True):
        assert not clip[length:].any()
        assert clip[:length].flatten(1).any(dim=1).all()


def test_features_repeat_the_frames_of_short_videos(decord, data):
    data = replace(data, transforms="tvts_feature", batch_size=4 * 2 * 3)
    batch = eval_batch(data, num_clips=2, num_crops=3)
    assert batch.clips.shape == (4, 6, T, 3, SIZE, SIZE)
    assert batch.lengths is None
