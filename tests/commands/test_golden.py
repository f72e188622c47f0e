"""The published implementation's results, end to end through the test commands; and what must not change them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

Main = Callable[[list[str]], dict]

CLOSE_SET = {
    "ref_close_1x1": ["--test_clips", "1", "--test_crops", "1"],
    "ref_close_4x3": ["--test_clips", "4", "--test_crops", "3"],
    "ref_close_2x5": ["--test_clips", "2", "--test_crops", "5"],
    "ref_close_1x10": ["--test_clips", "1", "--test_crops", "10"],
    "ref_dense_3x3": ["--test_clips", "3", "--test_crops", "3", "--dense"],
}


@pytest.fixture(scope="module")
def config(golden, tmp_path_factory) -> Path:
    """The configuration that the references were made with."""
    tree = {
        "data": {
            "dataset": "golden",
            "num_segments": 8,
            "batch_size": 5,
            "workers": 0,
            "num_classes": 12,
            "val_root": str(golden / "videos"),
            "val_list": str(golden / "list.txt"),
            "decoder": "decord",  # as the published code
            "label_list": str(golden / "labels.csv"),
            "input_size": 48,
        },
        "network": {"arch": str(golden / "tiny_clip.pt"), "temporal_layer": 3, "num_experts": 4},
    }
    path = tmp_path_factory.mktemp("configs") / "golden.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def run(golden, config, tmp_path) -> Callable[..., tuple[dict, dict]]:
    """Run a test command on the golden videos; returns results and saved logits."""

    def run(main: Main, *arguments: str) -> tuple[dict, dict]:
        logits = tmp_path / "logits.npz"
        results = main(
            ["--config", str(config), "--weights", str(golden / "tiny_mote.pt"), "--precision", "fp32",
             "--save_logits", str(logits), "--output", str(tmp_path), *arguments]
        )  # fmt: skip
        with np.load(logits) as saved:
            return results, dict(saved)

    return run


def percentages(lines: np.ndarray) -> list[float]:
    """The numbers of a printed report, such as 55.556 and 77.778."""
    return [float(number) for line in lines for number in re.findall(r"(\d+\.\d+)%", str(line))]


def assert_close_logits(saved: dict, reference: dict) -> None:
    difference = np.abs(saved["view_logits"] - reference["view_logits"])
    assert saved["view_logits"].shape == reference["view_logits"].shape
    assert saved["view_logits"].dtype == np.float32
    assert difference.max() <= 5e-3
    assert difference.mean() <= 5e-4
    assert saved["labels"].tolist() == reference["labels"].tolist()


@pytest.mark.parametrize("name", CLOSE_SET)
def test_close_set_results_are_the_published_ones(golden, close_set, run, name):
    reference = dict(np.load(golden / f"{name}.npz"))
    results, saved = run(close_set, *CLOSE_SET[name])
    assert_close_logits(saved, reference)
    assert np.abs(saved["scores"] - reference["fused"]).max() <= 1e-3
    top1, top5 = percentages(reference["report"])
    assert results["top1"] == pytest.approx(top1, abs=1e-3)
    assert results["top5"] == pytest.approx(top5, abs=1e-3)


def test_pyav_finds_the_same_frames_in_mp4(close_set, run):
    published, found = (run(close_set, "--test_clips", "2", f"data.decoder={name}")[1] for name in ("decord", "auto"))
    same = (found["view_logits"] == published["view_logits"]).all(axis=(1, 2))
    misread = ["clip_01.mp4", "clip_07.mp4", "clip_13.mp4"]  # 72 pixels wide: decord takes their rows for RGBA
    assert found["paths"][~same].tolist() == misread


def test_zero_shot_results_are_the_published_ones(golden, zero_shot, run):
    reference = dict(np.load(golden / "ref_zs_3x1.npz"))
    results, saved = run(zero_shot, "--test_clips", "3")
    assert_close_logits(saved, reference)
    top1, top5, *half = percentages(reference["report"])
    assert results["top1"] == pytest.approx(top1, abs=1e-3)
    assert results["top5"] == pytest.approx(top5, abs=1e-3)
    # The report's lines: Top1: mean, std; Top5: mean, std.
    for key, expected in zip(("top1_mean", "top1_std", "top5_mean", "top5_std"), half, strict=True):
        assert results["half_class"][key] == pytest.approx(expected, abs=6e-4), key


def test_the_published_average_with_clips_weights_is_taken(golden, close_set, run):
    # Its effect is smaller than the tolerances above.
    reference = np.load(golden / "ref_close_1x1.npz")["view_logits"]
    averaged, tuned_alone = (
        np.abs(run(close_set, *overrides)[1]["view_logits"] - reference).mean()
        for overrides in ([], ["eval.weight_average=1.0"])
    )
    assert averaged < tuned_alone / 3


def test_saved_logits_are_in_list_order(golden, close_set, run):
    _, saved = run(close_set)
    lines = [line.rsplit(maxsplit=1) for line in (golden / "list.txt").read_text().splitlines()]
    assert saved["paths"].tolist() == [path for path, _ in lines]
    assert saved["labels"].tolist() == [int(label) for _, label in lines]
    assert saved["view_logits"].shape == (18, 1, 12)
    assert saved["scores"].shape == (18, 12)
    assert saved["scores"].sum(axis=1) == pytest.approx(np.ones(18), abs=1e-5)


def test_results_json_holds_what_is_promised(golden, close_set, run, tmp_path, capsys):
    results, _ = run(close_set, "--test_clips", "2", "--test_crops", "3")
    assert json.loads((tmp_path / "results.json").read_text()) == results
    expected = {"dataset": "golden", "num_videos": 18, "num_clips": 2, "num_crops": 3, "precision": "fp32",
                "weights": str(golden / "tiny_mote.pt"), "failed_videos": []}  # fmt: skip
    assert {key: results[key] for key in expected} == expected
    assert {"top1", "top5", "fusion", "list_fingerprint"} <= results.keys()
    assert "half_class" not in results
    table = capsys.readouterr().out
    assert f"{results['top1']:.2f}" in table
    assert f"{results['top5']:.2f}" in table
    assert "2 clips x 3 crops" in table


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (18, 0), (5, 2), (1, 2)])
def test_batch_size_and_workers_do_not_change_a_figure(close_set, run, batch_size, workers):
    views = ["--test_clips", "2", "--test_crops", "3"]
    results, saved = run(close_set, *views, f"data.batch_size={batch_size}", f"data.workers={workers}")
    reference, reference_saved = run(close_set, *views)
    assert results == reference
    assert np.abs(saved["view_logits"] - reference_saved["view_logits"]).max() < 1e-5


def test_batch_size_does_not_change_half_class_figures(zero_shot, run):
    results = [run(zero_shot, "--test_clips", "3", f"data.batch_size={size}")[0] for size in (1, 18)]
    assert results[0] == results[1]


def test_several_splits_are_reported_with_their_mean(golden, zero_shot, config, tmp_path):
    lines = (golden / "list.txt").read_text().splitlines(keepends=True)
    paths = []
    for number, part in enumerate((lines[:10], lines[10:])):
        (tmp_path / f"list{number}.txt").write_text("".join(part))
        tree = yaml.safe_load(config.read_text())
        tree["data"] |= {"dataset": f"part{number}", "val_list": str(tmp_path / f"list{number}.txt")}
        paths.append(tmp_path / f"split{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(tree))
    fixed = ["--weights", str(golden / "tiny_mote.pt"), "--precision", "fp32"]
    together = zero_shot(["--config", *map(str, paths), *fixed, "--output", str(tmp_path / "both")])
    alone = [zero_shot(["--config", str(path), *fixed, "--output", str(tmp_path / path.stem)]) for path in paths]
    assert together["splits"] == {"split0": alone[0], "split1": alone[1]}
    assert together["num_videos"] == 18
    for name in ("top1", "top5"):
        figures = [result[name] for result in alone]
        assert together[name] == pytest.approx(np.mean(figures))
        assert together[f"{name}_std"] == pytest.approx(np.std(figures))


def test_configurations_of_one_name_are_all_tested(golden, zero_shot, config, tmp_path):
    paths = []
    for folder in ("ucf", "hmdb"):
        tree = yaml.safe_load(config.read_text())
        tree["data"]["dataset"] = folder
        paths.append(tmp_path / folder / "split1.yaml")
        paths[-1].parent.mkdir()
        paths[-1].write_text(yaml.safe_dump(tree))
    results = zero_shot(
        ["--config", *map(str, paths), "--weights", str(golden / "tiny_mote.pt"), "--output", str(tmp_path)]
    )
    assert results["num_videos"] == 36
    assert len(results["splits"]) == 2
