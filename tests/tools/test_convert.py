"""tools/convert.py: checkpoints change their format, not their tensors; what a format cannot hold is an error."""

from pathlib import Path

import pytest
import torch
import yaml

from clip.load import load_clip
from modules.build import build_classes, build_system, build_towers, load_config
from modules.formats.ours import read_checkpoint, read_content
from tools.convert import main
from utils.config import to_yaml
from utils.weights.four_keys import save_checkpoint

PARTS = ("model_state_dict", "fusion_model_state_dict")


@pytest.fixture(scope="module")
def plain_config(debug_config, tmp_path_factory) -> Path:
    """The debug configuration with a head like Text4Vis's and BIKE's: six layers of plain FFNs."""
    tree = yaml.safe_load(debug_config.read_text())
    tree["network"] |= {"temporal_layer": 6, "num_experts": 0}
    path = tmp_path_factory.mktemp("config") / "plain.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def write_ours(config_path: Path, path: Path, **extras) -> Path:
    config = load_config(config_path)
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    names = ["a", "b", "c", "d"]
    model = build_system(config, towers, build_classes(config, towers, names))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    content = {"epoch": 3, **model.weights(), "optimizer_state_dict": {"state": {}, "param_groups": []}}
    save_checkpoint(path, content | {"config": to_yaml(config), "class_names": names, "best_top1": 50.0} | extras)
    return path


@pytest.fixture(scope="module")
def ours(debug_config, tmp_path_factory) -> Path:
    """With experts."""
    return write_ours(debug_config, tmp_path_factory.mktemp("ours") / "ours.pt")


@pytest.fixture(scope="module")
def plain(plain_config, tmp_path_factory) -> Path:
    """With plain FFNs."""
    return write_ours(plain_config, tmp_path_factory.mktemp("plain") / "plain.pt")


def convert(source: Path, target: Path, kind: str, config: Path | None = None) -> Path:
    main([str(source), str(target), "--to", kind, *(["--config", str(config)] if config else [])])
    return target


def assert_same_tensors(found: dict, expected: dict, but: tuple[str, ...] = ()) -> None:
    for part in PARTS:
        names = expected[part].keys() - set(but)
        assert found[part].keys() - set(but) == names
        assert all(torch.equal(found[part][name], expected[part][name]) for name in names)


def test_the_published_format_is_its_four_entries_and_comes_back(ours, debug_config, tmp_path):
    mote = convert(ours, tmp_path / "mote.pt", "mote")
    assert set(torch.load(mote, weights_only=True)) == {"epoch", *PARTS, "optimizer_state_dict"}
    back = read_checkpoint(convert(mote, tmp_path / "back.pt", "ours", debug_config))
    original = read_checkpoint(ours)
    assert_same_tensors(back, original)
    assert (back["epoch"], back["config"]) == (original["epoch"], original["config"])


def test_safetensors_hold_every_bit(ours, tmp_path):
    file = convert(ours, tmp_path / "model.safetensors", "ours")
    found, original = read_checkpoint(file), read_checkpoint(ours)
    assert_same_tensors(found, original)
    assert [found[name] for name in ("epoch", "config", "class_names")] == [
        original[name] for name in ("epoch", "config", "class_names")
    ]


def test_text4vis_keeps_image_tower_and_head_in_one_state_dict(plain, plain_config, tmp_path):
    text4vis = convert(plain, tmp_path / "t.pt", "text4vis")
    content = torch.load(text4vis, weights_only=True)
    assert set(content) == {"epoch", "model_state_dict", "optimizer_state_dict"}
    names = content["model_state_dict"].keys()
    assert {"logit_scale", "visual.proj", "fusion_model.frame_position_embeddings.weight",
            "fusion_model.transformer.resblocks.5.mlp.c_fc.weight"} <= names  # fmt: skip
    assert "fusion_model.spe_cls_feature" not in names
    back = read_checkpoint(convert(text4vis, tmp_path / "back.pt", "ours", plain_config))
    assert_same_tensors(back, read_checkpoint(plain), but=("spe_cls_feature",))
    features = back["fusion_model_state_dict"]["spe_cls_feature"]
    assert features.norm(dim=1).tolist() == pytest.approx([1.0] * 4)  # of the label file's classes


def test_bike_has_the_text_tower_beside_the_image_tower(plain, plain_config, tmp_path):
    bike = convert(plain, tmp_path / "bike.pt", "bike")
    content = torch.load(bike, weights_only=True)
    clip = load_clip(load_config(plain_config).network.arch).state_dict()
    assert content["model_state_dict"].keys() == clip.keys()
    assert torch.equal(content["model_state_dict"]["token_embedding.weight"], clip["token_embedding.weight"])
    assert "spe_cls_feature" not in content["fusion_model_state_dict"]
    back = read_checkpoint(convert(bike, tmp_path / "back.pt", "mote", plain_config))
    assert_same_tensors(back, read_checkpoint(plain), but=("spe_cls_feature",))
    again = torch.load(convert(tmp_path / "back.pt", tmp_path / "again.pt", "bike", plain_config), weights_only=True)
    assert_same_tensors(again, content)


def test_a_text_tower_that_was_trained_is_not_dropped(plain, plain_config, tmp_path):
    content = torch.load(convert(plain, tmp_path / "bike.pt", "bike"), weights_only=True)
    content["model_state_dict"]["text_projection"] += 1
    save_checkpoint(tmp_path / "tuned.pt", content)
    found = read_checkpoint(convert(tmp_path / "tuned.pt", tmp_path / "out.pt", "ours", plain_config))
    assert_same_tensors(found, content, but=("spe_cls_feature",))
    with pytest.raises(ValueError, match=r"tuned.pt holds a trained text tower"):
        convert(tmp_path / "tuned.pt", tmp_path / "mote.pt", "mote", plain_config)


def test_merged_text4vis_weights_are_marked_not_averaged(plain, plain_config, tmp_path):
    text4vis = convert(plain, tmp_path / "t.pt", "text4vis")
    merged = read_checkpoint(convert(text4vis, tmp_path / "merged.pt", "merged", plain_config))
    assert merged["merged"] is True
    assert_same_tensors(merged, read_checkpoint(plain), but=("spe_cls_feature",))


def test_merged_weights_are_averaged_once(ours, debug_config, tmp_path):
    config = load_config(debug_config)
    merged = read_checkpoint(convert(ours, tmp_path / "merged.pt", "merged"))
    tuned = read_checkpoint(ours)["model_state_dict"]["visual.proj"]
    pretrained = load_clip(config.network.arch).visual.proj.detach()
    found = merged["model_state_dict"]["visual.proj"]
    torch.testing.assert_close(found, 0.99 * tuned + 0.01 * pretrained, rtol=1e-6, atol=1e-7)
    head = read_checkpoint(ours)["fusion_model_state_dict"]
    mean = torch.stack([head[f"transformer.resblocks.1.mlp.fc_up.{expert}.weight"] for expert in range(4)]).mean(0)
    merged_weight = merged["fusion_model_state_dict"]["transformer.resblocks.1.mlp.c_fc.weight"]
    torch.testing.assert_close(merged_weight, mean, rtol=1e-6, atol=1e-7)
    assert_same_tensors(read_checkpoint(convert(tmp_path / "merged.pt", tmp_path / "again.pt", "merged")), merged)


def test_what_is_left_out_is_said(ours, tmp_path, caplog):
    caplog.set_level("INFO")
    convert(ours, tmp_path / "merged.pt", "merged")
    assert "left out: optimizer_state_dict, best_top1" in caplog.text


@pytest.mark.parametrize("target", ["bike", "text4vis"])
def test_experts_and_other_depths_do_not_fit_text4vis_and_bike(target, ours, tmp_path):
    with pytest.raises(ValueError, match=r"has no experts .*--to merged first"):
        convert(ours, tmp_path / "out.pt", target)
    merged = convert(ours, tmp_path / "merged.pt", "merged")
    with pytest.raises(ValueError, match="head has 6 layers, this one 2"):
        convert(merged, tmp_path / "out.pt", target)
    assert not (tmp_path / "out.pt").exists()


def test_a_merged_file_does_not_become_a_published_one(ours, tmp_path):
    merged = convert(ours, tmp_path / "merged.pt", "merged")
    with pytest.raises(ValueError, match=r"merged.pt is merged .* average it once more"):
        convert(merged, tmp_path / "out.pt", "mote")


def test_what_a_configuration_is_needed_for_is_said(ours, plain, tmp_path):
    mote = convert(ours, tmp_path / "mote.pt", "mote")
    with pytest.raises(ValueError, match=r"mote.pt holds no configuration; give --config FILE, whose network.arch"):
        convert(mote, tmp_path / "out.pt", "merged")
    text4vis = convert(plain, tmp_path / "t.pt", "text4vis")
    with pytest.raises(ValueError, match=r"t.pt holds no configuration; .*training classes"):
        convert(text4vis, tmp_path / "out.pt", "mote")


@pytest.mark.parametrize(
    ("name", "message"),
    [("query_fc.0.weight", "attribute branch"), ("prompt_learner.ctx", "learned prompt")],
)
def test_parts_without_a_counterpart_are_named(name, message, ours, tmp_path):
    content = read_content(ours)
    content["model_state_dict"][name] = torch.zeros(1)
    save_checkpoint(tmp_path / "foreign.pt", content)
    with pytest.raises(ValueError, match=rf"foreign.pt: {name} belongs to .*{message}"):
        convert(tmp_path / "foreign.pt", tmp_path / "out.pt", "mote")


def test_another_file_is_an_error_that_says_what_was_expected(tmp_path):
    for content in ([1], {"weights": 1}, {"model_state_dict": {"a": torch.zeros(1)}}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other.pt: (expected|.* holds no image tower)"):
            convert(tmp_path / "other.pt", tmp_path / "out.pt", "ours")


def test_module_prefixes_are_taken_off(ours, tmp_path):
    content = read_content(ours)
    wrapped = {part: {f"module.{name}": value for name, value in content[part].items()} for part in PARTS}
    save_checkpoint(tmp_path / "ddp.pt", {**content, **wrapped})
    assert_same_tensors(read_content(convert(tmp_path / "ddp.pt", tmp_path / "out.pt", "mote")), content)
