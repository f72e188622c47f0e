"""test_retrieval.py with every system: vectors, figures, files, and what is wrong in a list."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

import train
from commands.classifier import VideoClassifier
from engine.protocols.retrieval import figures

FP32 = ["--precision", "fp32"]
LONG = "word " * 100
# Of each system that trains: what it needs beside its own file of settings.
SYSTEMS = {
    "mote": {},
    "text4vis": {"text4vis": {"classifier": "random"}},
    "vificlip": {},
    "ost": {},
    "clip": {"network": {"fix_text": False, "templates": "single"}},
}


@pytest.fixture(scope="module")
def captions(debug_data, tmp_path_factory) -> Path:
    """Nine videos, one of them missing, and twelve captions, one of them too long and two alike."""
    path = tmp_path_factory.mktemp("captions") / "captions.tsv"
    videos = [line.rsplit(" ", 1)[0] for line in (debug_data / "val.txt").read_text().splitlines()]
    lines = [f"{video}\ta bar, number {place % 7}" for place, video in enumerate(videos)]
    lines[2:2] = [f"{videos[1]}\tanother bar", f"{videos[1]}\t{LONG}"]
    path.write_text("\n".join([*lines, "gone.mp4\tnothing"]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config_of(debug_config, debug_descriptors, captions, repo_root, tmp_path_factory):
    """Configurations of a system, for training on labels and for retrieval, which has no classes."""

    def config_of(system: str) -> SimpleNamespace:
        data = yaml.safe_load(debug_config.read_text())["data"]
        folder, arch = tmp_path_factory.mktemp(system), yaml.safe_load(debug_config.read_text())["network"]["arch"]
        tree = {"base": str(repo_root / "configs" / "systems" / f"{system}.yaml"), "data": data}
        tree["ost"] = {"descriptors": str(debug_descriptors)}
        tree |= {key: value for key, value in SYSTEMS[system].items() if key != "network"}
        tree["network"] = {"arch": arch, "temporal_layer": 1} | SYSTEMS[system].get("network", {})
        (folder / "train.yaml").write_text(yaml.safe_dump(tree))
        without = {key: value for key, value in data.items() if key not in ("label_list", "num_classes", "val_list")}
        tree["data"] = without | {"val_list": str(captions)}
        tree.pop("ost")
        (folder / "retrieval.yaml").write_text(yaml.safe_dump(tree))
        return SimpleNamespace(train=str(folder / "train.yaml"), retrieval=str(folder / "retrieval.yaml"))

    return config_of


@pytest.fixture
def run(retrieval, tmp_path):
    """Run the command; returns results and saved arrays."""

    def run(*arguments: object) -> tuple[dict, dict]:
        places = ["--output", tmp_path, "--save_logits", tmp_path / "saved"]
        results = retrieval([*map(str, (*arguments, *places)), *FP32])
        assert json.loads((tmp_path / "results.json").read_text()) == results
        with np.load(tmp_path / "saved.npz") as saved:
            return results, dict(saved)

    return run


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_searches_without_classes(config_of, run, captions, debug_data, system, tmp_path_factory):
    config, runs = config_of(system), tmp_path_factory.mktemp("runs")
    recipe = ["solver.epochs=1", "solver.lr_warmup_step=0", f"data.output_path={runs}"]
    train.main(["--config", config.train, "--log_time", "one", *FP32, *recipe])
    weights = runs / "debug" / "tiny_clip" / "one" / "last_model.pt"
    views = ["--test_clips", "2"]
    results, saved = run("--config", config.retrieval, "--weights", weights, "--dual_softmax", 100, *views)
    assert (results["num_texts"], results["num_videos"], results["cut_texts"]) == (11, 9, 1)
    assert results["failed_videos"] == ["gone.mp4"]
    # The same model by another way: vectors of predict.py --embed, and its text tower.
    classifier = VideoClassifier.load(weights, config.retrieval, precision="fp32")
    places = [debug_data / "videos" / path for path in saved["paths"][:-1]]
    expected = np.stack([prediction.embedding for prediction in classifier.embed(places, num_clips=2)])
    assert np.abs(unit(saved["video_embeddings"][:-1]) - expected).max() < 1e-5
    texts = [line.split("\t")[1] for line in captions.read_text().splitlines()]
    assert saved["captions"].tolist() == texts
    with torch.no_grad():
        vectors = classifier.text.encode_text(classifier.text.tokenize(texts, truncate=True))
    assert np.abs(saved["text_embeddings"] - vectors.numpy()).max() < 1e-5
    assert np.abs(saved["similarity"][:, :-1] - F.normalize(vectors, dim=-1).numpy() @ expected.T).max() < 1e-5
    # The failed video is a column of -inf; figures are those of the saved table.
    assert (saved["similarity"][:, -1] == -np.inf).all()
    found = figures(saved["similarity"], saved["video_of_text"], dual_softmax=100.0)
    assert {key: results[key] for key in found} == found
    assert saved["video_of_text"].tolist() == [0, 1, 1, 1, *range(2, 9)]


def test_plain_clip_and_its_page(config_of, run, tmp_path):
    config = config_of("clip").retrieval
    results, _ = run("--config", config, "--weights", "clip", "--report", tmp_path / "page", "eval.tie_rule=published")
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert results["tie_rule"] == "published"
    assert "dual_softmax" not in results
    for text in (
        f"{results['t2v']['r1']:.2f}",
        "a bar, number",
        "gone.mp4",
        "no such file",
        "data:image/jpeg",
        "published",
    ):
        assert text in page, text


def test_two_processes_and_any_batch_find_the_same(config_of, run, repo_root, tmp_path, tmp_path_factory):
    config = config_of("clip").retrieval
    arguments = ["--config", config, "--weights", "clip", "--dual_softmax", "50", *FP32]
    results, saved = run(*arguments)
    other = tmp_path_factory.mktemp("two processes")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NPROC": "2"}
    # The last bit of a product may depend on the number of threads.
    threads = str(torch.get_num_threads())
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads, "VIRTUAL_ENV": sys.prefix}
    script = ["bash", repo_root / "scripts" / "run_test_retrieval.sh", config, "clip", *arguments[4:]]
    places = ["--output", other, "--save_logits", other / "saved.npz", "data.batch_size=2"]
    command = [*map(str, (*script, *places))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((other / "results.json").read_text()) == results
    assert done.stdout.count("text to video, dual softmax 50") == 1
    with np.load(other / "saved.npz") as found:
        assert np.array_equal(found["text_embeddings"], saved["text_embeddings"])
        assert np.abs(found["similarity"][:, :-1] - saved["similarity"][:, :-1]).max() < 1e-6


@pytest.fixture
def choices(debug_data, tmp_path):
    """A list of choices from (answer, options) of each debug video, with overrides that name it."""

    def choices(*lines: tuple[int, tuple[str, ...]]) -> str:
        videos = [line.rsplit(" ", 1)[0] for line in (debug_data / "val.txt").read_text().splitlines()]
        videos[-1] = "gone.mp4"
        rows = ["\t".join((video, str(line[0]), *line[1])) for video, line in zip(videos, lines, strict=True)]
        (tmp_path / "choices.tsv").write_text("\n".join(rows))
        return f"data.val_list={tmp_path / 'choices.tsv'}"

    return choices


def test_choices_of_unequal_number(config_of, run, choices):
    options = [("left", "right"), ("left", "up", "right"), *[("right", "down")] * 6]
    override = choices(*((place % 2, each) for place, each in enumerate(options)))
    results, saved = run("--config", config_of("clip").retrieval, "--weights", "clip", "--choices", override)
    assert saved["scores"].shape == (8, 3)
    assert (saved["scores"][[0, 2, 3, 4, 5, 6], 2] == -np.inf).all()
    assert np.isnan(saved["scores"][7]).any()
    assert saved["labels"].tolist() == [0, 1] * 4
    right = (saved["scores"][:7].argmax(axis=1) == saved["labels"][:7]).sum()
    assert results["top1"] == pytest.approx(100 * right / 8)  # the video that is not there is wrong
    assert "top5" not in results
    assert results["failed_videos"] == ["gone.mp4"]
    assert saved["paths"][0] == "val 00.mp4"


def test_more_than_five_options_have_a_top_5(config_of, run, choices):
    names = tuple(f"option {place}" for place in range(6))
    results, _ = run(
        "--config", config_of("clip").retrieval, "--weights", "clip", "--choices", choices(*[(5, names)] * 8)
    )
    assert results["top5"] >= results["top1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.val_list={data}/val.txt"], r"val.txt:1: expected 'path TAB caption', found"),
        (["data.val_list={data}/val.txt", "--choices"], r"val.txt:1: expected 'path TAB answer TAB option"),
        (["data.val_list="], r"data.val_list is not set"),
        (["data.modality=RGB"], r"data.modality=RGB: a list of texts"),
        (["eval.tie_rule=best"], r"eval.tie_rule: .*mean, published"),
        (["--dual_softmax", "-1"], r"eval.dual_softmax"),
        (["--dual_softmax", "much"], r"eval.dual_softmax"),
        (["data.val_root={data}/gone"], r"data.val_root .*gone"),
        (["--strict"], r"--strict: 1 videos could not be read: gone.mp4"),
    ],
)
def test_what_is_wrong_is_named(config_of, retrieval, debug_data, tmp_path, arguments, message):
    given = [argument.format(data=debug_data) for argument in arguments]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        retrieval(
            ["--config", config_of("clip").retrieval, "--weights", "clip", *FP32, "--output", str(tmp_path), *given]
        )


def test_a_list_of_missing_videos_alone_has_no_figures(config_of, retrieval, tmp_path):
    (tmp_path / "list.tsv").write_text("gone.mp4\ta thing\nlost.mp4\tanother\n")
    command = ["--config", config_of("clip").retrieval, "--weights", "clip", *FP32, "--output", str(tmp_path)]
    with pytest.raises(ValueError, match="none of 2 videos could be read"):
        retrieval([*command, f"data.val_list={tmp_path / 'list.tsv'}"])


def test_dual_softmax_of_choices_is_refused(retrieval, capsys):
    for argument in (["--dual_softmax", "1"], ["--report", "page"]):
        with pytest.raises(SystemExit):
            retrieval(["--weights", "clip", "--choices", *argument])
        assert "--choices" in capsys.readouterr().err
