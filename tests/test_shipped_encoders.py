"""The shipped configurations of PE-Core and SigLIP2 fit what open_clip says of these towers."""

from pathlib import Path

import open_clip
import pytest

from clip.names.open_clip import describe
from datasets.clips.presets import preset_of
from modules.build import load_config
from modules.check import check_network

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RULES = {"resize": "resize_mode", "interpolation": "interpolation"}
TRAINING = {"pe_b16_8f": "pe_b16", "pe_l14_336_8f": "pe_l14_336", "siglip2_b16_8f": "siglip2_b16"}


@pytest.mark.parametrize("name", TRAINING)
def test_size_statistics_and_resize_are_the_tower_s(name):
    config = load_config(CONFIGS / "k400" / f"{name}.yaml")
    check_network(config)
    model, tag = config.network.arch.split("/")
    told, described = open_clip.get_pretrained_cfg(model, tag), open_clip.get_model_config(model)
    assert config.data.input_size == described["vision_cfg"]["image_size"]
    assert preset_of(config.data).of_towers == {name: told[key] for name, key in RULES.items()}
    assert not describe(config.network.arch).is_plain
    assert described["embed_dim"] % (described["text_cfg"]["width"] // 64) == 0  # the head's attention heads


@pytest.mark.parametrize("name", TRAINING)
def test_zero_shot_configurations_differ_from_training_in_their_lists_alone(name):
    paths, others = (sorted((CONFIGS / "zero_shot" / each).glob("*.yaml")) for each in (TRAINING[name], "vitb16"))
    assert [path.name for path in paths] == [path.name for path in others]
    training = load_config(CONFIGS / "k400" / f"{name}.yaml")
    for path in paths:
        config = load_config(path)
        assert config.network == training.network
        assert (config.data.resize, config.data.input_size) == (training.data.resize, training.data.input_size)
        assert config.data.dataset == path.stem
