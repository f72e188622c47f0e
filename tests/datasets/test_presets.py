"""Presets: chosen by name, they decide on frames and pictures; a feature cache knows its own."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T

from datasets.build import build_eval_loader, build_own_loader, build_train_loader, sampling_rule
from datasets.clips import sampling
from datasets.clips.presets import MOTE, PRESETS, TEXT4VIS, Sampling, antialiased, preset_of
from datasets.features.cache import FeatureCache
from datasets.read import read_data
from utils.config import DataConfig, load_config

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def data(debug_config) -> DataConfig:
    return load_config(debug_config, ["data.workers=0"]).data


@pytest.fixture
def register(monkeypatch):
    """Adds a preset for the length of a test."""
    return lambda name, preset: monkeypatch.setitem(PRESETS, name, preset)


def first_train_frames(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(num_segments) % num_frames


def first_eval_frames(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    return np.tile(np.arange(num_segments) % num_frames, (num_clips, 1))


def centre_crop(input_size: int, crop_area: tuple[float, float]) -> T.CenterCrop:
    return T.CenterCrop(input_size)


FIRST = Sampling(first_train_frames, first_eval_frames)
NEAREST = partial(antialiased, interpolation=InterpolationMode.NEAREST)
TRAINING = {"sampling": FIRST, "train_crop": centre_crop, "gray_share": 1.0, "flip_share": 1.0}
EVALUATION = {"sampling": FIRST, "short_side": 1.5, "resize": NEAREST}


def train_clips(data: DataConfig) -> torch.Tensor:
    loader = build_train_loader(data, read_data(data, ("train",)).parts["train"], NAMES, 5, 0, 1)
    return torch.cat([batch.clips for batch in loader])


def eval_clips(data: DataConfig) -> torch.Tensor:
    loader = build_eval_loader(data, read_data(data, ("val",)).parts["val"], 0, 1, num_clips=2, num_crops=3)
    return torch.cat([batch.clips for batch in loader])


@pytest.mark.parametrize(("clips_of", "rules"), [(train_clips, TRAINING), (eval_clips, EVALUATION)])
def test_each_rule_of_a_registered_preset_changes_the_pictures(data, register, clips_of, rules):
    usual = clips_of(data)
    assert torch.equal(clips_of(replace(data, transforms="mote")), usual)
    for name, rule in rules.items():
        register("other", replace(MOTE, **{name: rule}))
        assert not torch.equal(clips_of(replace(data, transforms="other")), usual), name


def test_the_crops_and_the_dense_frames_are_those_of_the_preset(data, register):
    register("other", replace(MOTE, dense_sampling=FIRST, crops={3: MOTE.crops[5]}))
    other = replace(data, transforms="other", dense=True)
    assert eval_clips(other).shape[1] == 2 * 5
    assert not torch.equal(train_clips(other), train_clips(replace(data, dense=True)))


def test_own_videos_follow_the_preset(data, register, debug_data):
    register("other", replace(MOTE, short_side=2.0))
    paths = [str(next((debug_data / "videos").rglob("*.mp4")))]
    usual, other = (
        next(iter(build_own_loader(each, paths, 1, 1))).clips for each in (data, replace(data, transforms="other"))
    )
    assert usual.shape == other.shape
    assert not torch.equal(usual, other)


def test_an_unknown_preset_is_an_error_that_names_the_known_ones(data):
    with pytest.raises(
        ValueError, match=r"data\.transforms: expected one of mote, .*, tvts_feature, tower, found 'mota'"
    ):
        read_data(replace(data, transforms="mota"), ("train",))


def test_a_cache_without_the_name_of_a_preset_is_one_of_mote(data, register, tmp_path):
    register("other", MOTE)
    rule = sampling_rule(data, is_augmented=False)
    assert rule.pop("transforms") == "mote"
    about = {"shape": [1, 1, 8, 4], "augmented": False, "modality": "video", "decoder": "pyav", "num_crops": 1, **rule}
    (tmp_path / "metadata.json").write_text(json.dumps(about))
    cache = FeatureCache.open(tmp_path, "val_root")
    cache.check(sampling_rule(replace(data, transforms="mote"), is_augmented=False))
    with pytest.raises(ValueError, match="transforms was 'mote', is 'other'"):
        cache.check(sampling_rule(replace(data, transforms="other"), is_augmented=False))


# --- Text4Vis, and keys that change one rule of any preset


def test_text4vis_differs_from_mote_in_training_frames_and_in_the_short_side_at_224():
    assert TEXT4VIS.sampling.train is sampling.bin_train_indices
    assert [TEXT4VIS.resized_side(size) for size in (48, 224, 336)] == [48, 256, 336]
    assert [MOTE.resized_side(size) for size in (48, 224, 336)] == [48, 224, 336]
    assert replace(TEXT4VIS, sampling=MOTE.sampling, short_sides={}) == MOTE


@pytest.mark.parametrize("transforms", PRESETS)
def test_scale_size_is_the_short_side_of_any_preset(data, transforms):
    data = replace(data, transforms=transforms)
    usual, larger = (eval_clips(replace(data, scale_size=size)) for size in (0, 2 * data.input_size))
    assert usual.shape == larger.shape
    assert not torch.equal(usual, larger)
    assert torch.equal(eval_clips(replace(data, scale_size=data.input_size)), usual)
    assert torch.equal(train_clips(replace(data, scale_size=2 * data.input_size)), train_clips(data))


def test_scale_size_takes_the_middle_of_larger_frames():
    frames = torch.randint(256, (1, 3, 256, 300), dtype=torch.uint8)
    view = preset_of(DataConfig(transforms="text4vis")).eval_views(frames, 224, 1)[0]
    assert torch.equal(view, frames[..., 16:240, 38:262])
    whole = preset_of(DataConfig(transforms="mote", scale_size=256)).eval_views(frames, 224, 1)[0]
    assert torch.equal(whole, view)


@pytest.mark.parametrize("size", [1, 223])
def test_a_short_side_below_the_input_is_an_error(data, size):
    with pytest.raises(ValueError, match=rf"data\.scale_size: expected 0 or at least the 224 pixels .* found {size}$"):
        read_data(replace(data, input_size=224, scale_size=size), ("val",))


def test_train_sampling_chooses_the_training_frames_of_any_preset(data):
    by_rule = {name: train_clips(replace(data, train_sampling=name)) for name in ("", "bins", "overlapping")}
    assert torch.equal(by_rule[""], by_rule["overlapping"])
    assert not torch.equal(by_rule["bins"], by_rule["overlapping"])
    other = replace(data, transforms="text4vis")
    assert torch.equal(train_clips(other), by_rule["bins"])
    assert torch.equal(train_clips(replace(other, train_sampling="overlapping")), by_rule["overlapping"])
    assert torch.equal(eval_clips(replace(data, train_sampling="bins")), eval_clips(data))


def test_an_unknown_rule_of_training_frames_is_an_error_that_names_the_known_ones(data):
    with pytest.raises(ValueError, match=r"data\.train_sampling: expected one of bins, overlapping, found 'bin'"):
        read_data(replace(data, train_sampling="bin"), ("train",))


@pytest.mark.parametrize(
    ("augmented", "key", "value", "own"),
    [(False, "scale_size", 300, 224), (True, "train_sampling", "bins", "overlapping")],
)
def test_a_cache_of_another_rule_is_refused_and_an_old_one_has_the_preset_s(data, tmp_path, augmented, key, value, own):
    data = replace(data, input_size=224)
    other = replace(data, **{key: value})
    about = {"shape": [1, 1, 8, 4], "augmented": augmented, "modality": "video", "decoder": "pyav", "num_crops": 1}

    def cache_of(rule: dict) -> FeatureCache:
        (tmp_path / "metadata.json").write_text(json.dumps(about | rule))
        return FeatureCache.open(tmp_path, "val_root")

    rule = sampling_rule(data, augmented)
    old = cache_of({name: rule[name] for name in rule if name != key})
    old.check(rule)
    old.check(sampling_rule(replace(data, **{key: own}), augmented))
    with pytest.raises(ValueError, match=f"{key} was .*, is {value!r}"):
        old.check(sampling_rule(other, augmented))
    with pytest.raises(ValueError, match=f"{key} was {value!r}"):
        cache_of(sampling_rule(other, augmented)).check(rule)
