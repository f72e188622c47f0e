"""What ``--weights`` names brings its configuration: the file's if one is given, else its own, else an inferred one."""

from pathlib import Path

import pytest
import torch

from clip.model import CLIP, CLIPConfig
from commands.weights import Weights
from modules.build import PLAIN_CLIP, head_of
from modules.classes.base import FixedClasses
from modules.heads.mean import MeanPooling
from modules.systems.clip import PlainCLIP
from utils.weights.four_keys import save_checkpoint

# A ViT-B/16 as far as its shapes tell, with one layer.
TOWERS = CLIPConfig(
    image_size=224, patch_size=16, vision_width=768, vision_heads=12, joint_frames=16, vision_layers=1, text_layers=1,
    text_width=64, text_heads=1, embed_dim=64, vocab_size=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def content() -> dict:
    """A checkpoint with joint attention and a text tower, and without a head or a configuration."""
    system = PlainCLIP(CLIP(TOWERS), MeanPooling(), FixedClasses(torch.zeros(1, 64)))
    return {"epoch": 0, **system.weights(), "optimizer_state_dict": {}}


def write(folder: Path, content: dict) -> Weights:
    save_checkpoint(folder / "w.pt", content)
    return Weights(folder / "w.pt")


def test_without_a_configuration_it_is_what_the_tensors_tell(content, tmp_path):
    weights = write(tmp_path, content)
    config = weights.config(None, ["data.batch_size=5"], {"seed": 3})
    assert (config.network.arch, config.network.joint_st, config.network.fix_text) == ("ViT-B/16", True, False)
    assert head_of(config) == "None"
    assert (config.data.num_segments, config.seed, config.data.batch_size) == (16, 3, 5)


def test_a_configuration_that_is_carried_or_given_is_not_guessed(content, tmp_path):
    weights = write(tmp_path, content | {"config": "network: {arch: my.pt, templates: name}"})
    config = weights.config(None, [])
    assert (config.network.arch, config.network.templates, config.network.joint_st) == ("my.pt", "name", False)
    (tmp_path / "c.yaml").write_text("network: {arch: other.pt}")
    assert weights.config(tmp_path / "c.yaml", []).network.arch == "other.pt"
    assert weights.config(tmp_path / "c.yaml", ["network.arch=third.pt"], {"network.arch": "x.pt"}).network.arch == (
        "third.pt"
    )


def test_the_pretrained_model_averages_frames_whatever_is_configured(tmp_path):
    (tmp_path / "c.yaml").write_text("network: {arch: other.pt, sim_header: Transf}")
    for path in (None, tmp_path / "c.yaml"):
        assert head_of(Weights(PLAIN_CLIP).config(path, [])) == "None"
    assert Weights(PLAIN_CLIP).checkpoint is None
