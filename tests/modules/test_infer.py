"""Settings read off tensors are those that the tensors were made with."""

from dataclasses import replace

import pytest
import torch

from clip.model import CLIP, CLIPConfig
from modules.classes.base import FixedClasses
from modules.formats.infer import ARCHS, infer_settings
from modules.heads.experts import ExpertTransformer
from modules.heads.mean import MeanPooling
from modules.systems.base import System

SMALL = {"vision_layers": 1, "text_layers": 1, "text_width": 64, "text_heads": 1, "embed_dim": 64, "vocab_size": 64}


def checkpoint(width: int, patch: int, grid: int, head: torch.nn.Module, joint_frames: int = 0, text: bool = False):
    """Weights of a model of these shapes, on the meta device."""
    with torch.device("meta"):
        config = CLIPConfig(
            image_size=patch * grid, patch_size=patch, vision_width=width, vision_heads=width // 64, **SMALL
        )
        clip = CLIP(replace(config, joint_frames=joint_frames))
        if not text:
            clip.drop_text()
        return System(clip, head, FixedClasses(torch.zeros(10, 64))).weights()


@pytest.mark.parametrize(("shapes", "arch"), ARCHS.items())
@pytest.mark.parametrize(("layers", "experts"), [(4, 4), (6, 2), (1, 0)])
def test_tower_and_head_are_read_off(shapes, arch, layers, experts):
    found = infer_settings(checkpoint(*shapes, ExpertTransformer(64, layers, 1, experts, 10)), "w.pt")
    assert found == {
        "network.arch": arch,
        "data.input_size": shapes[1] * shapes[2],
        "network.fix_text": True,
        "network.temporal_layer": layers,
        "network.num_experts": experts,
    }


def test_a_model_without_head_with_joint_attention_and_text_tower():
    found = infer_settings(checkpoint(768, 16, 14, MeanPooling(), joint_frames=16, text=True), "w.pt")
    assert (found["network.joint_st"], found["network.sim_header"], found["network.fix_text"]) == (True, "None", False)
    assert found["data.num_segments"] == 16


def test_other_towers_and_other_files_are_named():
    with pytest.raises(ValueError, match=r"w\.pt carries no configuration.*width 64, 4 x 4 patches of 8 pixels"):
        infer_settings(checkpoint(64, 8, 4, MeanPooling()), "w.pt")
    with pytest.raises(ValueError, match="holds no CLIP"):
        infer_settings({"model_state_dict": {}, "fusion_model_state_dict": {}}, "w.pt")
