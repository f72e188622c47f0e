"""A preset's statistics of pixels go wherever its pictures go, and are never mixed with others without a word."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import extract_features
import predict
import train
from clip.model import PIXEL_MEAN, PIXEL_STD
from commands.weights import Weights
from datasets.clips.presets import PRESETS, VIFI
from modules.formats.ours import read_checkpoint
from modules.graph import VideoGraph
from utils.config.pixels import IMAGENET

FP32 = ["--precision", "fp32"]
AS_VIFI, AS_MOTE = "data.transforms=vifi", "data.transforms=mote"
MEAN, STD = (IMAGENET[name] for name in ("pixel_mean", "pixel_std"))


@pytest.fixture(scope="module")
def run_test(repo_root):
    """``test.main``; loaded by path, because Python has a package ``test`` of its own."""
    return runpy.run_path(str(repo_root / "test.py"))["main"]


@pytest.fixture(scope="module")
def tuned(debug_config, tmp_path_factory) -> Path:
    """A checkpoint of a short run with the preset ``vifi``."""
    folder = tmp_path_factory.mktemp("runs")
    overrides = [AS_VIFI, "solver.epochs=1", f"data.output_path={folder}"]
    train.main(["--config", str(debug_config), "--log_time", "run", *FP32, *overrides])
    return next(folder.rglob("last_model.pt"))


def model_of(weights: Weights, *arguments):
    config = weights.config(*arguments)
    return weights.build(config, weights.towers(config, config.data.input_size)).eval()


@torch.no_grad()
def test_pixels_are_normalised_with_the_statistics_of_the_preset(debug_config):
    clips = torch.randint(256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    found = {}
    for transforms, mean, std in ((AS_MOTE, PIXEL_MEAN, PIXEL_STD), (AS_VIFI, MEAN, STD)):
        towers = model_of(Weights("clip"), debug_config, [transforms]).towers
        images = (clips.permute(0, 1, 3, 4, 2).double() / 255 - torch.tensor(mean)) / torch.tensor(std)
        expected = towers.encode_image(images.permute(0, 1, 4, 2, 3).float().flatten(0, 1)).unflatten(0, (2, 3))
        found[transforms] = towers.encode_clips(clips)
        torch.testing.assert_close(found[transforms], expected, rtol=1e-4, atol=1e-5)
    assert (found[AS_MOTE] - found[AS_VIFI]).abs().max() > 1e-3


def test_a_checkpoint_says_its_statistics_and_is_tested_with_them(tuned, run_test, tmp_path):
    checkpoint = torch.load(tuned, weights_only=True)
    assert (checkpoint["towers"]["pixel_mean"], checkpoint["towers"]["pixel_std"]) == (MEAN, STD)
    assert checkpoint["towers"]["interpolation"] == VIFI.of_towers["interpolation"]
    towers = model_of(Weights(tuned), None, []).towers
    assert towers.pixel_mean.flatten().tolist() == pytest.approx([255 * value for value in MEAN])
    run_test(["--weights", str(tuned), "--output", str(tmp_path), *FP32])


def test_other_statistics_than_the_checkpoint_s_are_a_warning_with_both(tuned, caplog):
    model_of(Weights(tuned), None, [])
    assert "statistics" not in caplog.text
    model_of(Weights(tuned), None, [AS_MOTE])
    assert (
        f"{tuned} was made with other statistics of pixels: pixel_mean [0.485, 0.456, 0.406], now [0.48" in caplog.text
    )


def test_a_start_from_weights_of_other_statistics_is_a_warning(tuned, debug_config, tmp_path, caplog):
    overrides = [AS_MOTE, f"pretrain={tuned}", "solver.epochs=1", f"data.output_path={tmp_path}"]
    train.main(["--config", str(debug_config), *FP32, *overrides])
    assert "was made with other statistics of pixels" in caplog.text


def test_a_cache_of_other_statistics_is_refused(debug_config, run_test, tmp_path, monkeypatch):
    out = tmp_path / "cache"
    arguments = ["--config", str(debug_config), "--part", "val", "--out", str(out), *FP32]
    metadata = extract_features.main([*arguments, AS_VIFI])["val"]
    assert (metadata["pixel_mean"], metadata["pixel_std"]) == (MEAN, STD)
    cached = ["data.modality=features", "network.fix_video=True", f"data.val_root={out / 'val'}"]
    test = ["--config", str(debug_config), "--weights", "clip", "--output", str(tmp_path), *FP32, *cached]
    assert run_test([*test, AS_VIFI])["num_videos"]
    with pytest.raises(ValueError, match=r"pixel_mean was \[0\.485, 0\.456, 0\.406\], is \[0\.48145466"):
        run_test([*test, AS_MOTE])
    monkeypatch.setitem(PRESETS, "vifi", replace(VIFI, of_towers={}))  # the name alone does not tell
    with pytest.raises(ValueError, match=r"pixel_mean was \[0\.485, 0\.456, 0\.406\], is \[0\.48145466"):
        run_test([*test, AS_VIFI])
    with pytest.raises(ValueError, match=r"pixel_mean was \[0\.485, 0\.456, 0\.406\], is \[0\.48145466"):
        extract_features.main([*arguments, AS_VIFI])


@pytest.mark.slow
def test_exports_hold_and_say_the_statistics(tuned, tmp_path, caplog):
    graph = export.main(["--weights", str(tuned), "--out", str(tmp_path / "graph"), "--format", "torch_export"])
    assert json.loads((graph.parent / "model.json").read_text())["towers"]["pixel_std"] == list(STD)
    inputs = VideoGraph(model_of(Weights(tuned), None, []), None).example(1, 2, 5)
    program = torch.export.load(graph).module()
    with torch.no_grad():
        same, other = (
            VideoGraph(model_of(Weights(tuned), None, overrides), None)(*inputs)[0] for overrides in ([], [AS_MOTE])
        )
        found = program(*inputs)[0]
    torch.testing.assert_close(found, same, rtol=1e-4, atol=1e-5)
    assert (found - other).abs().max() > 1e-4
    file = export.main(["--weights", str(tuned), "--out", str(tmp_path / "file")])
    assert tuple(read_checkpoint(file)["towers"]["pixel_mean"]) == MEAN
    caplog.clear()
    model_of(Weights(file), None, [])
    assert "statistics" not in caplog.text
    model_of(Weights(file), None, [AS_MOTE])
    assert "was made with other statistics of pixels" in caplog.text


def test_predictions_use_the_statistics_and_embeddings_tell_them_apart(tuned, debug_data):
    video = str(next((debug_data / "videos").rglob("*.mp4")))
    classifiers = [predict.VideoClassifier.load(tuned, overrides=each, precision="fp32") for each in ([], [AS_MOTE])]
    own, other = (next(iter(classifier.embed(video))).embedding for classifier in classifiers)
    assert np.abs(own - other).max() > 1e-4
    assert classifiers[0].model.towers.spec.pixel_mean == MEAN
    assert classifiers[0].fingerprint() != classifiers[1].fingerprint()
