"""Files of TVTSv2 in their three layouts: read as data, with our names, and written back."""

import argparse
import os
import pathlib
import sys
from collections import OrderedDict
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from clip.load import load_clip
from clip.model import CLIP
from clip.names.tvts import from_tvts, is_tvts, to_tvts
from modules.formats.infer import infer_settings
from modules.formats.ours import read_checkpoint, read_content
from modules.formats.published import format_of, system_of
from modules.formats.tvts import checkpoint_from_tvts, checkpoint_to_tvts
from utils.weights.four_keys import HEAD, MODEL, save_checkpoint

SCALE = "logit_scale"


@pytest.fixture
def state(tiny_clip_config) -> dict:
    """Our names."""
    torch.manual_seed(0)
    return CLIP(replace(tiny_clip_config, tower="divided")).state_dict()


@pytest.fixture
def theirs(state) -> OrderedDict:
    """The same tensors under published names."""
    return to_tvts(state, "tiny")


@pytest.fixture
def trainer(monkeypatch):
    """The published program's configuration as an object, whose class is gone before the file is read."""
    module = ModuleType("parse_config_dist_multi")
    module.ConfigParser = type("ConfigParser", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = module.ConfigParser()
    config._config, config.resume = OrderedDict(name="yttemporal"), None
    config.args, config._save_dir = argparse.Namespace(rank=0), pathlib.PosixPath("results/models")
    return config


def layouts(theirs: dict) -> dict[str, dict]:
    whole = {"arch": "TVTSv2_B_16", "epoch": 7, "optimizer": {}, "monitor_best": 0.5, "config": {}}
    sorter = {"pred_model.type_embed": torch.zeros(1, 2, 64), "pred_model.head.weight": torch.zeros(4, 64)}
    return {
        "of the trainer": {**whole, "state_dict": {**theirs, **sorter}},
        "of several processes": {**whole, "state_dict": {f"module.{name}": v for name, v in theirs.items()}},
        "released": {"state_dict": theirs},
        "bare": dict(theirs),
    }


@pytest.mark.parametrize("layout", ["of the trainer", "of several processes", "released", "bare"])
def test_each_layout_is_a_checkpoint_and_a_clip(state, theirs, tmp_path, layout):
    torch.save(layouts(theirs)[layout], path := tmp_path / "w.pth")
    found = read_checkpoint(path)
    expected = state | {SCALE: torch.tensor(100.0).log()}
    assert found[HEAD] == {}
    assert found["epoch"] == (7 if "of" in layout else 0)
    assert found[MODEL].keys() == state.keys()
    assert all(torch.equal(found[MODEL][name], value) for name, value in expected.items() if name != SCALE)
    assert float(found[MODEL][SCALE].exp()) == pytest.approx(100.0)
    assert (format_of(found, "w.pth"), system_of(found)) == ("tvts", "tvtsv2")
    assert found["towers"]["pixel_mean"] == [0.485, 0.456, 0.406]
    towers = load_clip(str(path))
    assert (towers.config.tower, towers.config.temporal_rows, towers.additions) == ("divided", 12, ())
    assert torch.equal(towers.visual.temporal_embedding, state["visual.temporal_embedding"])


def test_names_are_the_published_ones(theirs):
    expected = {
        "text_positional_embedding", "text_projection", "text_token_embedding.weight", "text_ln_final.bias",
        "text_model.resblocks.1.attn.in_proj_weight", "text_model.resblocks.0.attn.out_proj.bias",
        "video_model.class_embedding", "video_model.temporal_embedding", "video_model.conv1.weight",
        "video_model.transformer.resblocks.0.attn.qkv.weight", "video_model.transformer.resblocks.1.attn.proj.bias",
        "video_model.transformer.resblocks.1.timeattn.qkv.bias", "video_model.transformer.resblocks.0.ln_3.weight",
        "video_model.transformer.resblocks.0.timeattn.proj.weight",
    }  # fmt: skip
    assert expected <= theirs.keys()
    assert not [name for name in theirs if "visual" in name or name == SCALE]


@pytest.mark.parametrize("file", ["tiny_b32_pretraining.pth", "tiny_b16.pth", "tiny_h14.pth"])
def test_golden_files_come_back_with_their_names_and_bits(tvtsv2_golden, file):
    original = torch.load(tvtsv2_golden / file, weights_only=True)["state_dict"]
    original = {name.removeprefix("module."): value for name, value in original.items()}
    found = checkpoint_to_tvts(checkpoint_from_tvts({"state_dict": original}, file), {}, file)["state_dict"]
    expected = {name: value for name, value in original.items() if not name.startswith("pred_model.")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_trainer_s_configuration_is_left_unread(theirs, trainer, tmp_path, monkeypatch):
    torch.save(layouts(theirs)["of the trainer"] | {"config": trainer}, path := tmp_path / "w.pth")
    monkeypatch.delitem(sys.modules, "parse_config_dist_multi")
    found = read_checkpoint(path)
    assert "config" not in found
    assert "parse_config_dist_multi" not in sys.modules
    assert load_clip(str(path)).config.tower == "divided"


def test_the_golden_trainer_object_is_read_as_far_as_it_goes(tvtsv2_golden):
    content = read_content(tvtsv2_golden / "trainer_object.pth")
    assert set(content[MODEL]) == {"text_projection", "visual.class_embedding", SCALE}
    with pytest.raises(ValueError, match=r"trainer_object\.pth: not a CLIP ViT, missing visual\.conv1\.weight"):
        load_clip(str(tvtsv2_golden / "trainer_object.pth"))


def test_nothing_in_a_file_is_run_and_other_objects_are_named(theirs, trainer, tmp_path, monkeypatch):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    trainer.logger = Touch()
    torch.save({"state_dict": theirs, "config": trainer}, path := tmp_path / "w.pth")
    monkeypatch.delitem(sys.modules, "parse_config_dist_multi")
    for read in (read_checkpoint, lambda path: load_clip(str(path))):
        with pytest.raises(ValueError, match=r"w\.pth: not readable.* \(it holds \w+\.mkdir, an object that only"):
            read(path)
    assert not (tmp_path / "ran").exists()


def test_the_same_objects_in_another_checkpoint_are_refused_as_ever(state, tmp_path):
    torch.save({MODEL: state, HEAD: {}, "args": argparse.Namespace(rank=0)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt: not readable \(it holds argparse\.Namespace, an object that only"):
        read_checkpoint(tmp_path / "w.pt")


def test_two_names_that_become_one_are_an_error(theirs):
    block = "video_model.transformer.resblocks.0.attn"
    with pytest.raises(ValueError, match=rf"w\.pth: {block}\.qkv\.bias and {block}\.in_proj_bias are both visual\."):
        from_tvts(theirs | {f"{block}.in_proj_bias": torch.zeros(192)}, "w.pth")


def test_names_of_something_else_are_an_error(theirs):
    with pytest.raises(ValueError, match=r"w\.pth: a checkpoint of TVTSv2, but video_head\.weight is no part"):
        from_tvts(theirs | {"video_head.weight": torch.zeros(1)}, "w.pth")
    assert not is_tvts({"state_dict": {"visual.proj": torch.zeros(1)}})
    assert not is_tvts([1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {HEAD: {"a": torch.zeros(1)}}, "has a temporal head"),
        (lambda s: {MODEL: s | {SCALE: torch.tensor(3.0)}}, r"its logit scale is 20\.1, and TVTSv2's is always 100"),
        (lambda s: {MODEL: s | {"sorter.weight": torch.zeros(1)}}, r"sorter\.weight has no place in TVTSv2's format"),
        (
            lambda s: {MODEL: {k: v for k, v in s.items() if "temporal" not in k}},
            r"a space-time tower with its text tower, missing video_model\.temporal_embedding",
        ),
    ],
)
def test_what_the_format_has_no_place_for_is_said(state, change, message):
    state = state | {SCALE: torch.tensor(100.0).log()}
    with pytest.raises(ValueError, match=f"o.pt.*{message}"):
        checkpoint_to_tvts({MODEL: state, HEAD: {}, **change(state)}, {}, "o.pt")


def test_a_file_tells_its_settings_and_is_its_own_arch(theirs, tmp_path):
    torch.save({"state_dict": theirs}, path := tmp_path / "w.pth")
    checkpoint = read_checkpoint(path)
    expected = {"network.tower": "divided", "data.input_size": 32, "data.num_segments": 12}
    assert infer_settings(checkpoint, str(path)) == {"network.arch": str(path), **expected}
    save_checkpoint(tmp_path / "ours.pt", checkpoint)
    assert load_clip(str(tmp_path / "ours.pt")).config.tower == "divided"
    # On the Hub, say: a CLIP with the same shapes, which is downloaded.
    released = checkpoint[MODEL] | {
        "visual.conv1.weight": torch.zeros(1280, 3, 14, 14), "visual.positional_embedding": torch.zeros(257, 1280),
    }  # fmt: skip
    found = infer_settings(checkpoint | {MODEL: released}, "hf://somebody/tvts")
    assert (found["network.arch"], found["data.input_size"]) == ("ViT-H-14/laion2b_s32b_b79k", 224)
    short = {name: value for name, value in checkpoint[MODEL].items() if "temporal" not in name}
    with pytest.raises(ValueError, match=r"w: model_state_dict holds no space-time tower, missing visual\.temporal"):
        infer_settings(checkpoint | {MODEL: short}, "w")
