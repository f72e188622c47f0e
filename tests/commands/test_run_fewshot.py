"""Few-shot from the command line: the same videos everywhere, and the script that runs a whole table."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from datasets.lists.records import read_video_list
from modules.build import load_config

pytestmark = pytest.mark.slow
TIMEOUT_S = 240

# What each process would train on: its list, and its batches of the first epoch.
PROBE = """
import json, sys
from pathlib import Path
import torch
from commands.training.run import Run
from train import prepare
from modules.build import load_config
from utils.distributed import gather, is_main, process_group
from utils.precision import Precision
from utils.run_folder import run_folder

config_path, out, *overrides = sys.argv[1:]
with process_group(60):
    config = load_config(config_path, overrides)
    folder = run_folder(config.data.output_path, config.data.dataset, config.network.arch, "probe")
    _, run = prepare(Run(config, Precision("fp32", torch.device("cpu")), folder))
    videos, batches = run.loader.dataset.source.videos, run.loader.batch_sampler
    paths = [videos.path(index) for index in range(len(videos))]
    found = gather((paths, [[(epoch, paths[index]) for epoch, index in batch] for batch in batches]))
    if is_main():
        Path(out).write_text(json.dumps(found))
"""


def environment(repo_root: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key not in ("NPROC", "SEEDS", "NAME", "NOVEL")}
    return kept | {"PATH": path, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": str(repo_root)}  # fmt: skip


def test_four_processes_train_on_the_videos_of_one(repo_root, debug_config, tmp_path, monkeypatch):
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)

    def arguments(num_processes: int) -> list[str]:
        overrides = ["data.shot=2", "data.shot_repeat=3", f"data.batch_size={4 // num_processes}"]
        output = f"data.output_path={tmp_path / str(num_processes)}"
        return [str(probe), str(debug_config), str(tmp_path / f"{num_processes}.json"), *overrides, output]

    monkeypatch.setattr(sys, "argv", arguments(1))
    runpy.run_path(str(probe))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "4"]
    done = subprocess.run(
        [*launcher, *arguments(4)], env=environment(repo_root), capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for num_processes in (1, 4):
        lists, batches = zip(*json.loads((tmp_path / f"{num_processes}.json").read_text()), strict=True)
        written = (tmp_path / str(num_processes) / "debug" / "tiny_clip" / "probe" / "few_shot.txt").read_text()
        assert len(lists) == num_processes
        assert all(paths == lists[0] for paths in lists)
        assert [line.rsplit(" ", 1)[0] for line in written.splitlines()] == lists[0]
        together = [[key for part in parts for key in part] for parts in zip(*batches, strict=True)]
        found[num_processes] = (written, together)
    assert found[4] == found[1]
    assert len(found[1][1]) == 6  # 8 videos, 3 passes, 4 a step


def test_a_run_leaves_its_few_shot_list_which_trains_alike(debug_config, debug_data, tmp_path):
    def run(name: str, *overrides: str) -> Path:
        arguments = ["--config", str(debug_config), "--log_time", name, "--precision", "fp32", "solver.epochs=1"]
        train.main([*arguments, f"data.output_path={tmp_path}", *overrides])
        return tmp_path / "debug" / "tiny_clip" / name

    first = run("first", "data.shot=1", "data.shot_seed=3")
    data = load_config(debug_config).data
    videos = read_video_list(first / "few_shot.txt", data.train_root, "video", 4, "train")
    assert sorted(videos.labels.tolist()) == [0, 1, 2, 3]
    assert set((first / "few_shot.txt").read_text().splitlines()) < set(
        (debug_data / "train.txt").read_text().split("\n")
    )
    second = run("second", f"data.train_list={first / 'few_shot.txt'}")
    losses = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["train/loss"] for folder in (first, second)
    ]
    assert losses[0] == losses[1]
    assert not (second / "few_shot.txt").exists()


def test_shot_repeat_0_trains_as_many_passes_as_the_whole_list_has_room_for(debug_config, tmp_path):
    def run(name: str, *overrides: str) -> tuple[Path, list[float]]:
        arguments = ["--config", str(debug_config), "--log_time", name, "--precision", "fp32", "data.shot=1"]
        train.main([*arguments, f"data.output_path={tmp_path}", *overrides])
        folder = tmp_path / "debug" / "tiny_clip" / name
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return folder, [line["train/loss"] for line in lines if "train/loss" in line]

    folder, losses = run("full", "data.shot_repeat=0", "solver.epochs=2")  # 12 videos of 4 classes: 3 passes
    assert losses == run("three", "data.shot_repeat=3", "solver.epochs=2")[1]
    assert losses != run("one", "solver.epochs=2")[1]
    assert load_config(folder / "config.yaml").data.shot_repeat == 0
    checkpoint = torch.load(folder / "last_model.pt", weights_only=True)
    assert checkpoint["steps_per_epoch"] == 3
    torch.save(checkpoint | {"epoch": 0, "step": 2}, tmp_path / "within.pt")  # a place that 3 passes have
    run("resumed", "data.shot_repeat=0", "solver.epochs=2", f"resume={tmp_path / 'within.pt'}")


def test_the_script_runs_skips_and_resumes(repo_root, debug_config, tmp_path):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        command = ["bash", "scripts/run_fewshot.sh", str(debug_config), *arguments]
        everywhere = ["--precision", "fp32", "solver.epochs=1", f"data.output_path={tmp_path / 'my runs'}"]
        return subprocess.run(
            [*command, *everywhere], cwd=repo_root, env=environment(repo_root) | {"SEEDS": "5"} | variables,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    done = run("1", "1", TEST_ARGS="--test_clips 2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("run folder") == 1  # the second time it is done already
    folder = tmp_path / "my runs" / "debug" / "tiny_clip" / "few_shot"
    results = json.loads((folder / "shot1_seed5" / "test" / "results.json").read_text())
    assert (results["num_clips"], results["weights"]) == (2, str(folder / "shot1_seed5" / "last_model.pt"))
    assert f"| 1 | 1 | {results['top1']:.2f} |" in (folder / "report.md").read_text()
    assert f"| 1 | 1 | {results['top1']:.2f} |" in done.stdout
    config = load_config(folder / "shot1_seed5" / "config.yaml").data
    assert (config.shot, config.shot_seed) == (1, 5)

    other = run("1")
    assert other.returncode == 2
    assert "holds runs of other arguments" in other.stderr

    # As if it had been stopped between training and test; then as base-to-novel.
    (folder / "shot1_seed5" / "test" / "results.json").unlink()
    (folder / "arguments.txt").unlink()
    novel = tmp_path / "novel.yaml"
    novel.write_text(debug_config.read_text())
    done = run("1", NOVEL=str(novel))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "starting from" in done.stderr
    assert "step 1/1" not in done.stderr
    assert "| base | novel | harmonic mean |" in (folder / "report.md").read_text()
