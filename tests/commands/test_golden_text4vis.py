"""The published Text4Vis implementation's results, end to end through the test commands."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from commands.weights import Weights
from engine.protocols.fusion import FUSIONS
from utils.config import EvalConfig

Main = Callable[[list[str]], dict]

TUNED, TUNED_224, TUNED_NCE = "tiny_text4vis.pt", "tiny_text4vis_224.pt", "tiny_text4vis_nce.pt"
CLIP, CLIP_224 = "tiny_clip.pt", "tiny_clip_224.pt"
AT_224 = {"data.input_size": 224, "network.sim_header": "None", "network.arch": CLIP_224}
# Name: weights, what is not as in the base file, arguments.
CLOSE_SET = {
    "ref_close_1x1": (TUNED, {}, []),
    "ref_close_4x3": (TUNED, {}, ["--test_clips", "4", "--test_crops", "3"]),
    "ref_close_2x5": (TUNED, {}, ["--test_clips", "2", "--test_crops", "5"]),
    "ref_dense_3x3": (TUNED, {}, ["--test_clips", "3", "--test_crops", "3", "--dense"]),
    "ref_close_1x1_f16": (TUNED, {"data.num_segments": 16}, []),
    "ref_224_none_1x1": (TUNED_224, AT_224, []),
    "ref_224_none_4x3": (TUNED_224, AT_224 | {"data.num_segments": 4}, ["--test_clips", "4", "--test_crops", "3"]),
    "ref_tokenshift_1x1": (TUNED, {"network.tm": "tokenshift"}, []),
    "ref_nce_close_1x1": (TUNED_NCE, {}, []),
}


@pytest.fixture
def run(text4vis_golden, golden, repo_root, tmp_path) -> Callable[..., tuple[dict, dict]]:
    """Run a test command on the golden videos; returns results and saved logits."""

    def run(main: Main, weights: str, changes: dict, arguments: list[str], base: bool = True) -> tuple[dict, dict]:
        tree = {
            "data": {
                "dataset": "golden", "num_segments": 8, "batch_size": 5, "workers": 0, "decoder": "decord",
                "val_root": str(golden / "videos"), "val_list": str(text4vis_golden / "list.txt"),
                "label_list": str(golden / "labels.csv"), "input_size": 48,
            },
            "network": {"arch": str(text4vis_golden / CLIP)},
        }  # fmt: skip
        if base:
            tree["base"] = str(repo_root / "configs" / "systems" / "text4vis.yaml")
        for key, value in changes.items():
            section, name = key.split(".")
            tree.setdefault(section, {})[name] = str(text4vis_golden / value) if key == "network.arch" else value
        config, logits = tmp_path / "config.yaml", tmp_path / "logits.npz"
        config.write_text(yaml.safe_dump(tree))
        results = main(
            ["--config", str(config), "--weights", str(text4vis_golden / weights), "--precision", "fp32",
             "--save_logits", str(logits), "--output", str(tmp_path), *arguments]
        )  # fmt: skip
        with np.load(logits) as saved:
            return results, dict(saved)

    return run


def percentages(reference: dict) -> list[float]:
    """The numbers of a printed report, such as 55.556 and 77.778."""
    return [float(number) for line in reference["report"] for number in re.findall(r"(\d+\.\d+)", str(line))]


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def assert_same_scores(saved: dict, reference: dict) -> None:
    """Cosines of the mean feature, and of each view, are those of the published code up to its loader's rounding."""
    text = unit(reference["text_features"])
    difference = np.abs(saved["scores"] - unit(reference["view_features"].mean(axis=1)) @ text.T)
    assert difference.max() <= 1e-3
    assert difference.mean() <= 2e-4
    assert np.abs(saved["view_logits"] - unit(reference["view_features"]) @ text.T).max() <= 5e-3
    norms = np.linalg.norm(reference["view_features"], axis=-1)
    assert np.abs(saved["view_norms"] - norms).max() <= 5e-3 * norms.max()
    assert saved["labels"].tolist() == reference["labels"].tolist()


@pytest.mark.parametrize("name", CLOSE_SET)
def test_close_set_results_are_the_published_ones(text4vis_golden, close_set, run, name):
    reference = dict(np.load(text4vis_golden / f"{name}.npz"))
    results, saved = run(close_set, *CLOSE_SET[name])
    assert_same_scores(saved, reference)
    top1, top5 = percentages(reference)[-2:]
    assert results["top1"] == pytest.approx(top1, abs=1e-3)
    assert results["top5"] == pytest.approx(top5, abs=1e-3)


@pytest.mark.parametrize("name", ["ref_zs_1x1", "ref_zs_4x3"])
def test_zero_shot_results_are_the_published_ones(text4vis_golden, zero_shot, run, name):
    reference = dict(np.load(text4vis_golden / f"{name}.npz"))
    views = ["--test_clips", "4", "--test_crops", "3"] if "4x3" in name else []
    results, saved = run(zero_shot, TUNED, {}, views)
    assert_same_scores(saved, reference)
    half = results["half_class"]
    found = [results["top1"], results["top5"], half["top1_mean"], half["top1_std"], half["top5_mean"], half["top5_std"]]
    expected = [float(n) for line in reference["report"] for n in re.findall(r"(\d+\.\d+)%", str(line))]
    assert found == pytest.approx(expected, abs=1e-3)
    assert half["top1_mean"] == pytest.approx(reference["half_class_top1"].mean(), abs=1e-3)


def test_mean_average_precision_is_the_published_one(text4vis_golden, close_set, run):
    reference = dict(np.load(text4vis_golden / "ref_anet_1x1_f16.npz"))
    changes = {"data.num_segments": 16, "eval.mean_ap": True, "eval.map_softmax": True}
    results, saved = run(close_set, TUNED, changes, [])
    assert_same_scores(saved, reference)
    assert results["mAP"] == pytest.approx(float(reference["mAP"]), abs=1e-3)
    top1, top5 = percentages(reference)[:2]
    assert [results["top1"], results["top5"]] == pytest.approx([top1, top5], abs=1e-3)


def test_a_file_with_shifted_blocks_is_tested_with_tsm(text4vis_golden, close_set, run, tmp_path):
    content = torch.load(text4vis_golden / TUNED, weights_only=True)
    block = re.compile(r"^(visual\.transformer\.resblocks\.\d+\.)")
    state = {block.sub(r"\1net.", name): value.clone() for name, value in content["model_state_dict"].items()}
    torch.save(content | {"model_state_dict": state}, tmp_path / "tsm.pt")
    reference = dict(np.load(text4vis_golden / "ref_tsm_1x1.npz"))
    results, saved = run(close_set, str(tmp_path / "tsm.pt"), {"network.tm": "tsm"}, [])
    assert_same_scores(saved, reference)
    assert [results["top1"], results["top5"]] == pytest.approx(percentages(reference)[-2:], abs=1e-3)


@pytest.mark.parametrize("name", ["ref_close_1x1", "ref_close_4x3", "ref_zs_4x3", "ref_dense_3x3"])
def test_features_of_views_become_the_published_probabilities(text4vis_golden, name):
    reference = np.load(text4vis_golden / f"{name}.npz")
    features, text = (torch.from_numpy(reference[key]) for key in ("view_features", "text_features"))
    fusion = FUSIONS["features"](EvalConfig())
    scores = fusion.fuse({"features": features}, F.normalize(text, dim=-1), 1.0)
    assert np.abs(fusion.probabilities(scores).numpy() - reference["scores"]).max() <= 1e-5 * reference["scores"].max()


def test_pictures_become_the_published_features(text4vis_golden, repo_root):
    reference = np.load(text4vis_golden / "ref_close_1x1.npz")
    weights = Weights(text4vis_golden / TUNED)
    overrides = [f"network.arch={text4vis_golden / CLIP}", "data.input_size=48"]
    config = weights.config(repo_root / "configs" / "systems" / "text4vis.yaml", overrides)
    system = weights.build(config, weights.towers(config, 48)).eval()
    with torch.inference_mode():
        found = system.embed(system.encode(torch.from_numpy(reference["pixels"][:, 0]))).numpy()
    expected = reference["view_features"][:4, 0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
