"""Models of open_clip through the commands: frozen as open_clip itself has them, and as the encoder of MoTE."""

import json
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

import export
import extract_features
import predict
import train
from commands.classifier import VideoClassifier
from datasets.build import build_eval_loader
from datasets.read import read_data
from modules.build import load_config
from modules.classes.templates import TEMPLATES
from modules.formats.ours import read_checkpoint
from tests.clip.members import description, reference_of, save_member, shrink_trunks
from tools import convert, search
from tools.make_debug_data import CLASS_NAMES

FP32 = ["--precision", "fp32"]
LIKE = {"PE": "PE-Core-T", "SigLIP": "SigLIP2-B-16"}
ONE_FAST = ["PE", pytest.param("SigLIP", marks=pytest.mark.slow)]
CHANGES = {"PE": {}, "SigLIP": {"hf_tokenizer_name": None, "vocab_size": 49408}}


@pytest.fixture(autouse=True)
def small_trunks(monkeypatch):
    shrink_trunks(monkeypatch)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """``network.arch`` and open_clip's own model of a small PE-like and a small SigLIP-like one, with CLIP's tokens."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        shrink_trunks(patch)
        for kind, family in LIKE.items():
            tree = description(family)
            tree["model_cfg"]["text_cfg"] |= CHANGES[kind]
            folder = tmp_path_factory.mktemp("members") / kind
            reference = reference_of(tree)
            found[kind] = (save_member(folder, tree, reference), reference)
    return found


@pytest.fixture(scope="module")
def trained(members, debug_config, tmp_path_factory):
    """A checkpoint of a short run of MoTE on one of them."""

    @lru_cache
    def trained(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("runs")
        settings = [f"network.arch={members[kind][0]}", "data.transforms=tower", f"data.output_path={folder}"]
        settings += ["solver.epochs=1", "solver.ema=0.5", "solver.lr_warmup_step=0", "solver.clip_ratio=0.5"]
        train.main(["--config", str(debug_config), "--log_time", "run", *FP32, *settings])
        return next(folder.rglob("last_model.pt"))

    return trained


def cosines_of(arch: str, reference: torch.nn.Module, config, mean: float) -> torch.Tensor:
    """open_clip's own: the mean of frame features against the mean of the templates."""
    tokenize = open_clip.get_tokenizer(arch)
    _, lists, *_ = read_data(config.data, ("val",))
    clips = torch.cat([batch.clips[:, 0] for batch in build_eval_loader(config.data, lists["val"], 0, 1)])
    with torch.no_grad():
        frames = reference.encode_image((clips.flatten(0, 1) / 255 - mean) / mean)
        videos = F.normalize(frames.unflatten(0, clips.shape[:2]).mean(dim=1), dim=-1)
        texts = [tokenize([t.format(name) for t in TEMPLATES["mote28"]]) for name in CLASS_NAMES]
        encoded = [reference.encode_text(each, normalize=True).mean(dim=0) for each in texts]
    return videos @ F.normalize(torch.stack(encoded), dim=-1).T


@pytest.mark.parametrize("kind", LIKE)
def test_frozen_zero_shot_has_open_clip_s_own_cosines(kind, members, debug_config, zero_shot, tmp_path):
    arch, reference = members[kind]
    settings = [f"network.arch={arch}", "network.system=clip", "data.input_size=32", "data.transforms=tower"]
    files = ["--output", str(tmp_path / "out"), "--save_logits", str(tmp_path / "logits.npz")]
    zero_shot(["--config", str(debug_config), "--weights", "clip", *files, *FP32, *settings])
    with np.load(tmp_path / "logits.npz") as stored:
        found = stored["view_logits"][:, 0]
    expected = cosines_of(arch, reference, load_config(debug_config, settings), 0.5).numpy()
    assert np.abs(found - expected).max() < 1e-4
    assert expected.std() > 1e-3


@pytest.mark.parametrize("kind", ONE_FAST)
def test_a_checkpoint_says_all_and_works_alone(kind, trained, members, debug_data, close_set, tmp_path):
    weights = trained(kind)
    content = read_checkpoint(weights)
    facts, tree = content["towers"], load_config_of(content)
    assert (tree["data"]["transforms"], tree["data"]["resize"]) == ("tower", f"squash_{facts['interpolation']}")
    assert (facts["resize"], tuple(facts["pixel_mean"])) == ("squash", (0.5, 0.5, 0.5))
    pretrained = members[kind][1].state_dict()
    moved = {name for name, value in content["model_state_dict"].items() if not torch.equal(value, pretrained[name])}
    assert {"logit_scale", "visual.trunk.blocks.0.attn.qkv.weight"} <= moved
    assert not any(name.startswith("text.") for name in content["model_state_dict"])
    for file in (weights, weights.with_name("ema_model.pt")):
        results = close_set(["--weights", str(file), "--output", str(tmp_path / file.stem), *FP32])
        assert results["num_videos"] == 8
    video = next((debug_data / "videos").glob("val*.mp4"))
    (prediction,) = predict.main([str(video), "--weights", str(weights), *FP32])
    for form in ("hub", "safetensors"):
        written = export.main(["--weights", str(weights), "--format", form, "--out", str(tmp_path / form)])
        (again,) = predict.main([str(video), "--weights", str(written), *FP32])
        assert again.scores == pytest.approx(prediction.scores, abs=1e-4)
    ranking = search.main(["a bar", str(debug_data / "videos"), "--weights", str(weights), "--top", "3", *FP32])
    assert len(ranking) == 3


def load_config_of(content: dict) -> dict:
    import yaml

    return yaml.safe_load(content["config"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch_export", "onnx"])
@pytest.mark.parametrize("kind", LIKE)
def test_graphs_compute_what_the_model_does(kind, name, trained, tmp_path):
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")
    # It is run against the model when it is written.
    path = export.main(["--weights", str(trained(kind)), "--format", name, "--out", str(tmp_path)])
    facts = json.loads((path.parent / "model.json").read_text())
    assert facts["towers"]["resize"] == "squash"


@pytest.mark.parametrize("kind", ONE_FAST)
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(kind, members, debug_config, tmp_path):
    settings = [f"network.arch={members[kind][0]}", "data.transforms=tower", "solver.lr_warmup_step=0"]
    arguments = ["--config", str(debug_config), *FP32, *settings, f"data.output_path={tmp_path}", "solver.epochs=2"]
    train.main([*arguments, "--log_time", "whole", "logging.keep=4"])
    whole = next(tmp_path.rglob("whole"))
    first = next(path for path in whole.glob("*.pt") if torch.load(path, weights_only=True)["epoch"] == 0)
    train.main([*arguments, "--log_time", "again", f"resume={first}"])
    one, other = (read_checkpoint(path / "last_model.pt") for path in (whole, whole.with_name("again")))
    assert torch.load(first, weights_only=True)["epoch"] < one["epoch"] == other["epoch"]
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert all(torch.equal(one[part][name], value) for name, value in other[part].items())


def test_caches_tell_the_rules_of_pictures_apart(members, debug_config, close_set, tmp_path):
    arguments = ["--config", str(debug_config), f"network.arch={members['PE'][0]}", *FP32]
    out = tmp_path / "cache"
    metadata = extract_features.main([*arguments, "--part", "val", "--out", str(out), "data.transforms=tower"])["val"]
    assert (metadata["interpolation"], metadata["resize"]) == ("bilinear", "squash")
    cached = ["data.modality=features", "network.fix_video=True", f"data.val_root={out / 'val'}"]
    test = [*arguments, "--weights", "clip", "--output", str(tmp_path), *cached]
    assert close_set([*test, "data.transforms=tower"])["num_videos"] == 8
    with pytest.raises(ValueError, match=r"interpolation was 'bilinear', is 'bicubic'; resize was 'squash'"):
        close_set([*test, "data.transforms=mote"])
    with pytest.raises(ValueError, match=r"interpolation was 'bilinear', is 'bicubic'"):
        close_set([*test, "data.transforms=tower", "data.resize=squash_bicubic"])
    with pytest.raises(ValueError, match=r"resize was 'squash', is 'shortest'"):
        close_set([*test, "data.transforms=tower", "data.resize=shortest_bilinear"])


def test_embeddings_of_other_pictures_have_another_fingerprint(members, debug_data):
    arch, video = members["PE"][0], str(next((debug_data / "videos").glob("val*.mp4")))
    load = lambda *overrides: VideoClassifier.load(arch=arch, precision="fp32", overrides=overrides)  # noqa: E731
    squashed, cut = load("data.transforms=tower"), load()
    assert squashed.config.data.input_size == 32
    one, other = (next(iter(each.embed(video))).embedding for each in (squashed, cut))
    assert np.abs(one - other).max() > 1e-3
    assert squashed.fingerprint() != cut.fingerprint()


def test_a_tower_without_weights_alone_learns_at_the_towers_rate(members, debug_config, fp32, prepare_run, tmp_path):
    settings = [f"network.arch={members['PE'][0]}", f"data.output_path={tmp_path}", "network.fix_text=False"]
    state, _ = prepare_run(load_config(debug_config, settings), fp32, "run")
    rates = {id(p): group["lr_ratio"] for group in state.optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in state.model.towers.parameters()} == {0.1}
    assert {rates[id(p)] for p in state.model.head.parameters()} == {1.0}


WRONG = {
    "another size": (["data.input_size=48"], r"data\.input_size is 48, but local-dir:.* takes 32 pixels"),
    "a long text": (["network.templates=a {} " + "very " * 40], r"class name too long \(label 0, .*needs \d+ tokens"),
    "joint attention": (["network.joint_st=True", "network.sim_header=None"], r"network\.joint_st: the towers of"),
    "no resize": (["data.resize=squashed"], r"data\.resize: expected one of .*squash_bilinear.*found 'squashed'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_an_error(case, members, debug_config, tmp_path):
    overrides, message = WRONG[case]
    arguments = ["--config", str(debug_config), *FP32, f"network.arch={members['PE'][0]}", *overrides]
    with pytest.raises(ValueError, match=message):
        train.main([*arguments, f"data.output_path={tmp_path}"])


def test_weights_of_another_family_are_named(trained, members, debug_config, close_set, tmp_path):
    arguments = ["--config", str(debug_config), "--weights", str(trained("PE")), "--output", str(tmp_path), *FP32]
    with pytest.raises(ValueError, match=r"does not fit the configured model: .*visual\.trunk"):
        close_set([*arguments, f"network.arch={members['SigLIP'][0]}"])
    with pytest.raises(ValueError, match=r"does not fit the configured model: .*visual\."):
        close_set(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LIKE)
@pytest.mark.parametrize("system", ["vificlip", "text4vis"])
def test_other_systems_train_and_are_tested_on_them(system, kind, members, debug_config, zero_shot, tmp_path):
    settings = [f"network.arch={members[kind][0]}", f"network.system={system}", "network.sim_header=None"]
    settings += ["data.transforms=tower", "solver.epochs=1", f"network.fix_text={system == 'text4vis'}"]
    train.main(["--config", str(debug_config), "--log_time", "run", *FP32, *settings, f"data.output_path={tmp_path}"])
    weights = next(tmp_path.rglob("last_model.pt"))
    state = read_checkpoint(weights)["model_state_dict"]
    assert any(name.startswith("text.") for name in state) == (system == "vificlip")
    assert zero_shot(["--weights", str(weights), "--output", str(tmp_path / "out"), *FP32])["num_videos"] == 8


@pytest.mark.slow
def test_the_fine_tuning_example_of_the_readme(members, repo_root, debug_data, tmp_path):
    videos = sorted((debug_data / "videos").glob("*.mp4"))
    for number, video in enumerate(videos):
        folder = tmp_path / "videos" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, folder)
    arguments = [f"data.folder={tmp_path / 'videos'}", f"network.arch={members['PE'][0]}", "data.transforms=tower"]
    arguments += ["data.input_size=0", "data.workers=0", "data.num_segments=2", "solver.epochs=1"]
    command = ["--config", str(repo_root / "configs" / "custom.yaml"), "--log_time", "run", *FP32, *arguments]
    assert "top1" in train.main([*command, f"data.output_path={tmp_path / 'exps'}", "network.temporal_layer=1"])


def test_a_checkpoint_is_converted_to_one_without_experts(trained, tmp_path):
    convert.main([str(trained("PE")), str(tmp_path / "merged.pt"), "--to", "merged"])
    content = read_checkpoint(tmp_path / "merged.pt")
    assert content["merged"]
    assert content["towers"]["resize"] == "squash"
