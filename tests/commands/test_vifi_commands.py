"""Published files of OST and ViFi-CLIP given to the commands, and what the published code made of the same videos."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

import export
import extract_features
import train
from clip.load import load_clip
from commands.classifier import VideoClassifier
from commands.weights import Weights
from datasets.build import build_eval_loader
from datasets.read import read_data
from modules.formats.ours import read_checkpoint
from tools.convert import main as convert
from utils.weights.four_keys import MODEL, save_checkpoint

OST, VIFICLIP = "tiny_ost.pt", "tiny_vificlip.pt"
FP32 = ["--precision", "fp32"]
TOKENS = "token_embedding.weight"


@pytest.fixture(scope="module")
def run_test(repo_root) -> Callable[[list[str]], dict]:
    """``test.main``; loaded by path, because Python has a package ``test`` of its own."""
    return runpy.run_path(str(repo_root / "test.py"))["main"]


@pytest.fixture(scope="module")
def config_path(golden, ost_golden, tmp_path_factory) -> Path:
    """The golden videos with the mean over frames, both towers tuned, and the bare names of classes."""
    lists = {f"{part}_{key}": str(path) for part in ("train", "val") for key, path in
             (("root", golden / "videos"), ("list", ost_golden / "list.txt"))}  # fmt: skip
    tree = {
        "data": {
            "dataset": "golden", "num_segments": 8, "batch_size": 5, "workers": 0, "transforms": "vifi",
            "label_list": str(golden / "labels.csv"), "input_size": 48, **lists,
        },
        "network": {
            "system": "clip", "sim_header": "None", "templates": "name", "fix_text": False,
            "arch": str(ost_golden / "tiny_clip.pt"),
        },
    }  # fmt: skip
    path = tmp_path_factory.mktemp("config") / "vifi.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def model_of(weights: Path, config_path: Path, *overrides: str):
    """The model, its configuration, and its videos' clips, uint8 [N, 1, T, 3, S, S]."""
    weights = Weights(weights)
    config = weights.config(config_path, overrides)
    model = weights.build(config, weights.towers(config, 48)).eval()
    loader = build_eval_loader(config.data, read_data(config.data, ("val",)).parts["val"], 0, 1)
    return model, torch.cat([batch.clips for batch in loader])


def largest_difference(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


# --- what they compute


def test_plain_clip_gives_the_published_logits(decord, ost_golden, config_path, run_test, tmp_path):
    reference = np.load(ost_golden / "ref_vificlip_zs_clip_1x1_T8.npz")
    logits = tmp_path / "logits.npz"
    arguments = ["--config", str(config_path), "--weights", "clip", "--output", str(tmp_path), *FP32]
    results = run_test([*arguments, "--save_logits", str(logits), "data.decoder=decord"])
    scale = load_clip(str(ost_golden / "tiny_clip.pt")).logit_scale.exp().item()
    difference = np.abs(scale * np.load(logits)["view_logits"] - reference["view_logits"]).max()
    assert difference <= 1e-4 * np.abs(reference["view_logits"]).max()
    assert [results["top1"], results["top5"]] == pytest.approx(
        [float(reference[key]) for key in ("top1", "top5")], abs=1e-3
    )


@torch.inference_mode()
def test_vificlip_weights_give_the_published_logits(decord, ost_golden, config_path):
    reference = np.load(ost_golden / "ref_vificlip_1x1_T8.npz")
    model, clips = model_of(ost_golden / VIFICLIP, config_path, "data.decoder=decord", "eval.weight_average=1.0")
    texts = model.towers.encode_text(model.towers.tokenize([str(prompt) for prompt in reference["prompts"]]))
    assert largest_difference(texts, reference["text_features"]) <= 1e-5
    scores = model.score(model.encode(clips[:, 0]), F.normalize(texts, dim=-1))
    assert largest_difference(model.logit_scale * scores, reference["view_logits"][:, 0]) <= 1e-4


@torch.inference_mode()
def test_a_text_tower_that_is_fixed_is_the_file_s_too(ost_golden, config_path):
    reference = np.load(ost_golden / "ref_vificlip_1x1_T8.npz")
    weights = Weights(ost_golden / VIFICLIP)
    towers = weights.towers(weights.config(config_path, ["network.fix_text=True"]), 48)
    texts = towers.encode_text(towers.tokenize([str(prompt) for prompt in reference["prompts"]]))
    assert largest_difference(texts, reference["text_features"]) <= 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("share", [1.0, 0.8])
def test_ost_weights_give_the_published_features(ost_golden, config_path, share):
    reference = np.load(ost_golden / "forward_T8.npz")
    model, _ = model_of(ost_golden / OST, config_path, f"eval.weight_average={share}")
    frames = model.encode(torch.from_numpy(reference["frames"])).frames
    texts = model.towers.encode_text(torch.from_numpy(reference["tokens_spatio"]).flatten(0, 1))
    differences = [
        largest_difference(frames, reference["frame_features"]),
        largest_difference(texts, reference["text_spatio"].reshape(texts.shape)),
    ]
    if share == 1.0:
        assert max(differences) <= 1e-5
    else:  # both towers are averaged
        assert min(differences) > 1e-3


def test_fused_weights_are_the_published_ones(ost_golden, config_path):
    reference = np.load(ost_golden / "fusion.npz")
    model, _ = model_of(ost_golden / OST, config_path, "eval.weight_average=0.8")
    names = [key.removeprefix("fused/") for key in reference.files if key.startswith("fused/")]
    state = model.towers.state_dict()
    assert len(names) == len(state)
    for name in names:
        values = state[name.replace("image_encoder.", "visual.").replace("text_encoder.", "")]
        if f"fused_rows/{name}" in reference:
            values = values[torch.from_numpy(reference[f"fused_rows/{name}"])]
        sampled = values.flatten()[:: int(reference[f"fused_stride/{name}"])]
        assert largest_difference(sampled, reference[f"fused/{name}"]) <= 1e-6, name


# --- every command


@pytest.mark.parametrize("weights", [OST, VIFICLIP])
def test_every_command_takes_the_file(ost_golden, golden, config_path, run_test, tmp_path, weights):
    path = str(ost_golden / weights)
    arguments = ["--config", str(config_path), "--weights", path]
    results = run_test([*arguments, "--output", str(tmp_path), *FP32])
    assert results["num_videos"] == 14
    caches = extract_features.main([*arguments, "--part", "val", "--out", str(tmp_path / "cache"), *FP32])
    assert caches["val"]["pixel_mean"] == (0.485, 0.456, 0.406)
    file = export.main([*arguments, "--out", str(tmp_path / "file")])
    assert run_test(["--config", str(config_path), "--weights", str(file), "--output", str(tmp_path), *FP32]) == (
        results | {"weights": str(file)}
    )
    graph = export.main([*arguments, "--out", str(tmp_path / "graph"), "--format", "torch_export"])
    assert json.loads((graph.parent / "model.json").read_text())["towers"]["pixel_mean"] == [0.485, 0.456, 0.406]
    classifier = VideoClassifier.load(path, config_path, precision="fp32")
    (prediction,) = classifier.predict(str(golden / "videos" / "clip_00.mp4"), ["juggling", "rowing"])
    assert sum(prediction.scores.values()) == pytest.approx(1.0)


def test_training_starts_from_the_file_and_cannot_resume_it(ost_golden, config_path, tmp_path):
    overrides = [f"data.output_path={tmp_path}", "solver.epochs=1", "solver.lr=0", "--precision", "fp32"]
    train.main(["--config", str(config_path), f"pretrain={ost_golden / VIFICLIP}", *overrides])
    trained = read_checkpoint(next(tmp_path.rglob("last_model.pt")))[MODEL]
    published = read_checkpoint(ost_golden / VIFICLIP)[MODEL]
    assert all(torch.equal(trained[name], value.float()) for name, value in published.items())
    assert torch.equal(trained[TOKENS], load_clip(str(ost_golden / "tiny_clip.pt")).state_dict()[TOKENS])
    with pytest.raises(ValueError, match=r"tiny_ost\.pt: resume: it has no training state"):
        train.main(["--config", str(config_path), f"resume={ost_golden / OST}", *overrides])


def test_pictures_of_other_statistics_are_a_warning(ost_golden, config_path, caplog):
    model_of(ost_golden / OST, config_path)
    assert "statistics" not in caplog.text
    model_of(ost_golden / OST, config_path, "data.transforms=mote")
    assert "tiny_ost.pt was made with other statistics of pixels" in caplog.text


# --- conversions


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items()
    )


@pytest.mark.parametrize(("weights", "kind"), [(OST, "ost"), (VIFICLIP, "vificlip")])
def test_files_keep_every_bit_there_and_back(ost_golden, config_path, tmp_path, weights, kind, caplog):
    caplog.set_level("INFO")
    original = read_checkpoint(ost_golden / weights)
    convert([str(ost_golden / weights), str(tmp_path / "ours.pt"), "--to", "ours"])
    ours = read_checkpoint(tmp_path / "ours.pt")
    assert same(ours[MODEL], original[MODEL])
    assert ours["format"] == kind
    convert([str(tmp_path / "ours.pt"), str(tmp_path / "back.pt"), "--to", kind])
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert all(name.startswith("module.") for name in back["model"])
    found = read_checkpoint(tmp_path / "back.pt")
    assert same(found[MODEL], original[MODEL])
    assert (found["epoch"], found["best_top1"], found["format"]) == (
        original["epoch"], original["best_top1"], kind
    )  # fmt: skip
    with_config = tmp_path / "with_config.safetensors"
    convert([str(ost_golden / weights), str(with_config), "--to", "ours", "--config", str(config_path)])
    content = read_checkpoint(with_config)
    assert same(content[MODEL], original[MODEL])
    assert "format" not in content
    assert content["towers"]["pixel_std"] == [0.229, 0.224, 0.225]


def test_one_becomes_the_other_where_the_token_embedding_is_clip_s(ost_golden, config_path, tmp_path):
    config = ["--config", str(config_path)]
    convert([str(ost_golden / VIFICLIP), str(tmp_path / "ost.pt"), "--to", "ost", *config])
    state = read_checkpoint(tmp_path / "ost.pt")[MODEL]
    assert torch.equal(state.pop(TOKENS), load_clip(str(ost_golden / "tiny_clip.pt")).state_dict()[TOKENS])
    assert same(state, read_checkpoint(ost_golden / VIFICLIP)[MODEL])
    convert([str(tmp_path / "ost.pt"), str(tmp_path / "vificlip.pt"), "--to", "vificlip", *config])
    assert same(read_checkpoint(tmp_path / "vificlip.pt")[MODEL], state)
    with pytest.raises(ValueError, match=r"tiny_ost\.pt holds a trained token embedding"):
        convert([str(ost_golden / OST), str(tmp_path / "out.pt"), "--to", "vificlip", *config])
    with pytest.raises(
        ValueError, match=r"tiny_ost\.pt holds no configuration; give --config FILE, whose network\.arch"
    ):
        convert([str(ost_golden / OST), str(tmp_path / "out.pt"), "--to", "vificlip"])
    assert not (tmp_path / "out.pt").exists()


def test_merged_weights_hold_clip_s_share(ost_golden, config_path, tmp_path):
    config = tmp_path / "fused.yaml"
    config.write_text(f"base: {config_path}\neval: {{weight_average: 0.8}}\n")
    convert([str(ost_golden / OST), str(tmp_path / "merged.pt"), "--to", "merged", "--config", str(config)])
    merged = read_checkpoint(tmp_path / "merged.pt")
    expected = model_of(ost_golden / OST, config)[0].towers.state_dict()
    assert same(merged[MODEL], expected)
    assert merged["towers"]["pixel_mean"] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("target", ["ost", "vificlip"])
def test_what_these_formats_have_no_place_for_is_said(ost_golden, config_path, tmp_path, target):
    content = read_checkpoint(ost_golden / VIFICLIP) | {"epoch": 0}
    changes = {
        "has a temporal head": {"fusion_model_state_dict": {"a": torch.zeros(1)}},
        "expected the image tower of a plain ViT": {
            MODEL: content[MODEL] | {"visual.time_embedding": torch.zeros(8, 128)}
        },
        "holds a classifier that is not text": {"classifier_state_dict": {"weight": torch.zeros(2, 64)}},
    }
    for problem, change in changes.items():
        save_checkpoint(tmp_path / "in.pt", content | change)
        with pytest.raises(ValueError, match=problem):
            convert([str(tmp_path / "in.pt"), str(tmp_path / "o.pt"), "--to", target, "--config", str(config_path)])
    shifted = tmp_path / "shifted.yaml"
    shifted.write_text(f"base: {config_path}\nnetwork: {{tm: tokenshift}}\n")
    with pytest.raises(ValueError, match=r"network\.tm is tokenshift"):
        convert([str(ost_golden / OST), str(tmp_path / "o.pt"), "--to", target, "--config", str(shifted)])
