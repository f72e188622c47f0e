"""The preset of ViFi-CLIP and OST: the published frames and pixels to the last bit, and draws as often as published."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2 as T

from datasets.build import build_eval_loader, build_source, build_train_loader
from datasets.clips.augment import FrameJitter, MultiScaleCrop
from datasets.clips.presets import VIFI, preset_of
from datasets.clips.resize import resize_short_side
from datasets.read import read_data
from utils.config import DataConfig

SIZE = 48


@pytest.fixture
def data(golden, ost_golden) -> DataConfig:
    return DataConfig(
        transforms="vifi", num_segments=8, batch_size=4, workers=0, input_size=SIZE, decoder="decord",
        val_root=str(golden / "videos"), val_list=str(ost_golden / "list.txt"), label_list=str(golden / "labels.csv"),
    )  # fmt: skip


def eval_clips(data: DataConfig, num_crops: int) -> list[torch.Tensor]:
    """uint8 [crops, T, 3, S, S] of each video."""
    loader = build_eval_loader(data, read_data(data, ("val",)).parts["val"], 0, 1, num_crops=num_crops)
    return [clips for batch in loader for clips in batch.clips]


# --- evaluation


@pytest.mark.parametrize("num_frames", [8, 32])
def test_frames_of_a_test_are_the_published_ones(decord, data, ost_golden, num_frames):
    source = build_source(data, read_data(data, ("val",)).parts["val"])
    expected = np.load(ost_golden / f"ref_ost_zs_1x1_T{num_frames}.npz")["frame_indices"]
    rule = VIFI.sampling.evaluation
    found = [rule(source.open(index).num_frames, num_frames) for index in range(len(source.videos))]
    assert np.array_equal(np.stack(found), expected)


@pytest.mark.parametrize(("name", "num_crops"), [("ref_ost_zs_1x1_T8", 1), ("ref_ost_ft_1x3_T8", 3)])
def test_pixels_of_a_test_are_the_published_ones(decord, data, ost_golden, name, num_crops):
    reference, clips = np.load(ost_golden / f"{name}.npz"), eval_clips(data, num_crops)
    for place in (0, 4):
        expected = reference[f"pixels_{place}"].reshape(num_crops, -1, 3, SIZE, SIZE)
        assert np.array_equal(clips[place][:, : expected.shape[1]].numpy(), expected)


def test_whole_clips_are_the_published_ones(decord, data, ost_golden, golden):
    reference = np.load(ost_golden / "forward_T8.npz")
    names = [Path(str(name)).name for name in reference["videos"]]
    listed = [line.split()[0] for line in (ost_golden / "list.txt").read_text().splitlines()]
    clips = eval_clips(data, 1)
    for name, expected in zip(names, reference["frames"], strict=True):
        assert np.array_equal(clips[listed.index(name)][0].numpy(), expected)


def test_one_crop_is_cut_from_larger_frames_than_three_are():
    assert [VIFI.resized_side(224, num_crops) for num_crops in (1, 3, 5)] == [256, 224, 256]
    assert VIFI.resized_side(SIZE) == 54  # 54.9, rounded down
    wide = preset_of(DataConfig(transforms="vifi", scale_size=300))
    assert [wide.resized_side(224, num_crops) for num_crops in (1, 3)] == [300, 300]


def numbered(height: int, width: int) -> torch.Tensor:
    """Pixels that tell where they were: uint8 [1, 3, H, W], row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, 0 * rows]).to(torch.uint8)[None]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (32, 61, [(0, 0), (0, 28), (0, 14)]),  # the last column is in no crop
        (61, 32, [(0, 0), (28, 0), (14, 0)]),
        (32, 32, [(0, 0)] * 3),
    ],
)
def test_three_crops_are_the_ends_and_the_middle_of_the_long_side(height, width, expected):
    views = VIFI.eval_views(numbered(height, width), 32, 3)
    assert [tuple(view[0, :2, 0, 0].tolist()) for view in views] == expected


def test_the_centre_crop_is_rounded_down():
    frames = numbered(36, 53)  # 36 pixels for 32: no resize
    assert VIFI.eval_views(frames, 32, 1)[0, 0, :2, 0, 0].tolist() == [2, 10]


# --- training


def test_crops_come_in_ten_shapes():
    crop = MultiScaleCrop(224, 256)
    sides = [256, 224, 192, 168]
    pairs = {(a, b) for a in sides for b in sides if abs(sides.index(a) - sides.index(b)) <= 1}
    assert set(crop.shapes()) == pairs
    assert len(crop.shapes()) == 10
    assert MultiScaleCrop(48, 54).shapes()[0] == (54, 54)
    assert (54, 48) in MultiScaleCrop(48, 54).shapes()  # 47.25: near enough to 48
    assert (54, 47) not in MultiScaleCrop(48, 54).shapes()


def test_crops_are_cut_at_corners_and_in_the_middle_of_resized_frames():
    frames = torch.randint(256, (2, 3, 40, 70), dtype=torch.uint8)
    resized = resize_short_side(frames, 54)
    height, width = resized.shape[-2:]
    expected = []
    for y in range(height - 48 + 1):
        expected += [((y, x), resized[..., y : y + 48, x : x + 48]) for x in range(width - 48 + 1)]
    places = Counter()
    for seed in range(400):
        torch.manual_seed(seed)
        clip = MultiScaleCrop(48, 54)(frames)
        assert clip.shape == (2, 3, 48, 48)
        places.update(place for place, cut in expected if torch.equal(cut, clip))
    y, x = (height - 48) // 4, (width - 48) // 4
    assert set(places) == {(0, 0), (0, 4 * x), (4 * y, 0), (4 * y, 4 * x), (2 * y, 2 * x)}
    assert sum(places.values()) / 400 == pytest.approx(0.1, abs=0.04)  # one shape of ten is 48 x 48


def test_colours_flicker_in_a_share_of_clips():
    frames = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8).expand(3, -1, -1, -1)
    jitter = FrameJitter(0.8, T.ColorJitter(brightness=0.4))
    changed = []
    for seed in range(300):
        torch.manual_seed(seed)
        clip = jitter(frames)
        changed.append(not torch.equal(clip, frames))
        if changed[-1]:
            assert not torch.equal(clip[0], clip[1])
    assert np.mean(changed) == pytest.approx(0.8, abs=0.07)


def test_a_seed_decides_all_and_every_step_takes_part():
    transform, frames = VIFI.train_transform(32, [0]), torch.randint(256, (3, 3, 40, 50), dtype=torch.uint8)

    def draw(seed: int, preset=VIFI) -> bytes:
        torch.manual_seed(seed)
        return preset.train_transform(32, [0])(frames, 0)[0].numpy().tobytes()

    assert draw(5) == draw(5)
    clips = []
    for seed in range(100):
        torch.manual_seed(seed)
        clips.append(transform(frames, 0)[0])
    assert all(clip.shape == (3, 3, 32, 32) and clip.dtype == torch.uint8 for clip in clips)
    grays = np.mean([torch.equal(clip[:, 0], clip[:, 1]) for clip in clips])
    assert grays == pytest.approx(0.2, abs=0.13)
    for rule in ({"jitter": None}, {"gray_share": 1.0}, {"flip_share": 1.0}):
        assert [draw(seed, replace(VIFI, **rule)) for seed in range(8)] != [draw(seed) for seed in range(8)]


def test_crops_of_any_area_are_refused_with_this_preset(data):
    data = replace(data, train_root=data.val_root, train_list=data.val_list, crop_area=(0.5, 1.0))
    videos = read_data(data, ("train",)).parts["train"]
    with pytest.raises(ValueError, match=r"data\.crop_area: .* data\.transforms=vifi .* found \[0\.5, 1\.0\]"):
        build_train_loader(data, videos, [str(label) for label in range(12)], 0, 0, 1)
    loader = build_train_loader(replace(data, crop_area=(0.08, 1.0)), videos, ["a"] * 12, 0, 0, 1)
    assert next(iter(loader)).clips.shape == (4, 1, 8, 3, SIZE, SIZE)
