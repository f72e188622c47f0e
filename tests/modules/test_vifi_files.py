"""Files of OST and ViFi-CLIP: read as data, with our names; what else they hold is used, dropped or refused by name."""

import os
import pathlib
import sys
from collections import OrderedDict
from types import ModuleType

import pytest
import torch

from clip.model import CLIP, CLIPConfig
from modules.formats.infer import infer_settings
from modules.formats.ours import read_checkpoint
from modules.formats.published import format_of, system_of
from modules.formats.vifi import from_vifi
from utils.weights.four_keys import HEAD, MODEL, save_checkpoint

TOKENS = "token_embedding.weight"
OST_CONFIG = {"DATA": {"NUM_FRAMES": 16}, "TRAINER": {"OST": {"USE": "both"}}, "MODEL": {"ARCH": "ViT-B/16"}}


def published(state: dict) -> dict:
    """With their names."""
    names = {name: name.replace("visual.", "image_encoder.") for name in state}
    names = {
        k: v if v.startswith("image_encoder.") or k == "logit_scale" else f"text_encoder.{k}" for k, v in names.items()
    }
    return OrderedDict((f"module.{names[name]}", value) for name, value in state.items())


@pytest.fixture
def state(tiny_clip) -> dict:
    return tiny_clip.state_dict()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file; ``config`` is pickled as an object of yacs, which is gone before it is read."""

    def write(content: dict, config: dict | None = None) -> pathlib.Path:
        if config is not None:
            content = content | {"config": as_nodes(config)}
        torch.save(content, tmp_path / "w.pth")
        for name in ("yacs", "yacs.config"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path / "w.pth"

    def as_nodes(tree):
        if "yacs.config" not in sys.modules:
            module = ModuleType("yacs.config")
            module.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
            monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
            monkeypatch.setitem(sys.modules, "yacs.config", module)
        if not isinstance(tree, dict):
            return tree
        node = sys.modules["yacs.config"].CfgNode({key: as_nodes(value) for key, value in tree.items()})
        node.__dict__["__immutable__"] = True  # as yacs has it
        return node

    return write


def test_a_whole_file_has_our_names_and_tells_its_system_and_frames(state, write):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-6}]}
    content = {"model": published(state), "optimizer": optimizer, "max_accuracy": 71.5, "epoch": 9, "lr_scheduler": {}}
    checkpoint = read_checkpoint(write(content, OST_CONFIG))
    assert checkpoint[MODEL].keys() == state.keys()
    assert all(torch.equal(checkpoint[MODEL][name], value) for name, value in state.items())
    assert (checkpoint[HEAD], checkpoint["optimizer_state_dict"], checkpoint["epoch"]) == ({}, {}, 9)
    assert checkpoint["best_top1"] == 71.5
    assert checkpoint["towers"]["pixel_mean"] == [0.485, 0.456, 0.406]
    assert (system_of(checkpoint), format_of(checkpoint, "w")) == ("ost", "ost")
    assert not {"model", "optimizer", "lr_scheduler", "config"} & checkpoint.keys()


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize(("kind", "trainer"), [("ost", "OST"), ("vificlip", "ViFi_CLIP")])
def test_configuration_or_token_embedding_tell_whose_file_it_is(state, write, kind, trainer, has_config):
    if kind == "vificlip":
        del state[TOKENS]
    buffers = {"module.prompt_learner.complete_text_embeddings": torch.zeros(5, 77, 64)} if kind == "vificlip" else {}
    path = write({"model": published(state) | buffers}, {"TRAINER": {trainer: {}}} if has_config else None)
    checkpoint = read_checkpoint(path)
    assert system_of(checkpoint) == kind
    assert checkpoint[MODEL].keys() == state.keys()


def test_the_configuration_wins_over_the_token_embedding(state, write):
    assert system_of(read_checkpoint(write({"model": published(state)}, {"TRAINER": {"ViFi_CLIP": {}}}))) == "vificlip"


def test_a_bare_state_dict_is_read(state, write):
    checkpoint = read_checkpoint(write(dict(published(state))))
    assert checkpoint[MODEL].keys() == state.keys()
    assert checkpoint["epoch"] == 0
    assert "num_frames" not in checkpoint


@pytest.mark.parametrize("config", [{}, {"DATA": 3}, {"DATA": {"NUM_FRAMES": "16"}}, {"TRAINER": ["OST"]}])
def test_a_configuration_of_another_shape_tells_nothing(state, write, config):
    checkpoint = read_checkpoint(write({"model": published(state)}, config))
    assert "num_frames" not in checkpoint
    assert system_of(checkpoint) == "ost"


@pytest.mark.parametrize("has_tokens", [True, False])
def test_settings_are_inferred_from_shapes_and_configuration(has_tokens):
    shapes = {"vision_layers": 1, "vision_heads": 12, "text_layers": 1, "text_width": 64, "text_heads": 1}
    with torch.device("meta"):
        config = CLIPConfig(image_size=224, patch_size=16, vision_width=768, embed_dim=64, vocab_size=64, **shapes)
        state = CLIP(config).state_dict()
    if not has_tokens:
        del state[TOKENS]
    content = from_vifi({"model": published(state), "config": OST_CONFIG}, "w")
    assert infer_settings(content, "w") == {
        "network.arch": "ViT-B/16",
        "network.fix_text": False,
        "network.sim_header": "None",
        "data.input_size": 224,
        "data.num_segments": 16,
    }


def test_other_objects_are_refused_by_their_class(state, write):
    path = write({"model": published(state)}, {"DATA": {"ROOT": pathlib.PurePosixPath("videos")}})
    with pytest.raises(ValueError, match=r"w\.pth: not readable \(it holds pathlib\S*\.PurePosixPath, an object"):
        read_checkpoint(path)


def test_a_node_runs_no_code(state, write, tmp_path):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(ValueError, match=r"it holds \w+\.mkdir"):
        read_checkpoint(write({"model": published(state), "lr_scheduler": Touch()}, OST_CONFIG))
    assert not (tmp_path / "ran").exists()


def test_moments_that_would_fill_the_memory_are_not_taken(state, write):
    huge = torch.zeros(1).expand(2**21, 2**21)  # 16 TB
    checkpoint = read_checkpoint(write({"model": published(state), "optimizer": {"state": {0: {"exp_avg": huge}}}}))
    assert checkpoint["optimizer_state_dict"] == {}
    with pytest.raises(ValueError, match=r"visual\.proj of shape .* repeats a part of its values"):
        read_checkpoint(write({"model": published(state) | {"module.image_encoder.proj": huge}}))


@pytest.mark.parametrize(
    "name", ["prompt_learner.ctx", "image_encoder.VPT", "text_encoder.transformer.resblocks.1.VPT_shallow"]
)
def test_learned_prompts_are_named(state, write, name):
    with pytest.raises(ValueError, match=rf"w\.pth: {name} belongs to the learned prompts of ViFi-CLIP"):
        read_checkpoint(write({"model": published(state) | {f"module.{name}": torch.zeros(4, 64)}}))


def test_two_names_of_one_tensor_are_an_error(state, write):
    with pytest.raises(ValueError, match=r"w\.pth: visual\.proj and another tensor are both visual\.proj"):
        read_checkpoint(write({"model": published(state) | {"visual.proj": state["visual.proj"]}}))


def test_another_file_with_a_model_is_told_as_before(write):
    with pytest.raises(ValueError, match=r"expected keys fusion_model_state_dict, .* found a dict of model"):
        read_checkpoint(write({"model": {"conv.weight": torch.zeros(1)}, "epoch": 3}))


def test_a_word_in_an_ordinary_file_makes_it_none_of_these(state, tmp_path):
    head = {"spe_cls_feature": torch.zeros(2, 64)}
    content = {"epoch": 0, MODEL: state, HEAD: head, "optimizer_state_dict": {}, "format": "ost"}
    save_checkpoint(tmp_path / "mote.pt", content)
    checkpoint = read_checkpoint(tmp_path / "mote.pt")
    assert (system_of(checkpoint), format_of(checkpoint, "mote.pt")) == ("", "mote")
