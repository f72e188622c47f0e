"""probe.py: frozen vectors, a linear classifier, results over one split or several."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

import commands.vectors
import extract_features
import probe
from commands.classifier import VideoClassifier
from datasets.lists.few_shot import few_shot_indices
from datasets.read import read_data
from modules.build import load_config

TIMEOUT_S = 180
FP32 = ["--precision", "fp32"]
FEW = ["probe.values=[0.1,1,10]", "probe.epochs=20"]


@pytest.fixture
def run(debug_config, tmp_path) -> Callable[..., dict]:
    """Probe plain CLIP on the debug data; returns what ``results.json`` holds."""

    def run(*arguments: object, config: object = debug_config, output: str = "out") -> dict:
        common = ["--weights", "clip", *FP32, "--output", str(tmp_path / output), *FEW]
        found = probe.main(["--config", str(config), *common, *map(str, arguments)])
        assert json.loads((tmp_path / output / "results.json").read_text()) == found
        return found

    return run


@pytest.fixture
def no_video(monkeypatch):
    """From now on no video can be encoded."""
    return lambda: monkeypatch.setattr(commands.vectors, "embed_views", lambda *_: pytest.fail("videos were read"))


def vectors_of(config, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of a list as predict.py has them, and labels."""
    classifier = VideoClassifier.load("clip", config, precision="fp32")
    videos = read_data(load_config(config).data, (part,)).parts[part]
    paths = [f"{videos.root}/{videos.path(index)}" for index in range(len(videos))]
    return np.stack([p.embedding for p in classifier.embed(paths, num_clips=1)]), videos.labels


def test_the_classifier_is_scikit_learn_s_on_the_vectors_of_the_frozen_model(run, debug_config, tmp_path, capsys):
    results = run("probe.values=[3]", "--save_logits", tmp_path / "scores.npz")
    (train, train_labels), (test, labels) = (vectors_of(debug_config, part) for part in ("train", "val"))
    model = LogisticRegression(C=3, max_iter=1000).fit(train.astype(float), train_labels)
    saved = np.load(tmp_path / "scores.npz")
    np.testing.assert_allclose(saved["scores"], model.decision_function(test), atol=2e-3)
    assert np.array_equal(saved["labels"], labels)
    assert results["top1"] == pytest.approx(100 * model.score(test, labels))
    assert results["fusion"] == "mean of vectors over views, linear classifier"
    facts = results["probe"]
    assert (facts["solver"], facts["value"], facts["num_train"]) == ("logistic", 3.0, len(train))
    assert "held_out_top1" not in facts
    assert f"{results['top1']:.2f}" in capsys.readouterr().out


def test_vectors_are_computed_once(run, tmp_path, no_video, debug_config):
    first = run()
    (file,) = (tmp_path / "out" / "vectors").iterdir()  # of both lists
    no_video()
    assert run() == first
    assert run("--solver", "linear")["probe"]["solver"] == "linear"
    assert run("--vectors", tmp_path / "out" / "vectors", output="elsewhere") == first
    with pytest.raises(pytest.fail.Exception, match="videos were read"):
        run("--test_clips", "2")
    with pytest.raises(pytest.fail.Exception, match="videos were read"):
        run("data.transforms=vifi")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"{file.name}: damaged .* remove it"):
        run()


def test_vectors_of_other_weights_are_others(run, tmp_path):
    run()
    run("network.drop_out=0.5")  # changes nothing in a test
    assert len(list((tmp_path / "out" / "vectors").iterdir())) == 1
    run("network.system=text4vis", "network.tm=tokent1d", "network.sim_header=None")
    assert len(list((tmp_path / "out" / "vectors").iterdir())) == 2


def test_only_videos_without_a_vector_are_read(run, debug_data, tmp_path, monkeypatch):
    lines, asked = (debug_data / "train.txt").read_text().splitlines(), []
    embed = commands.vectors.embed_views
    noted = lambda system, loader, *rest: asked.append(len(loader.dataset)) or embed(system, loader, *rest)  # noqa: E731
    monkeypatch.setattr(commands.vectors, "embed_views", noted)
    (tmp_path / "few.txt").write_text("\n".join([*lines[:5], lines[0], "gone.mp4 1"]))
    run(f"data.train_list={tmp_path / 'few.txt'}")
    assert asked == [6, 8]
    whole = run("--save_logits", tmp_path / "in_parts.npz")
    assert asked == [6, 8, 7]
    assert run("--save_logits", tmp_path / "at_once.npz", output="anew") == whole
    saved = [np.load(tmp_path / f"{name}.npz")["scores"] for name in ("in_parts", "at_once")]
    np.testing.assert_allclose(*saved, rtol=1e-4, atol=1e-4)


def test_few_shots_are_those_of_few_shot_training(run, debug_config, no_video, tmp_path):
    run()
    no_video()  # whatever is drawn is there
    config = load_config(debug_config)
    train = read_data(config.data, ("train",)).parts["train"]
    names = [str(label) for label in range(4)]
    for seed in (0, 1):
        results = run("--shots", "2", f"data.shot_seed={seed}", "probe.values=[1]", "--save_logits", tmp_path / "s.npz")
        chosen = few_shot_indices(train, 2, seed, names)
        assert (results["probe"]["num_train"], results["probe"]["shot"]) == (8, 2)
        assert results["probe"]["train_fingerprint"] == train.take(chosen).fingerprint()
        vectors, labels = vectors_of(debug_config, "train")
        model = LogisticRegression(C=1, max_iter=1000).fit(vectors[chosen].astype(float), labels[chosen])
        expected = model.decision_function(vectors_of(debug_config, "val")[0])
        np.testing.assert_allclose(np.load(tmp_path / "s.npz")["scores"], expected, atol=2e-3)


def test_the_order_of_the_training_list_does_not_matter(run, debug_config, tmp_path):
    lines = Path(yaml.safe_load(debug_config.read_text())["data"]["train_list"]).read_text().splitlines(keepends=True)
    (tmp_path / "other.txt").write_text("".join(lines[::-1]))
    for solver in ("logistic", "linear"):
        saved = []
        for number, overrides in enumerate(([], [f"data.train_list={tmp_path / 'other.txt'}"])):
            run("--solver", solver, "--save_logits", tmp_path / f"{number}.npz", *overrides)
            saved.append(np.load(tmp_path / f"{number}.npz")["scores"])
        np.testing.assert_allclose(*saved, rtol=1e-4, atol=1e-4)


def test_several_configurations_are_splits_with_mean_and_std(three_splits, tmp_path, capsys):
    common = ["--weights", "clip", *FP32, "--output", str(tmp_path / "out"), *FEW]
    results = probe.main(["--config", *three_splits, *common])
    top1s = [split["top1"] for split in results["splits"].values()]
    assert (results["top1"], results["top1_std"]) == pytest.approx((np.mean(top1s), np.std(top1s)))
    assert "probe" not in results
    assert all(split["probe"]["num_train"] == 12 for split in results["splits"].values())
    assert "mean" in capsys.readouterr().out


def test_unreadable_videos_are_left_out_of_training_and_wrong_in_tests(run, debug_data, tmp_path, caplog):
    for part in ("train", "val"):
        text = (debug_data / f"{part}.txt").read_text()
        (tmp_path / f"{part}.txt").write_text(f"gone.mp4 1\n{text}")
    lists = [f"data.{part}_list={tmp_path / f'{part}.txt'}" for part in ("train", "val")]
    whole, results = run(), run(*lists)
    assert results["failed_videos"] == ["gone.mp4"]
    assert (results["num_videos"], results["probe"]["num_train"]) == (9, 12)
    assert results["top1"] == pytest.approx(whole["top1"] * 8 / 9)
    assert "1 of 13 training videos could not be read" in caplog.text
    assert run(*lists) == results  # from the file
    with pytest.raises(ValueError, match="--strict: 1 videos could not be read: gone"):
        run(*lists, "--strict")
    assert "classes could be read" not in caplog.text
    seen = [line for line in (debug_data / "train.txt").read_text().splitlines() if not line.endswith(" 2")]
    (tmp_path / "train.txt").write_text("\n".join([*seen, "gone.mp4 2"]))
    run(*lists)
    assert "no training video of 1 classes could be read, which no video is given: 'a bar moving up'" in caplog.text
    (tmp_path / "train.txt").write_text("gone.mp4 1\nlost.mp4 0\n")
    with pytest.raises(ValueError, match=r"data\.train_list: none of 2 videos could be read"):
        run(*lists)


def test_cached_features_take_the_place_of_videos(run, debug_config, tmp_path):
    extract_features.main(["--config", str(debug_config), "--out", str(tmp_path / "cache"), *FP32])
    roots = [f"data.{part}_root={tmp_path / 'cache' / part}" for part in ("train", "val")]
    found = run("data.modality=features", "network.fix_video=True", *roots, "--save_logits", tmp_path / "cached.npz")
    run("--save_logits", tmp_path / "videos.npz", output="videos")
    saved = [np.load(tmp_path / f"{name}.npz")["scores"] for name in ("cached", "videos")]
    np.testing.assert_allclose(*saved, atol=0.05)  # stored in half precision
    assert "decoder" in found
    assert not (tmp_path / "out" / "vectors").exists()


@pytest.mark.parametrize(
    "system", [["network.system=mote"], ["network.system=tvtsv2", "network.tower=divided", "network.sim_header=None"]]
)
def test_any_system_can_be_probed(debug_config, tmp_path, system):
    arguments = ["--config", str(debug_config), "--weights", "clip", *FP32, "--output", str(tmp_path), *FEW, *system]
    assert probe.main(arguments)["num_videos"] == 8


def test_several_labels_a_video_and_a_page_are_refused(run, debug_data, tmp_path):
    lines = (debug_data / "train.txt").read_text().splitlines()
    (tmp_path / "several.txt").write_text("\n".join([f"{lines[0]},2", *lines[1:]]))
    with pytest.raises(ValueError, match=r"data\.train_list.*a linear probe"):
        run(f"data.train_list={tmp_path / 'several.txt'}")
    with pytest.raises(SystemExit, match="2"):
        run("--report", tmp_path / "page")


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(repo_root, debug_config, run, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = ["--config", debug_config, "--weights", "clip", *FP32, "--output", tmp_path / "two", *FEW]
    done = subprocess.run(
        [*map(str, launcher), repo_root / "probe.py", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "two" / "results.json").read_text()) == run()
    assert done.stdout.count("debug") == 1


def test_what_cannot_be_fitted_or_written_is_known_before_the_first_video(run, debug_data, tmp_path, no_video):
    no_video()
    with pytest.raises(ValueError, match=r"probe\.solver: expected one of logistic, linear, found 'svm'"):
        run("--solver", "svm")
    lines = (debug_data / "train.txt").read_text().splitlines()
    (tmp_path / "one.txt").write_text("\n".join(line for line in lines if line.endswith(" 2")))
    with pytest.raises(ValueError, match="expected training videos of at least 2 classes, found 1"):
        run(f"data.train_list={tmp_path / 'one.txt'}")
    with pytest.raises(FileExistsError, match=r"one\.txt"):
        run("--vectors", tmp_path / "one.txt")
