"""A checkpoint of TVTSv2's training, with its sorter, in the commands that want the model alone."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import extract_features
import predict
from engine.optim import build_optimizer
from engine.state import TrainState
from modules.build import build_system, build_towers, load_config
from modules.classes.base import FixedClasses
from modules.formats.ours import read_checkpoint
from tools.convert import main as convert
from tools.make_debug_data import CLASS_NAMES
from utils.config import to_yaml
from utils.weights.four_keys import HEAD, MODEL, SORTER, save_checkpoint

OPTIONS = ["network.system=tvtsv2", "network.sim_header=None", "network.fix_text=False", "network.templates=name",
           "eval.weight_average=1.0", "tvtsv2.sorter_layers=1"]  # fmt: skip
FP32 = ["--precision", "fp32"]


@pytest.fixture(scope="module")
def files(debug_config, tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint as training writes it, and one without the sorter."""
    config = load_config(debug_config, OPTIONS)
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    system = build_system(config, towers, FixedClasses(torch.zeros(1, towers.spec.embed_dim)))
    with torch.no_grad():
        for parameter in system.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(system, build_optimizer(system.groups(), config.solver), scaler)
    told = {"config": to_yaml(config), "class_names": list(CLASS_NAMES), "towers": asdict(towers.spec)}
    content = state.content() | told
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(folder / "with.pt", content)
    save_checkpoint(folder / "without.pt", {key: value for key, value in content.items() if key != SORTER})
    return folder / "with.pt", folder / "without.pt"


def test_the_same_figures_and_features_come_from_a_file_with_a_sorter_and_without(files, zero_shot, tmp_path):
    scores, features = [], []
    for path in files:
        out = tmp_path / path.stem
        options = ["--weights", str(path), *FP32]
        zero_shot([*options, "--output", str(out), "--save_logits", str(out / "logits.npz")])
        scores.append(np.load(out / "logits.npz")["view_logits"])
        extract_features.main([*options, "--out", str(out / "features"), "--part", "val"])
        features.append(sorted(each.read_bytes() for each in (out / "features").rglob("*.npy")))
    assert np.array_equal(*scores)
    assert features[0] == features[1] != []


def test_a_configuration_of_another_sorter_is_no_hindrance_to_tests(files, zero_shot, tmp_path):
    for layers in (1, 3):
        options = ["--weights", str(files[0]), "--output", str(tmp_path), *FP32]
        zero_shot([*options, f"tvtsv2.sorter_layers={layers}", "tvtsv2.sorter_heads=4"])


def test_exports_and_conversions_leave_the_sorter_out(files, tmp_path):
    path = export.main(["--weights", str(files[0]), "--out", str(tmp_path / "export")])
    exported = read_checkpoint(path)
    assert SORTER not in exported
    assert exported[HEAD] == {}
    assert exported[MODEL].keys() == read_checkpoint(files[0])[MODEL].keys()
    merged = convert([str(files[0]), str(tmp_path / "merged.pt"), "--to", "merged"])
    assert SORTER not in merged
    # All there is, in the four-key format, is what training goes on with.
    assert SORTER in convert([str(files[0]), str(tmp_path / "ours.pt"), "--to", "ours"])


def test_predictions_come_from_a_file_with_a_sorter(files, debug_data, tmp_path):
    videos = sorted((debug_data / "videos").iterdir())[:1]
    arguments = ["--weights", str(files[0]), "--labels", ",".join(CLASS_NAMES), "--json", str(tmp_path / "p.json")]
    predict.main([*map(str, videos), *arguments, *FP32])
    assert json.loads((tmp_path / "p.json").read_text())
