"""tools/convert.py with the checkpoints of Text4Vis and BIKE: whatever is inside CLIP or the classifier goes along."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from clip.model import CLIP
from modules.build import build_classes, build_system, build_towers, load_config
from modules.formats.ours import read_checkpoint
from modules.heads.transformer import TemporalTransformer
from tools.convert import main
from utils.config import to_yaml
from utils.weights.four_keys import save_checkpoint

PARTS = ("model_state_dict", "fusion_model_state_dict", "classifier_state_dict")
RESNET = {"resnet_layers": (1, 2, 1, 1), "vision_layers": 5, "image_size": 64, "patch_size": 32, "vision_width": 64}
# Options of the tower -> a name that only such a tower has.
TOWERS = {
    "plain": ({}, "visual.proj"),
    "tsm": ({"time_module": "tsm"}, "visual.transformer.resblocks.0.net.ln_1.weight"),
    "tokent1d": ({"time_module": "tokent1d"}, "visual.transformer.resblocks.0.control_point.conv.weight"),
    "joint": ({"joint_frames": 4}, "visual.time_embedding"),
    "resnet": (RESNET | {"vision_heads": 32}, "visual.layer4.0.bn3.running_var"),
    "resnet tsm": (RESNET | {"vision_heads": 32, "time_module": "tsm"}, "visual.layer2.1.conv1.net.weight"),
}


@pytest.fixture
def released(tiny_clip_config, tmp_path):
    """Writes a released file: of train.py (``text4vis``), or of train_nce.py and BIKE, with the text tower."""

    def released(tower: str, kind: str, has_head: bool = True) -> Path:
        state = CLIP(replace(tiny_clip_config, **TOWERS[tower][0])).state_dict()
        head = TemporalTransformer(64, 6, 1).state_dict() if has_head else {}
        if kind == "text4vis":
            state = {name: value for name, value in state.items() if name.startswith(("visual.", "logit_scale"))}
            state |= {f"fusion_model.{name}": value for name, value in head.items()}
        heads = {} if kind == "text4vis" else {"fusion_model_state_dict": head}
        path = tmp_path / f"{kind}.pt"
        torch.save({"epoch": 3, "model_state_dict": state, **heads, "optimizer_state_dict": {"state": {}}}, path)
        return path

    return released


@pytest.fixture(scope="module")
def config_path(debug_config, repo_root, tmp_path_factory) -> Path:
    """The debug data with the settings of Text4Vis, named by an absolute path."""
    tree = yaml.safe_load(debug_config.read_text())
    tree["network"] = {"arch": tree["network"]["arch"]}
    tree["base"] = str(repo_root / "configs" / "systems" / "text4vis.yaml")
    path = tmp_path_factory.mktemp("config") / "text4vis.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def convert(source: Path, name: str, kind: str, config: Path | None = None) -> Path:
    target = source.with_name(name)
    main([str(source), str(target), "--to", kind, *(["--config", str(config)] if config else [])])
    return target


def tensors_of(path: Path) -> dict:
    content = read_checkpoint(path)
    return {(part, name): value for part in PARTS for name, value in content.get(part, {}).items()}


def assert_same_tensors(found: Path, expected: Path) -> None:
    left, right = tensors_of(found), tensors_of(expected)
    assert left.keys() == right.keys()
    assert all(left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left)


# A ResNet takes its time; one of them is always converted.
CASES = [
    pytest.param(*case, marks=pytest.mark.slow if "resnet" in case[1] and case != ("bike", "resnet tsm", True) else ())
    for case in itertools.product(("text4vis", "bike"), TOWERS, (True, False))
]


@pytest.mark.parametrize(("kind", "tower", "has_head"), CASES)
def test_every_tower_comes_back_from_ours_and_merged_with_every_bit(released, kind, tower, has_head, config_path):
    source = released(tower, kind, has_head)
    assert TOWERS[tower][1] in torch.load(source, weights_only=True)["model_state_dict"]
    for between, to, config in (
        ("ours.pt", "ours", None),
        ("merged.pt", "merged", None),
        ("ours.safetensors", "ours", config_path),
        ("merged.safetensors", "merged", config_path),
    ):
        assert_same_tensors(convert(source, between, to, config), source)
        back = convert(source.with_name(between), "back.pt", kind)
        assert_same_tensors(back, source)
        assert torch.load(back, weights_only=True).keys() == torch.load(source, weights_only=True).keys()


def test_a_model_without_head_says_whose_it_is_or_needs_a_configuration(released, config_path):
    source = released("plain", "text4vis", has_head=False)
    assert read_checkpoint(convert(source, "ours.pt", "ours"))["format"] == "text4vis"
    with pytest.raises(ValueError, match=r"text4vis\.pt holds no configuration; give --config FILE.* whose model"):
        convert(source, "ours.safetensors", "ours")
    assert "format" not in read_checkpoint(convert(source, "ours.safetensors", "ours", config_path))


def trained(config_path: Path, folder: Path, *overrides: str) -> Path:
    """A checkpoint as training writes it."""
    config = load_config(config_path, overrides)
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    names = ["a", "b", "c", "d"]
    model = build_system(config, towers, build_classes(config, towers, names))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    content = {"epoch": 3, **model.weights(), "optimizer_state_dict": {}, "config": to_yaml(config)}
    save_checkpoint(folder / "trained.pt", content | {"class_names": names})
    return folder / "trained.pt"


CLASSIFIERS = {
    "random": ["text4vis.classifier=random"],
    "linear": ["text4vis.classifier=linear"],
    "prompt": ["text4vis.classifier=prompt", "text4vis.prompt_length=2", "text4vis.prompt_per_class=true"],
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_goes_along_or_the_format_is_refused(name, config_path, tmp_path):
    source = trained(config_path, tmp_path, *CLASSIFIERS[name])
    assert any(part == "classifier_state_dict" for part, _ in tensors_of(source))
    for target in ("ours.pt", "ours.safetensors", "merged.pt", "merged.safetensors"):
        assert_same_tensors(convert(source, target, target.split(".")[0]), source)
    for kind in ("text4vis", "bike", "mote"):
        with pytest.raises(ValueError, match=r"trained\.pt holds a classifier that is not text"):
            convert(source, f"{kind}.pt", kind)
        assert not (tmp_path / f"{kind}.pt").exists()


def test_a_trained_text_tower_goes_to_bike_and_back(config_path, tmp_path):
    source = trained(config_path, tmp_path, "network.fix_text=false")
    assert_same_tensors(convert(source, "bike.pt", "bike"), source)
    assert_same_tensors(convert(tmp_path / "bike.pt", "back.safetensors", "merged", config_path), source)
