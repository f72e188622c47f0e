"""Settings read off tensors are those that the tensors were made with."""

from dataclasses import replace

import pytest
import torch

from clip.model import CLIP, CLIPConfig
from modules.classes.base import FixedClasses
from modules.formats.infer import ARCHS, RESNETS, infer_settings
from modules.heads.experts import ExpertTransformer
from modules.heads.mean import MeanPooling
from modules.systems.base import System

SMALL = {"vision_layers": 1, "text_layers": 1, "text_width": 64, "text_heads": 1, "embed_dim": 64, "vocab_size": 64}


def checkpoint(width: int, patch: int, grid: int, head: torch.nn.Module, text: bool = False, **options):
    """Weights of a model of these shapes, on the meta device."""
    with torch.device("meta"):
        config = CLIPConfig(
            image_size=patch * grid, patch_size=patch, vision_width=width, vision_heads=width // 64, **SMALL
        )
        clip = CLIP(replace(config, **options))
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


@pytest.mark.parametrize(("shapes", "arch"), RESNETS.items())
@pytest.mark.parametrize("time_module", ["", "tsm"])
def test_a_resnet_is_read_off(shapes, arch, time_module):
    width, layers, grid = shapes
    options = {"resnet_layers": layers, "vision_layers": sum(layers), "time_module": time_module}
    found = infer_settings(checkpoint(width, 32, grid, MeanPooling(), **options | {"vision_heads": 1}), "w.pt")
    assert (found["network.arch"], found["data.input_size"]) == (arch, 32 * grid)
    assert found.get("network.tm") == (time_module or None)


@pytest.mark.parametrize(("time_module", "tm"), [("tsm", "tsm"), ("tokent1d", "tokent1d"), ("tokenshift", None)])
def test_a_temporal_module_is_read_off_where_names_tell_it(time_module, tm):
    found = infer_settings(checkpoint(768, 32, 7, MeanPooling(), time_module=time_module), "w.pt")
    assert (found["network.arch"], found.get("network.tm")) == ("ViT-B/32", tm)


def test_other_towers_and_other_files_are_named():
    with pytest.raises(ValueError, match=r"w\.pt carries no configuration.*width 64, 4 x 4 patches of 8 pixels"):
        infer_settings(checkpoint(64, 8, 4, MeanPooling()), "w.pt")
    shapes = {"resnet_layers": (1, 2, 1, 1), "vision_layers": 5}
    with pytest.raises(ValueError, match=r"a ResNet of \[1, 2, 1, 1\] blocks, width 64, for 64 pixels.* none of RN50,"):
        infer_settings(checkpoint(64, 32, 2, MeanPooling(), **shapes), "w.pt")
    with pytest.raises(ValueError, match="holds no CLIP"):
        infer_settings({"model_state_dict": {}, "fusion_model_state_dict": {}}, "w.pt")
