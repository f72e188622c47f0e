"""Several processes give what one gives."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import train

TIMEOUT_S = 180
VIEWS = ["--test_clips", "2", "--test_crops", "3", "--precision", "fp32"]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of processes on the CPU, with this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def on_two_processes(repo_root, environment) -> Callable[..., subprocess.CompletedProcess]:
    """Run a command of ours under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [*launcher, repo_root / script, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    return run


@pytest.fixture(scope="module")
def weights(debug_config, tmp_path_factory) -> Path:
    """Checkpoint of one epoch on the debug data."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = ["--log_time", "first", "--precision", "fp32", "solver.epochs=1", f"data.output_path={runs}"]
    train.main(["--config", str(debug_config), *arguments])
    return runs / "debug" / "tiny_clip" / "first" / "last_model.pt"


@pytest.fixture(scope="module")
def odd_list(debug_data, tmp_path_factory) -> list[str]:
    """Overrides: nine videos, so that two processes have unequal shares, one of them broken."""
    path = tmp_path_factory.mktemp("lists") / "odd.txt"
    lines = (debug_data / "val.txt").read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "gone.mp4 1", *lines[5:]]))
    return [f"data.val_list={path}", "data.batch_size=2"]


@pytest.fixture(scope="module")
def of_one_process(repo_root, debug_config, weights, odd_list, tmp_path_factory) -> dict:
    main = runpy.run_path(str(repo_root / "test.py"))["main"]
    output = tmp_path_factory.mktemp("one process")
    return main(["--config", str(debug_config), "--weights", str(weights), *VIEWS, "--output", str(output), *odd_list])


@pytest.fixture(scope="module")
def two_processes_tested(on_two_processes, debug_config, weights, odd_list, tmp_path_factory):
    """test.py on two processes: what it printed, and its results."""
    output = tmp_path_factory.mktemp("two processes")
    done = on_two_processes(
        "test.py", "--config", debug_config, "--weights", weights, *VIEWS, "--output", output, *odd_list
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done, json.loads((output / "results.json").read_text())


def test_two_processes_test_like_one(two_processes_tested, of_one_process):
    _, results = two_processes_tested
    assert results == of_one_process
    assert results["num_videos"] == 9
    assert results["failed_videos"] == ["gone.mp4"]


@pytest.mark.slow
def test_mismatches_of_all_processes_are_named(on_two_processes, debug_config, weights, cut_videos, tmp_path):
    pytest.importorskip("decord")
    (tmp_path / "list.txt").write_text("whole.mp4 0\ncut.mp4 1\n")  # each process has one
    data = [f"data.val_root={cut_videos}", f"data.val_list={tmp_path / 'list.txt'}", "data.decoder=decord"]
    done = on_two_processes("test.py", "--config", debug_config, "--weights", weights, "--output", tmp_path, *data)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "results.json").read_text())["frame_count_mismatches"] == ["cut.mp4"]


@pytest.mark.slow
def test_a_list_without_a_readable_video_ends_all_processes(on_two_processes, debug_config, tmp_path):
    (tmp_path / "list.txt").write_text("gone.mp4 0\nmissing.mp4 1\n")
    data = [f"data.val_list={tmp_path / 'list.txt'}", "data.batch_size=2", f"data.output_path={tmp_path}"]
    done = on_two_processes("train.py", "--config", debug_config, *data)
    assert done.returncode != 0
    assert "error: none of the 2 videos tried of data.val_list can be read" in done.stderr
    assert "Traceback" not in done.stderr.split("error: none of")[0]


def test_only_one_process_reports(two_processes_tested):
    done, _ = two_processes_tested
    assert done.stdout.count("failed   top1   top5") == 1
    assert done.stderr.count("results.json") == 1


@pytest.mark.slow
def test_the_test_script_takes_the_number_of_processes_from_nproc(
    repo_root, environment, debug_config, weights, odd_list, of_one_process, tmp_path
):
    script = ["bash", "scripts/run_test.sh", debug_config, weights, *VIEWS, "--output", tmp_path, *odd_list]
    done = subprocess.run(
        script, cwd=repo_root, env=environment | {"NPROC": "2"}, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "results.json").read_text()) == of_one_process


@pytest.mark.slow
def test_two_processes_fuse_features_like_one(on_two_processes, repo_root, debug_config, weights, odd_list, tmp_path):
    fixed = ["--config", str(debug_config), "--weights", str(weights), *VIEWS, *odd_list, "eval.fusion=features"]
    main = runpy.run_path(str(repo_root / "test.py"))["main"]
    results = main([*fixed, "--output", str(tmp_path / "one"), "--save_logits", str(tmp_path / "one.npz")])
    done = on_two_processes(
        "test.py", *fixed, "--output", tmp_path / "two", "--save_logits", tmp_path / "two.npz", "data.batch_size=7"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "two" / "results.json").read_text()) == results
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert set(one) == set(two) >= {"scores", "view_norms"}
        np.testing.assert_allclose(two["scores"], one["scores"], atol=1e-6)


@pytest.mark.parametrize(
    "system",
    [
        ["network.sim_header=None"],
        pytest.param(
            ["network.system=text4vis", "network.sim_header=None", "solver.loss_type=NCE", "network.fix_text=False"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "network.system=vificlip",
                "network.fix_text=False",
                "network.templates=a photo of a {}.",
                "solver.draws=shared",
                "data.transforms=mote",
                "solver.type=timm_cosine",
                "solver.mixup=0.8",
                "solver.cutmix=1.0",
                "solver.mix_switch=0.5",
                "solver.label_smoothing=0.1",
            ],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "network.system=ost",
                "network.fix_text=False",
                "data.transforms=mote",
                "solver.type=timm_cosine",
                "solver.loss_type=contrast",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["classes", "contrast", "mixed clips", "descriptors"],
)
def test_two_processes_train_like_one_with_the_batch_of_both(
    on_two_processes, debug_config, debug_data, debug_descriptors, tmp_path, system
):
    # Plain gradient descent: AdamW's first steps turn rounding errors of tiny gradients into whole steps.
    recipe = [*system, f"ost.descriptors={debug_descriptors}", "solver.optim=sgd", "solver.lr=0.05",
              "solver.clip_ratio=1.0", "solver.lr_warmup_step=0", f"data.output_path={tmp_path}"]  # fmt: skip
    fixed = ["--config", str(debug_config), "--precision", "fp32", "--log_time"]
    train.main([*fixed, "one", "data.batch_size=4", *recipe])
    done = on_two_processes("train.py", *fixed, "two", "data.batch_size=2", *recipe)
    assert done.returncode == 0, done.stderr[-2000:]
    states = {}
    for name in ("one", "two"):
        checkpoint = torch.load(tmp_path / "debug" / "tiny_clip" / name / "last_model.pt", weights_only=True)
        assert checkpoint["epoch"] == 1
        states[name] = checkpoint["model_state_dict"]
    start = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    moved, apart = 0.0, 0.0
    assert states["one"].keys() == states["two"].keys()
    for name, tensor in states["one"].items():
        moved = max(moved, (tensor - start[name].float()).abs().max().item())
        apart = max(apart, (tensor - states["two"][name]).abs().max().item())
    assert moved > 1e-3
    assert apart < 1e-5 < moved / 50


def test_two_processes_train_on_texts_like_one(on_two_processes, debug_config, debug_data, debug_texts, tmp_path):
    recipe = [*debug_texts, "solver.optim=sgd", "solver.lr=0.05", "solver.clip_ratio=1.0", "solver.draws=shared"]
    recipe.append("solver.epochs=1")
    twice = [
        each.replace("batch_size: 2", "batch_size: 4").replace("batch_size: 3", "batch_size: 6") for each in recipe
    ]
    fixed = ["--config", str(debug_config), "--precision", "fp32", f"data.output_path={tmp_path}", "--log_time"]
    one = train.main([*fixed, "one", *twice])
    done = on_two_processes("train.py", *fixed, "two", *recipe)
    assert done.returncode == 0, done.stderr[-2000:]
    files = (tmp_path / "debug" / "tiny_clip" / name / "last_model.pt" for name in ("one", "two"))
    alone, together = (torch.load(file, weights_only=True) for file in files)
    assert (alone["epoch"], alone["steps_per_epoch"], together["steps_per_epoch"]) == (0, 4, 4)
    assert together["videos_per_step"] == alone["videos_per_step"] == 4
    for name, tensor in alone["model_state_dict"].items():
        assert (tensor - together["model_state_dict"][name]).abs().max() < 1e-5, name
    start = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    moved = max(
        (alone["model_state_dict"][name] - start[name].float()).abs().max()
        for name in ("visual.proj", "text_projection")
    )
    assert moved > 1e-3
    rows = [json.loads(line) for line in (tmp_path / "debug/tiny_clip/two/metrics.jsonl").read_text().splitlines()]
    assert {name: rows[-1][f"val/{name}"] for name in ("t2v_r1", "order_accuracy")} == {
        name: one[name] for name in ("t2v_r1", "order_accuracy")
    }


def test_a_mistake_ends_all_processes(on_two_processes, debug_config, tmp_path):
    done = on_two_processes("train.py", "--config", debug_config, "data.train_list=none.txt")
    assert done.returncode != 0
    assert "error: data.train_list 'none.txt': no such file" in done.stderr
