"""Image towers with temporal modules, and ResNets, through the commands."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import engine.train
import export
import extract_features
import predict
import train
from clip.load import load_clip
from modules.build import load_config
from modules.classes.base import FixedClasses
from modules.graph import VideoGraph, check_graph, trace
from modules.heads.mean import MeanPooling
from modules.systems.clip import PlainCLIP
from tools.make_debug_data import TINY_CLIP, random_clip_state

FP32 = ["--precision", "fp32"]
TINY_RESNET = replace(
    TINY_CLIP, vision_width=4, vision_layers=5, vision_heads=2, patch_size=32, resnet_layers=(1, 2, 1, 1)
)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("resnet") / "tiny_rn.pt"
    torch.save(random_clip_state(TINY_RESNET, 0), path)
    return path


def run_train(debug_config: Path, folder: Path, *overrides: str) -> Path:
    """One epoch; the checkpoint."""
    arguments = ["solver.epochs=1", f"data.output_path={folder}", "solver.lr=0.01", *overrides]
    train.main(["--config", str(debug_config), "--log_time", "run", *FP32, *arguments])
    return next(folder.rglob("last_model.pt"))


@pytest.mark.parametrize("name", ["tsm", "tokenshift", "tokent1d", "True of a ResNet"])
def test_a_run_trains_and_its_checkpoints_are_tested_exported_and_used_alone(
    repo_root, debug_config, debug_data, resnet_file, tmp_path, name
):
    is_resnet = name.startswith("True")
    arch = [f"network.arch={resnet_file}"] if is_resnet else []
    weights = run_train(debug_config, tmp_path, f"network.tm={name.split()[0]}", "solver.ema=0.5", *arch)
    state = torch.load(weights, weights_only=True)["model_state_dict"]
    marks = {"tsm": ".net.", "tokent1d": ".control_point.", "tokenshift": "mlp"}
    assert any(marks.get(name, ".conv1.net.") in tensor for tensor in state)
    if is_resnet:
        assert state["visual.bn1.num_batches_tracked"] == 3
    test = runpy.run_path(str(repo_root / "test.py"))["main"]
    for checkpoint in (weights, weights.with_name("ema_model.pt")):
        results = test(["--weights", str(checkpoint), "--output", str(tmp_path / checkpoint.stem), *FP32])
        assert "top1" in json.dumps(results, default=str)
    video = next((debug_data / "videos").glob("val*.mp4"))
    (prediction,) = predict.main([str(video), "--weights", str(weights), *FP32])
    assert len(prediction.scores) == 4
    folder = export.main(["--weights", str(weights), "--format", "hub", "--out", str(tmp_path / "hub")])
    (again,) = predict.main([str(video), "--weights", str(folder), *FP32])
    assert again.scores == pytest.approx(prediction.scores, abs=1e-4)


@pytest.mark.parametrize("name", ["tsm", "tokenshift", "tokent1d", "tsm of a ResNet"])
def test_a_graph_takes_clips_of_any_length(debug_data, resnet_file, name):
    file = resnet_file if "ResNet" in name else debug_data / "tiny_clip.pt"
    towers = load_clip(str(file), time_module=name.split()[0])
    system = PlainCLIP(towers, MeanPooling(), FixedClasses(torch.zeros(5, towers.spec.embed_dim))).eval()
    graph = VideoGraph(system, None)
    module = trace(graph).module()
    assert check_graph(graph, lambda *inputs: list(module(*inputs)), 4) < 1e-4


def test_modules_without_pretrained_weights_learn_at_the_head_s_rate(debug_config, fp32, prepare_run, tmp_path):
    state, _ = prepare_run(
        load_config(debug_config, ["network.tm=tokent1d", f"data.output_path={tmp_path}"]), fp32, "run"
    )
    rates = {id(p): group["lr_ratio"] for group in state.optimizer.param_groups for p in group["params"]}
    found = {
        name: rates[id(parameter)]
        for name, parameter in state.model.towers.named_parameters()
        if id(parameter) in rates
    }
    assert {name for name, rate in found.items() if rate == 1.0} == set(state.model.towers.full_rate)
    assert len(state.model.towers.full_rate) == TINY_CLIP.vision_layers
    assert set(found.values()) == {1.0, 0.1}


def test_features_of_another_module_are_refused(debug_config, tmp_path):
    arguments = ["--config", str(debug_config), "--out", str(tmp_path / "cache"), *FP32, "network.tm=tokenshift"]
    for part in ("train", "val"):
        extract_features.main([*arguments, "--part", part])
    roots = [f"data.{part}_root={tmp_path / 'cache' / part}" for part in ("train", "val")]
    cached = ["data.modality=features", "network.fix_video=True", *roots]
    run_train(debug_config, tmp_path / "same", *cached, "network.tm=tokenshift")
    with pytest.raises(ValueError, match="time_module"):  # the tensors are the same
        run_train(debug_config, tmp_path / "other", *cached)


WRONG = {
    "True of a ViT": (["network.tm=True"], r"network\.tm: .* False, tsm, tokenshift, tokent1d for a ViT, found True"),
    "another name": (["network.tm=tms"], r"network\.tm: .* False, tsm, tokenshift, tokent1d for a ViT, found tms"),
    "a number": (["network.tm=1"], r"network\.tm: expected True, False or a name, found 1"),
    "with joint attention": (
        ["network.tm=tsm", "network.joint_st=True", "network.sim_header=None"], r"network\.tm and network\.joint_st",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_a_vit_does_not_know_is_an_error(debug_config, tmp_path, case):
    overrides, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        run_train(debug_config, tmp_path, *overrides)


@pytest.mark.parametrize(
    "option", ["drop_out=0.1", "emb_dropout=0.1", "recompute=full", "recompute=light", "tm=tokent1d"]
)
def test_what_a_resnet_does_not_know_is_an_error(debug_config, resnet_file, tmp_path, option):
    with pytest.raises(ValueError, match=rf"network\.{option.split('=')[0]}.*: .* ResNet"):
        run_train(debug_config, tmp_path, f"network.arch={resnet_file}", f"network.{option}")


def test_a_published_spelling_is_the_same_configuration(debug_config):
    config = load_config(debug_config, ["network.arch=ViT-L/14-336px"])
    assert config.network.arch == "ViT-L/14@336px"
    assert replace(config.network, arch="ViT-L/14-336px").arch == "ViT-L/14@336px"


def test_statistics_are_made_alike_after_each_update(
    debug_config, fp32, resnet_file, prepare_run, tmp_path, monkeypatch
):
    config = load_config(
        debug_config, [f"network.arch={resnet_file}", f"data.output_path={tmp_path}", "solver.ema=0.5"]
    )
    state, run = prepare_run(config, fp32, "run")
    averaged = []
    monkeypatch.setattr(engine.train, "average_over_processes", lambda tensors: averaged.append(len(tensors)))
    before = state.model.towers.visual.bn1.running_var.clone()
    engine.train.train(state, replace(run, epochs=1))
    assert averaged == [len(state.model.towers.statistics())] * 3
    assert averaged[0] == 2 * len(state.model.towers.visual.norms())
    trained, mean = (model.towers.visual.bn1.running_var for model in (state.model, state.ema.module))
    assert not torch.equal(trained, before)
    assert not torch.equal(mean, trained)  # averaged over the steps, as the weights are
