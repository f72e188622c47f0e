"""The weight-average sweep gives what the test commands give, encodes once, and goes on where it stopped."""

import itertools
import json
import runpy

import numpy as np
import pytest
from matplotlib import pyplot

import train
from commands.arguments import read_configs
from commands.testing import ListToTest
from commands.weights import Weights
from datasets.build import build_eval_loader
from datasets.clips.kept import KeptBatches
from engine.protocols.zero_shot import ZeroShot
from modules.systems.base import System
from reports.tradeoff import _hide_overlapping, summarise, table
from tools import tradeoff
from tools.tradeoff import SweptModel


@pytest.fixture(scope="module")
def weights(debug_config, tmp_path_factory):
    """Checkpoint of one epoch on the debug data, far from CLIP's weights."""
    runs = tmp_path_factory.mktemp("runs")
    recipe = ["solver.epochs=1", "solver.lr=0.01", "solver.clip_ratio=1.0", f"data.output_path={runs}"]
    train.main(["--config", str(debug_config), "--log_time", "one", "--precision", "fp32", *recipe])
    return runs / "debug" / "tiny_clip" / "one" / "last_model.pt"


@pytest.fixture(scope="module")
def arguments(debug_config, weights, tmp_path_factory) -> list[str]:
    """One close-set and two zero-shot lists, one with a video that is missing; class names unlike those in training."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "labels.csv").write_text("id,name\n0,left\n1,right\n2,up\n3,down\n")
    (folder / "odd.yaml").write_text(f"base: {debug_config}\ndata: {{label_list: {folder / 'labels.csv'}}}\n")
    (folder / "new.yaml").write_text("base: odd.yaml\ndata: {dataset: new}\n")
    zero_shot = [str(folder / "odd.yaml"), str(folder / "new.yaml")]
    return ["--close", str(debug_config), "--zeroshot", *zero_shot, "--weights", str(weights), "--precision", "fp32"]


def test_points_are_what_the_test_commands_report(repo_root, arguments, debug_config, weights, tmp_path):
    results = tradeoff.main([*arguments, "--alphas", "0,0.5", "--test_clips", "2", "--out", str(tmp_path / "sweep")])
    commands = {name: runpy.run_path(str(repo_root / name))["main"] for name in ("test.py", "test_zeroshot.py")}
    fixed = ["--weights", str(weights), "--precision", "fp32", "--test_clips", "2", "--output", str(tmp_path / "test")]
    assert len(results["points"]) == 4
    for point in results["points"]:
        keys = [f"eval.weight_average={point['weight_average']}", f"mote.modulation={point['modulation'] == 'on'}"]
        close = commands["test.py"](["--config", str(debug_config), *fixed, *keys])
        zero_shot = commands["test_zeroshot.py"](["--config", *arguments[3:5], *fixed, *keys])
        assert point["close_set"] == close["top1"]
        assert point["zero_shot_mean"] == pytest.approx(zero_shot["top1"])
    fixed[1] = "clip"
    plain = commands["test.py"](["--config", str(debug_config), *fixed])
    assert results["plain_clip"]["close_set"] == plain["top1"]


def test_cosines_are_those_of_the_test_command_in_any_order_of_averages(repo_root, arguments, weights, fp32, tmp_path):
    args = tradeoff.parse_args(arguments)
    tested = Weights(args.weights)
    configs = read_configs(args, tested)
    swept = SweptModel(tested, {name: ListToTest.read(config) for name, config in configs.items()}, fp32)
    config, videos = configs["odd"], swept.lists["odd"].videos
    loader = KeptBatches(build_eval_loader(config.data, videos, rank=0, world_size=1), max_bytes=1e9)
    found = {}
    for alpha in (1.0, 0.0, 0.5):
        swept.set_average(alpha)
        found[alpha] = swept.scores("odd", loader, 1, "", ZeroShot.of(config.eval).fusion)
    test = runpy.run_path(str(repo_root / "test_zeroshot.py"))["main"]
    for alpha, modulation in ((a, m) for a in found for m in ("on", "off")):
        test(["--config", args.zeroshot[0], "--weights", str(weights), "--precision", "fp32",
              "--output", str(tmp_path), "--save_logits", str(tmp_path / "logits.npz"),
              f"eval.weight_average={alpha}", f"mote.modulation={modulation == 'on'}"])  # fmt: skip
        expected = np.load(tmp_path / "logits.npz")["scores"]  # 100 times the cosines
        np.testing.assert_allclose(found[alpha][modulation].numpy(), expected, atol=1e-4)
    different = [found[0.0]["on"], found[0.0]["off"], found[0.5]["off"], found[1.0]["off"]]
    assert all((a - b).abs().max() > 1e-4 for a, b in itertools.combinations(different, 2))


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Clips of every call of the image tower."""
    calls: list[int] = []
    original = System.encode
    monkeypatch.setattr(System, "encode", lambda self, x, lengths: calls.append(len(x)) or original(self, x, lengths))
    return calls


def test_every_average_encodes_once_and_what_is_there_is_not_repeated(arguments, encoded, tmp_path):
    # 3 lists of 8 videos; plain CLIP is tested beside the averages.
    first = tradeoff.main([*arguments, "--alphas", "0,1", "--out", str(tmp_path)])
    assert sum(encoded) == 3 * 8 * (2 + 1)
    encoded.clear()
    more = tradeoff.main([*arguments, "--alphas", "0,0.5,1", "--out", str(tmp_path)])
    assert sum(encoded) == 3 * 8
    assert [point["weight_average"] for point in more["points"]] == [0, 0, 0.5, 0.5, 1, 1]
    assert [point for point in more["points"] if point["weight_average"] != 0.5] == first["points"]


def test_a_sweep_that_was_stopped_goes_on(arguments, encoded, tmp_path):
    whole = tradeoff.main([*arguments, "--alphas", "0,1", "--out", str(tmp_path)])
    path = tmp_path / "tradeoff.json"
    results = json.loads(path.read_text())
    del results["tests"]["new"], results["points"], results["best"], results["plain_clip"]
    path.write_text(json.dumps(results))
    encoded.clear()
    assert tradeoff.main([*arguments, "--alphas", "0,1", "--out", str(tmp_path)]) == whole
    assert sum(encoded) == 8 * (2 + 1)


def test_results_of_other_settings_are_not_mixed(arguments, tmp_path):
    tradeoff.main([*arguments, "--alphas", "1", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="num_clips was 1, is 2; give another --out"):
        tradeoff.main([*arguments, "--alphas", "1", "--out", str(tmp_path), "--test_clips", "2"])


def test_files_are_written(arguments, tmp_path, capsys):
    results = tradeoff.main([*arguments, "--alphas", "1", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"tradeoff.json", "tradeoff.png", "tradeoff.txt"}
    assert json.loads((tmp_path / "tradeoff.json").read_text()) == json.loads(json.dumps(results))
    assert (tmp_path / "tradeoff.txt").read_text() in capsys.readouterr().out


@pytest.mark.parametrize("alphas", ["", "0,two", "1.5", "-0.1,1", "nan"])
def test_averages_outside_zero_to_one_are_refused(arguments, alphas, capsys):
    with pytest.raises(SystemExit):
        tradeoff.main([*arguments, f"--alphas={alphas}"])
    assert "expected numbers from 0 to 1" in capsys.readouterr().err


def two_tests(close: dict[str, float], zero_shot: dict[str, float]) -> dict:
    tests = {}
    for name, figures in (("seen", close), ("new", zero_shot)):
        tests[name] = {key: {"on": {"top1": value}} for key, value in figures.items() if key != "clip"}
        tests[name]["clip"] = {"top1": figures["clip"]}
    return tests


def test_the_best_point_has_the_largest_harmonic_mean_of_those_tested_on_all_lists():
    tests = two_tests({"clip": 30.0, "0": 60.0, "0.5": 80.0, "1": 90.0, "0.9": 99.0},
                      {"clip": 40.0, "0": 60.0, "1": 40.0, "0.5": 50.0})  # fmt: skip
    summary = summarise(tests, "seen", ["new"])
    assert [point["weight_average"] for point in summary["points"]] == [0, 0.5, 1]
    assert summary["best"]["weight_average"] == 0.5
    assert summary["best"]["harmonic_mean"] == pytest.approx(2 * 80 * 50 / 130)
    settings = {"num_clips": 1, "num_crops": 1, "dense": False, "weights": "w.pt", "precision": "fp32"}
    lines = table({"settings": settings} | summary).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["plain", "0", "0.5", "1"]
    assert [" * " in line for line in lines[2:]] == [False, False, True, False]


def test_labels_of_averages_that_lie_together_do_not_cover_each_other():
    figure, axis = pyplot.subplots()
    for text, place in (("0.9", (0.5, 0.5)), ("1", (0.5, 0.501)), ("0.2", (0.1, 0.1))):
        axis.annotate(text, place)
    _hide_overlapping(figure, axis.texts)
    assert [text.get_visible() for text in axis.texts] == [False, True, True]
    pyplot.close(figure)
