"""TVTSv2's files given to the commands, as weights and as network.arch, and a CLIP that becomes a space-time tower."""

import json
import logging
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
from clip.shapes import TEMPORAL
from commands.classifier import VideoClassifier
from commands.weights import Weights
from modules.formats.ours import read_checkpoint
from tools.convert import main as convert
from utils.weights.four_keys import MODEL

FILES = {"b32": "tiny_b32_pretraining.pth", "b16": "tiny_b16.pth", "h14": "tiny_h14.pth"}
FP32 = ["--precision", "fp32"]
IMAGENET = ["data.transforms=vifi"]  # its statistics


@pytest.fixture(scope="module")
def config_of(golden, ost_golden, tvtsv2_golden, repo_root, tmp_path_factory) -> Callable[[str], Path]:
    """Kind of model -> a configuration of the golden videos, with its file as arch."""

    def config_of(kind: str) -> Path:
        lists = {f"{part}_{key}": str(path) for part in ("train", "val") for key, path in
                 (("root", golden / "videos"), ("list", ost_golden / "list.txt"))}  # fmt: skip
        tree = {
            "base": str(repo_root / "configs" / "systems" / f"tvtsv2_{kind}.yaml"),
            "data": {
                "dataset": "golden", "batch_size": 7, "workers": 0, "transforms": "vifi", "num_segments": 4,
                "label_list": str(golden / "labels.csv"), "input_size": 56 if kind == "h14" else 48, **lists,
            },
            "network": {"arch": str(tvtsv2_golden / FILES[kind])},
        }  # fmt: skip
        path = tmp_path_factory.mktemp("config") / f"{kind}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return config_of


def scores_of(weights: str, config_path: Path | None, golden: np.ndarray, names: list[str], *overrides: str):
    """Logits of the golden encoder's two clips with names of classes, and classes' vectors."""
    model = Weights(weights)
    config = model.config(config_path, [*IMAGENET, *overrides])
    towers = model.towers(config, config.data.input_size)
    classes = model.classes(config, towers, names)
    system = model.build(config, towers, classes).eval()
    with torch.no_grad():
        encoded = classes.encode(system.towers)
        return system.logit_scale * system.score(system.encode(torch.from_numpy(golden["video"])), encoded), encoded


def largest_difference(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("kind", FILES)
def test_classes_and_scores_are_the_published_ones(tvtsv2_golden, config_of, kind):
    file, golden = str(tvtsv2_golden / FILES[kind]), np.load(tvtsv2_golden / f"encoder_{kind}.npz")
    prompt = tvtsv2_golden / "annotations" / "hmdb51" / "prompt"
    names = list(json.loads((prompt / "label2id.json").read_text()))
    scores, classes = scores_of(file, config_of(kind), golden, names)
    published = np.load(tvtsv2_golden / f"recognition_{kind}.npz")["class_features"]
    assert largest_difference(classes, published) < 1e-5
    expected = 100 * F.normalize(torch.from_numpy(golden["all_cls"]), dim=-1).numpy() @ published.T
    assert largest_difference(scores, expected) < 1e-5
    if kind != "h14":  # of whose smaller kin shapes do not tell the activation
        alone, _ = scores_of(file, None, golden, names)
        assert largest_difference(alone, expected) < 1e-5


def test_the_file_alone_tells_its_configuration(tvtsv2_golden):
    file = str(tvtsv2_golden / FILES["b32"])
    config = Weights(file).config(None, IMAGENET)
    network, data = config.network, config.data
    assert (network.system, network.tower, network.arch, network.templates) == ("tvtsv2", "divided", file, "person")
    assert (data.num_segments, data.input_size, config.eval.weight_average) == (12, 48, 1.0)


def test_every_command_takes_the_file(tvtsv2_golden, golden, config_of, zero_shot, tmp_path):
    path = str(tvtsv2_golden / FILES["b32"])
    arguments = ["--config", str(config_of("b32")), "--weights", path]
    results = zero_shot([*arguments, "--output", str(tmp_path), *FP32])
    assert results["num_videos"] == 14
    as_arch = ["--config", str(config_of("b32")), "--weights", "clip"]
    assert zero_shot([*as_arch, "--output", str(tmp_path), *FP32])["top1"] == results["top1"]
    caches = extract_features.main([*arguments, "--part", "val", "--out", str(tmp_path / "cache"), *FP32])
    assert (caches["val"]["tower"], caches["val"]["pixel_mean"]) == ("divided", (0.485, 0.456, 0.406))
    file = export.main([*arguments, "--out", str(tmp_path / "file")])
    exported = ["--config", str(config_of("b32")), "--weights", str(file)]
    assert zero_shot([*exported, "--output", str(tmp_path), *FP32])["top1"] == results["top1"]
    graph = export.main([*arguments, "--out", str(tmp_path / "graph"), "--format", "torch_export"])
    assert json.loads((graph.parent / "model.json").read_text())["towers"]["image_size"] == 48
    classifier = VideoClassifier.load(path, config_of("b32"), precision="fp32")
    (prediction,) = classifier.predict(str(golden / "videos" / "clip_00.mp4"), ["juggling", "rowing"])
    assert sum(prediction.scores.values()) == pytest.approx(1.0)


def test_files_keep_every_bit_there_and_back(tvtsv2_golden, config_of, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = tvtsv2_golden / FILES["b32"]
    original = read_checkpoint(source)
    convert([str(source), str(tmp_path / "ours.pt"), "--to", "ours"])
    assert "ours.pt" in caplog.text
    assert "tvts -> ours" in caplog.text
    ours = read_checkpoint(tmp_path / "ours.pt")
    assert all(torch.equal(ours[MODEL][name], value) for name, value in original[MODEL].items())
    assert Weights(tmp_path / "ours.pt").config(None, IMAGENET).network.arch == str(tmp_path / "ours.pt")
    golden = np.load(tvtsv2_golden / "encoder_b32.npz")
    scores = [scores_of(str(file), None, golden, ["a", "b"])[0] for file in (source, tmp_path / "ours.pt")]
    assert torch.equal(*scores)
    convert([str(tmp_path / "ours.pt"), str(tmp_path / "back.pth"), "--to", "tvts"])
    published = torch.load(source, weights_only=True)["state_dict"]
    found = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert found.keys() == {name for name in published if not name.startswith("pred_model.")}
    assert all(torch.equal(published[name], value) for name, value in found.items())
    safe = tmp_path / "ours.safetensors"
    convert([str(source), str(safe), "--to", "ours", "--config", str(config_of("b32"))])
    assert torch.equal(read_checkpoint(safe)[MODEL][TEMPORAL], original[MODEL][TEMPORAL])


@pytest.mark.parametrize("target", ["mote", "bike", "text4vis", "ost", "vificlip"])
def test_formats_of_frames_have_no_place_for_the_tower(tvtsv2_golden, tmp_path, target):
    with pytest.raises(ValueError, match=rf"has a space-time tower, expected --to one of ours, .*, found {target}"):
        convert([str(tvtsv2_golden / FILES["b16"]), str(tmp_path / "out.pt"), "--to", target])
    assert not (tmp_path / "out.pt").exists()


def test_a_clip_of_pictures_learns_and_is_read_again(golden, config_of, zero_shot, tmp_path):
    arch = f"network.arch={golden / 'tiny_clip.pt'}"
    overrides = [arch, f"data.output_path={tmp_path}", "solver.epochs=1", "solver.loss_type=CE", *FP32]
    overrides += ["network.grad_checkpointing=True"]
    train.main(["--config", str(config_of("b16")), *overrides])
    last = next(tmp_path.rglob("last_model.pt"))
    trained = read_checkpoint(last)[MODEL]
    assert trained[TEMPORAL].shape == (12, 128)
    assert trained["visual.transformer.resblocks.0.timeattn.in_proj_weight"].abs().max() > 0
    results = zero_shot(["--weights", str(last), "--output", str(tmp_path / "test"), *FP32])
    assert results["num_videos"] == 14
    # A share of the pretrained weights: what these do not have stays as it was learned.
    averaged = Weights(last)
    config = averaged.config(None, ["eval.weight_average=0.5"])
    towers = averaged.build(config, averaged.towers(config, 48)).towers.state_dict()
    assert torch.equal(towers[TEMPORAL], trained[TEMPORAL])
    assert not torch.equal(towers["visual.proj"], trained["visual.proj"])
    convert([str(last), str(tmp_path / "tvts.pth"), "--to", "tvts"])
    assert torch.equal(read_checkpoint(tmp_path / "tvts.pth")[MODEL][TEMPORAL], trained[TEMPORAL])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.tower=dividied"], "network.tower: expected one of frames, divided, found 'dividied'"),
        (["network.tower=frames"], r"network.tower: \S+ is a space-time tower, expected divided, found frames"),
        (["network.tm=tsm"], "network.tower divided and network.tm: expected one of them, found both"),
        (["network.joint_st=True"], "network.tower divided and network.joint_st: expected one of them, found both"),
        (
            ["network.system=mote", "network.tower=divided", "network.sim_header=Transf"],
            "network.tower divided encodes a clip as one vector, so network.sim_header must be None",
        ),
        (["network.head_width=48"], r"network.head_width 48: expected a ViT of a multiple of it, \S+ is one 64 wide"),
        (["network.head_width=-1"], r"network\.head_width"),
    ],
)
def test_settings_that_do_not_fit_are_named(tvtsv2_golden, config_of, zero_shot, overrides, message):
    path = str(tvtsv2_golden / FILES["b32"])
    with pytest.raises(ValueError, match=message):
        zero_shot(["--config", str(config_of("b32")), "--weights", path, *overrides, *FP32])
