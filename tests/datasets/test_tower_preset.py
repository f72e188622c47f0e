"""The preset ``tower``: pictures as the tower's own description wants them, here against open_clip's own transforms."""

from functools import partial

import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import InterpolationMode

from datasets.clips.presets import MOTE, preset_of, random_resized_crop
from modules.build import load_config
from utils.config import DataConfig
from utils.config.pixels import RESIZES

TAGS = {
    "PE-Core-B-16/meta": "squash_bilinear",
    "ViT-B-16-SigLIP2/webli": "squash_bicubic",
    "MobileCLIP2-S0/dfndr2b": "shortest_bilinear",
    "ViT-B-16/datacomp_xl_s13b_b90k": "shortest_bicubic",
    "ViT-B/16": "shortest_bicubic",
}


@pytest.fixture
def config_of(tmp_path):
    """Load a configuration of nothing but overrides."""
    (tmp_path / "config.yaml").write_text("")
    return lambda *overrides: load_config(tmp_path / "config.yaml", overrides)


@pytest.mark.parametrize("tag", TAGS)
def test_a_configuration_takes_the_rule_of_its_tower(tag, config_of):
    data = config_of(f"network.arch={tag}", "data.transforms=tower").data
    assert (data.transforms, data.resize) == ("tower", TAGS[tag])
    rules = preset_of(data).of_towers
    assert rules == RESIZES[TAGS[tag]]  # mean and std are the tower's own
    other = config_of(f"network.arch={tag}", "data.transforms=tower", "data.resize=squash_bicubic").data
    assert other.resize == "squash_bicubic"
    assert config_of(f"network.arch={tag}").data.resize == ""  # MoTE's preset has its own, whatever the tower says


@pytest.mark.parametrize("rule", RESIZES)
def test_pictures_come_within_a_grey_level_of_open_clip_s(rule):
    mode, _, interpolation = rule.partition("_")
    generator = torch.Generator().manual_seed(4)
    small = torch.rand(3, 9, 12, generator=generator)[None]
    frame = torch.nn.functional.interpolate(small, (90, 130), mode="bicubic").clamp(0, 1).mul(255).round().byte()[0]
    preset = preset_of(DataConfig(transforms="tower", resize=rule, input_size=48))
    found = preset.eval_views(frame[None], 48, 1)[0, 0]
    theirs = image_transform(48, False, (0.0,) * 3, (1.0,) * 3, resize_mode=mode, interpolation=interpolation)
    expected = theirs(Image.fromarray(frame.permute(1, 2, 0).numpy())) * 255
    assert found.shape == (3, 48, 48)
    assert (found - expected).abs().max() <= 2
    assert (found - expected).abs().mean() < 0.5


@pytest.mark.parametrize("rule", RESIZES)
def test_training_crops_are_resized_with_the_same_interpolation(rule):
    crop = preset_of(DataConfig(transforms="tower", resize=rule)).train_crop(32, (0.5, 1.0))
    assert crop.interpolation == InterpolationMode(rule.partition("_")[2])
    assert MOTE.train_crop(32, (0.5, 1.0)).interpolation == InterpolationMode.BILINEAR


def test_a_resize_changes_one_thing_in_any_preset():
    mote = preset_of(DataConfig(transforms="mote", resize="squash_bilinear"))
    assert mote.sampling == MOTE.sampling
    assert isinstance(mote.train_crop, partial)
    assert mote.train_crop.func is random_resized_crop
    vifi, own = (preset_of(DataConfig(transforms="vifi", resize=rule)) for rule in ("squash_bilinear", ""))
    assert vifi.train_crop is own.train_crop
    assert vifi.of_towers == own.of_towers | RESIZES["squash_bilinear"]


def test_a_size_of_0_is_the_tower_s(config_of):
    assert config_of("network.arch=ViT-B-16-SigLIP2-384/webli", "data.input_size=0").data.input_size == 384
    assert config_of("network.arch=ViT-L/14@336px", "data.input_size=0").data.input_size == 336
    size = open_clip.get_model_config("PE-Core-L-14-336")["vision_cfg"]["image_size"]
    assert config_of("network.arch=PE-Core-L-14-336/meta", "data.input_size=0").data.input_size == size


def test_what_a_file_does_not_tell_must_be_said(config_of, tmp_path):
    (tmp_path / "clip.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"data\.input_size: 0 stands for .*clip\.pt is a file"):
        config_of(f"network.arch={tmp_path / 'clip.pt'}", "data.input_size=0")


def test_where_no_tower_is_known_the_pictures_are_openai_s_and_said_to_be():
    assert preset_of(DataConfig(transforms="tower")).of_towers == RESIZES["shortest_bicubic"]


def test_a_tower_that_does_not_exist_is_told_before_anything_else(config_of):
    with pytest.raises(FileNotFoundError, match=r"the nearest: PE-Core-B-16/meta"):
        config_of("network.arch=PE-Core-B-16/mota", "data.transforms=tower")
