"""The shell scripts: usage, arguments passed on, awkward paths, what a run leaves behind, several machines."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from commands.testing import parse_args as parse_test_args
from modules.build import load_config

TIMEOUT_S = 180
SCRIPTS = sorted(path.name for path in (Path(__file__).parents[2] / "scripts").glob("*.sh"))
FAST = ["--precision", "fp32"]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of one process on the CPU, with this Python; no launcher's variables."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {
        key: value for key, value in os.environ.items() if key not in ("NPROC", "NNODES", "NODE_RANK", "MASTER_ADDR")
    }
    return kept | {"PATH": path, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def script(repo_root, environment) -> Callable[..., subprocess.CompletedProcess]:
    """Run a script from the repository's root, or from ``cwd``."""

    def run(name: str, *arguments: object, cwd: Path = repo_root, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", repo_root / "scripts" / name, *map(str, arguments)],
            cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_bash(repo_root, name):
    subprocess.run(["bash", "-n", repo_root / "scripts" / name], check=True)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run_train.sh", []),
        ("run_test.sh", []),
        ("run_test.sh", ["config.yaml"]),
        ("run_test_zeroshot.sh", []),
        ("run_test_zeroshot.sh", ["config.yaml"]),
        ("run_test_retrieval.sh", []),
        ("run_test_retrieval.sh", ["config.yaml"]),
        ("run_probe.sh", []),
        ("run_probe.sh", ["config.yaml"]),
        ("run_fewshot.sh", []),
        ("run_train_multinodes.sh", []),
        ("run_train_multinodes.sh", ["config.yaml"]),
        ("run_train_multinodes.sh", ["config.yaml", "0"]),
        ("run_train_multinodes.sh", ["config.yaml", "0", "127.0.0.1"]),
    ],
)
def test_a_missing_argument_ends_with_usage_and_status_2(script, name, arguments):
    done = script(name, *arguments)
    assert done.returncode == 2
    assert "usage: " in done.stderr
    assert f"scripts/{name} CONFIG" in done.stderr
    assert not done.stdout


@pytest.fixture(scope="module")
def place(debug_config, tmp_path_factory) -> Path:
    """A folder whose name has a space, with the debug configuration under such a name as well."""
    folder = tmp_path_factory.mktemp("a place")
    shutil.copy(debug_config, folder / "my config.yaml")
    shutil.copy(debug_config, folder / "split1.yaml")
    shutil.copy(debug_config, folder / "split2.yaml")
    return folder


@pytest.fixture(scope="module")
def trained(script, place) -> tuple[subprocess.CompletedProcess, Path]:
    """A run of run_train.sh: the process and its run folder."""
    done = script(
        "run_train.sh", place / "my config.yaml", "--log_time", "my run", *FAST, "solver.lr=2e-4",
        f"data.output_path={place / 'all runs'}",
    )  # fmt: skip
    return done, place / "all runs" / "debug" / "tiny_clip" / "my run"


def test_training_from_the_script_succeeds_with_plain_lines(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr[-2000:]
    assert folder.is_dir()
    assert "epoch 2/2 step 3/3" in done.stderr
    assert "\r" not in done.stderr + done.stdout  # no progress bar outside a terminal


def test_a_run_folder_holds_its_configuration_as_resolved(trained, debug_config, place):
    _, folder = trained
    config = load_config(folder / "config.yaml")
    assert config.solver.lr == 2e-4
    assert config == load_config(debug_config, ["solver.lr=2e-4", f"data.output_path={place / 'all runs'}"])


def test_a_run_folder_says_what_it_was_made_with(trained, repo_root):
    _, folder = trained
    environment = json.loads((folder / "environment.json").read_text())
    assert torch.__version__.startswith(environment["torch"])
    assert {"git_sha", "python", "torchvision", "decord", "av", "numpy", "open_clip_torch"} <= environment.keys()
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repo_root, capture_output=True, text=True, check=False)
    assert environment["git_sha"] == (git.stdout.strip() or None)


def test_a_run_folder_holds_log_and_curves(trained):
    _, folder = trained
    log = (folder / "log.txt").read_text()
    assert "epoch 2/2 step 3/3" in log
    assert "epoch 2: top1" in log
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == [2, 3, 5, 6]
    assert [row["step"] for row in rows if "val/top1" in row] == [3, 6]
    (events,) = folder.glob("events.out.tfevents.*")
    assert events.stat().st_size > 500


def test_a_run_folder_holds_the_last_and_the_best_model(trained):
    _, folder = trained
    last = torch.load(folder / "last_model.pt", weights_only=True)
    best = torch.load(folder / "model_best.pt", weights_only=True)
    published = {"epoch", "model_state_dict", "fusion_model_state_dict", "optimizer_state_dict"}
    assert published <= last.keys()
    assert published <= best.keys()
    assert last["epoch"] == 1
    assert best["best_top1"] == last["best_top1"]
    assert not list(folder.glob("*.part"))


def test_the_test_script_passes_arguments_on_from_any_folder(script, trained, place):
    _, folder = trained
    done = script(
        "run_test.sh", "my config.yaml", folder.relative_to(place) / "last_model.pt", "--test_clips", "2",
        "--test_crops", "3", "--dense", *FAST, "--output", "my results", "data.batch_size=3", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((place / "my results" / "results.json").read_text())
    expected = {"num_clips": 2, "num_crops": 3, "dense": True, "precision": "fp32", "num_videos": 8}
    assert {key: results[key] for key in expected} == expected
    assert "last_model.pt" in done.stdout
    assert f"{results['top1']:.2f}" in done.stdout


def test_the_zero_shot_script_takes_several_splits_in_one_argument(script, trained, place):
    _, folder = trained
    weights = folder.relative_to(place) / "model_best.pt"
    splits = "split1.yaml split[2-9].yaml"  # a name and a pattern
    done = script("run_test_zeroshot.sh", splits, weights, "--test_clips", "3", *FAST, cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((folder / "zero_shot_model_best_debug_3x1" / "results.json").read_text())
    assert results["splits"].keys() == {"split1", "split2"}
    assert results["num_videos"] == 16
    for name in ("split1", "split2", "mean"):
        assert any(line.startswith(name) for line in done.stdout.splitlines())


@pytest.mark.slow
def test_the_zero_shot_script_takes_a_name_with_a_space(script, place):
    done = script("run_test_zeroshot.sh", "my config.yaml", "gone.pt", cwd=place)
    assert done.returncode != 0
    # Past the configuration, and the last line is the error, as without the script.
    assert done.stderr.strip().splitlines()[-1] == "error: checkpoint gone.pt: no such file"


OPTIONS = [["--log_time", "x"], ["--precision", "fp32"]]


@pytest.mark.parametrize(
    "arguments",
    [
        [*OPTIONS[0], *OPTIONS[1], "seed=1", "solver.lr=2"],
        ["seed=1", "solver.lr=2", *OPTIONS[0], *OPTIONS[1]],
        [*OPTIONS[0], "seed=1", "solver.lr=2", *OPTIONS[1]],
        ["seed=1", *OPTIONS[0], "solver.lr=2", *OPTIONS[1]],
    ],
    ids=["last", "first", "between", "scattered"],
)
def test_overrides_may_stand_anywhere_after_the_configuration(arguments):
    """The scripts pass on what follows configuration and weights, in the user's order."""
    parsed = train.parse_args(["--config", "c.yaml", *arguments])
    assert (parsed.overrides, parsed.log_time, parsed.precision) == (["seed=1", "solver.lr=2"], "x", "fp32")


@pytest.mark.parametrize("is_zero_shot", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [["--dense", "seed=1"], ["seed=1", "--dense"], ["--test_clips", "3", "seed=1", "--dense"]],
    ids=["last", "first", "between"],
)
def test_overrides_of_a_test_may_stand_anywhere_after_the_weights(arguments, is_zero_shot):
    parsed = parse_test_args("", ["--config", "c.yaml", "--weights", "w.pt", *arguments], is_zero_shot)
    assert (parsed.overrides, parsed.dense, parsed.config) == (["seed=1"], True, ["c.yaml"])


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def test_the_demo_refuses_an_option_that_it_does_not_know(script):
    done = script("run_demo.sh", "--system")
    assert done.returncode == 2
    assert done.stderr.strip() == "usage: bash scripts/run_demo.sh [--ablation | --systems]"
    assert not done.stdout  # nothing was set up


@pytest.fixture
def demo_of_words(repo_root, environment, tmp_path) -> Callable[..., tuple[int, list[str]]]:
    """Run run_demo.sh among commands that only write down how they were called; returns status and calls."""
    scripts, commands = tmp_path / "scripts", tmp_path / "bin"
    for folder in (scripts, commands):
        folder.mkdir()
    for name in ("run_demo.sh", "rows.sh"):
        shutil.copy(repo_root / "scripts" / name, scripts)
    (scripts / "setup.sh").write_text("setup() { :; }\n")
    (scripts / "launch.sh").write_text("")
    (scripts / "run_train.sh").write_text('echo "train $*" >>calls; mkdir -p "exps/demo/shapes/tiny_clip/$3"\n')
    (commands / "python").write_text(
        '#!/usr/bin/env bash\ncase "$*" in\n'
        '*systems*--rows) printf "s|a|x.y=1 z=2|z=3\\nt|b||\\ns|clip||\\n" ;;\n'
        '*search*--rows) printf "a|r.yaml|p.yaml\\nclip|r.yaml|p.yaml\\n" ;;\n'
        '*in_turn*) echo "$*" >>calls; [[ "$*" != *"--log_time ${FAILS:-none} "* ]] || exit 1; '
        "mkdir -p exps/demo/results/{clip,a,b,mote_1024} ;;\n"
        '*shapes*) echo "$*" >>calls; mkdir -p exps/demo/data/lists exps/demo/pack; '
        "for part in train val zs_combinations zs_objects zs_style; do "
        'echo "$part/a.mp4 0" >exps/demo/data/lists/$part.txt; done ;;\n'
        '*) echo "$*" >>calls ;;\nesac\n'
    )
    (commands / "python").chmod(0o755)
    for system in "st":
        (tmp_path / "configs" / "demo" / system).mkdir(parents=True)
    (tmp_path / "configs" / "demo" / "t" / "seen.yaml").touch()

    def run(*arguments: str, **variables: str) -> tuple[int, list[str]]:
        (tmp_path / "calls").write_text("")
        path = f"{commands}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            ["bash", scripts / "run_demo.sh", *arguments], env=environment | variables | {"PATH": path},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    return run


def test_the_demo_s_systems_are_trained_and_tested_with_their_settings(demo_of_words):
    status, calls = demo_of_words("--systems")
    assert status == 0
    weights, results = "exps/demo/shapes/tiny_clip/a/last_model.pt", "--output exps/demo/results/a"
    parts = " ".join(f"configs/demo/s/{part}.yaml" for part in ("combinations", "objects", "style"))
    packed = "data.modality=shards data.train_root=exps/demo/pack data.val_root=exps/demo/pack"
    settings, tested = f"x.y=1 z=2 data.workers=1 {packed}", f"--weights {weights}"
    (row,) = [call for call in calls if "/a/" in call and "retrieval" not in call]
    assert row.removeprefix("-m tools.demo.in_turn ").split(" , ") == [
        f"train.py --config configs/demo/s.yaml --log_time a {settings} resume=auto",
        f"test.py --config configs/demo/s.yaml {tested} {results}/close_1x1 {settings}",
        f"test.py --config configs/demo/s.yaml {tested} --test_clips 4 --test_crops 3 {results}/close_4x3 {settings}",
        # The last value counts.
        f"test_zeroshot.py --config {parts} {tested} --test_clips 3 {results}/zero_shot {settings} z=3",
    ]
    assert "-m tools.demo.systems --page docs/results_systems.md" in calls
    assert not any("z=3" in call for call in calls if "/b" in call)
    # What t trains on has no labels, so its tests have a file of their own.
    assert any(f"train.py --config configs/demo/t.yaml --log_time b data.workers=1 {packed}" in call for call in calls)
    seen = "test.py --config configs/demo/t/seen.yaml --weights exps/demo/shapes/tiny_clip/b/last_model.pt"
    assert any(seen in call for call in calls)


def test_the_demo_s_searches_are_of_models_that_were_trained_before(demo_of_words):
    status, calls = demo_of_words("--systems")
    assert status == 0
    weights, results = "exps/demo/shapes/tiny_clip/a/last_model.pt", "exps/demo/results/a"
    searched = (
        f"test_retrieval.py --config configs/demo/r.yaml --weights {weights} --output {results}/retrieval "
        f"--save_logits {results}/search.npz , "
        f"test_retrieval.py --config configs/demo/r.yaml --weights {weights} --output {results}/retrieval_new "
        "data.dataset=shapes_retrieval_new data.val_list=exps/demo/data/lists/retrieval_new.txt , "
        f"probe.py --config configs/demo/p.yaml --weights {weights} --output {results}/probe"
    )
    trained = next(place for place, call in enumerate(calls) if "--log_time a " in call)
    search = calls.index(f"-m tools.demo.in_turn {searched}")
    assert trained < search < calls.index("-m tools.demo.systems --page docs/results_systems.md")
    assert any("test_retrieval.py --config configs/demo/r.yaml --weights clip --output" in call for call in calls)
    assert sum("test_retrieval" in call for call in calls) == 2
    films = calls.index("-m datasets.shapes --out exps/demo/data --films")
    assert films < next(place for place, call in enumerate(calls) if "datasets.prepare transcripts" in call)


def test_the_plain_demo_trains_mote_alone_and_writes_no_page(demo_of_words):
    status, calls = demo_of_words()
    assert status == 0
    assert [call for call in calls if call.startswith("train")] == [
        "train configs/demo/mote.yaml --log_time mote_1024 resume=auto"
    ]
    assert not any("demo.systems" in call for call in calls)


def test_a_demo_that_failed_goes_on_where_it_was(demo_of_words):
    status, calls = demo_of_words("--systems", FAILS="b")
    assert status != 0
    assert not any("--page" in call for call in calls)
    status, calls = demo_of_words("--systems")
    assert status == 0
    assert [call for call in calls if "train.py" in call] == [call for call in calls if "--log_time b" in call] != []
    assert not any("results/a/" in call for call in calls)


@pytest.fixture
def rows(repo_root, environment, tmp_path) -> Callable[..., tuple[int, str]]:
    """Run lines that use rows.sh; returns status and errors."""

    def run(lines: str, **variables: str) -> tuple[int, str]:
        script = f"set -euo pipefail\nsource {repo_root}/scripts/rows.sh\n{lines}"
        done = subprocess.run(
            ["bash", "-c", script], env=environment | variables, cwd=tmp_path, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    return run


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Each says that it is there, and waits for the other.
MEET = 'meet() { touch "$1"; for _ in {1..600}; do [ ! -e "$2" ] || return 0; sleep 0.1; done; false; }\n'


def test_rows_are_made_beside_each_other(rows, tmp_path):
    assert rows(f"{MEET}beside logs/a meet a b; beside logs/b meet b a; rows_below 1", ROWS_AT_ONCE="2") == (0, "")
    # No more than were asked for: the second finds what the first left.
    lines = "first() { sleep 0.5; touch done; }; beside logs/a first; beside logs/b test -e done; rows_below 1"
    assert rows(lines, ROWS_AT_ONCE="1") == (0, "")


def test_a_row_that_fails_ends_the_script_and_the_others(rows, tmp_path):
    lines = (
        "fails() { echo it is broken; false; echo goes on; }\n"
        "long() { sleep 600 & echo $! >pid; wait; }\n"
        "beside logs/a long; until [ -s pid ]; do sleep 0.1; done; beside logs/b fails; rows_below 1; touch ended"
    )
    status, errors = rows(lines, ROWS_AT_ONCE="2")
    assert (status, errors) == (1, "it is broken\nerror: see logs/b\n")
    assert not (tmp_path / "ended").exists()
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


@pytest.fixture
def proxy_of_words(repo_root, environment, tmp_path) -> Callable[..., tuple[int, list[str], str]]:
    """Run run_proxy.sh among commands that only write down how they were called; returns status, calls and errors."""
    scripts, commands = tmp_path / "scripts", tmp_path / "bin"
    for folder in (scripts, commands):
        folder.mkdir()
    for name in ("run_proxy.sh", "rows.sh"):
        shutil.copy(repo_root / "scripts" / name, scripts)
    (scripts / "setup.sh").write_text("setup() { :; }\n")
    (scripts / "launch.sh").write_text("")
    run = "exps/proxy/proxy/clip_0"
    (scripts / "run_train.sh").write_text(
        'echo "train $*" >>calls; [ "$3" != "${FAILS:-}" ] || exit 1\n'
        f"mkdir -p {run}/$3; touch {run}/$3/last_model.pt\n"
    )
    results = "exps/proxy/results/final/clip_0"
    (commands / "python").write_text(
        '#!/usr/bin/env bash\ncase "$*" in\n'
        f'*rows*) echo "f|0|1024|c.yaml||{results}/f|s=1"\n'
        f'echo "m|0|1024|m.yaml|{run}/m_1024|{results}/m_1024|s=1 x.y=2" ;;\n'
        f'*evaluate*) echo "$*" >>calls; for done in f m_1024; do [[ "$*" != *"--row ${{done:0:1}} "* ]] '
        f"|| {{ mkdir -p {results}/$done; touch {results}/$done/done; }}; done ;;\n"
        '*pretrain* | *descriptors*) echo "$*" >>calls; touch "${@: -1}" ;;\n'
        '*shapes*) echo "$*" >>calls; mkdir -p exps/proxy/data/lists exps/proxy/pack; '
        "for part in train val {dev,final}_{objects,scenes,colours,styles,motions}; do "
        'echo "$part/a.mp4 0" >exps/proxy/data/lists/$part.txt; done ;;\n'
        '*) echo "$*" >>calls ;;\nesac\n'
    )
    (commands / "python").chmod(0o755)

    def call(*arguments: str, **variables: str) -> tuple[int, list[str], str]:
        (tmp_path / "calls").write_text("")
        path = f"{commands}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            ["bash", scripts / "run_proxy.sh", *arguments], env=environment | variables | {"PATH": path},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.returncode, (tmp_path / "calls").read_text().splitlines(), done.stderr

    return call


def test_rows_of_the_proxy_world_are_trained_once_and_tested_after(proxy_of_words, tmp_path):
    status, calls, _ = proxy_of_words("--seeds", "1", ROWS_AT_ONCE="1")
    assert status == 0
    calls.remove("-m tools.pretrain_tiny_clip --world proxy --seed 0 --out exps/proxy/clip_0.pt")  # beside the data
    assert calls == [
        "-m datasets.shapes --world proxy --out exps/proxy/data",
        "-m datasets.pack exps/proxy/all.txt --root exps/proxy/data/videos --out exps/proxy/pack --quality 95",
        "-m tools.proxy.descriptors --out exps/proxy/descriptors.yaml",
        "-m tools.proxy.evaluate --row f --clip 0 --seed 1024 --half final",
        "train m.yaml --log_time m_1024 s=1 x.y=2 resume=auto",
        "-m tools.proxy.evaluate --row m --clip 0 --seed 1024 --half final",
        "-m tools.proxy.table --seeds 1 --clips 0 --half final --page docs/results_proxy.md "
        "--picture docs/images/proxy.png",
    ]
    listed = (tmp_path / "exps" / "proxy" / "all.txt").read_text().split()[::2]
    assert len(listed) == len(set(listed)) == 12
    # A second time nothing is left but to look, and to write the page.
    _, calls, _ = proxy_of_words("--seeds", "1")
    assert [call.split()[1] for call in calls] == ["datasets.shapes", "tools.proxy.table"]
    # Weights that are newer than their tests are tested again.
    weights = tmp_path / "exps" / "proxy" / "proxy" / "clip_0" / "m_1024" / "last_model.pt"
    os.utime(weights, (weights.stat().st_mtime + 100,) * 2)
    _, calls, _ = proxy_of_words("--seeds", "1")
    assert [call for call in calls if "evaluate" in call] == [
        "-m tools.proxy.evaluate --row m --clip 0 --seed 1024 --half final"
    ]


def test_a_proxy_table_that_failed_goes_on_where_it_was(proxy_of_words):
    status, calls, _ = proxy_of_words(FAILS="m_1024")
    assert status != 0
    assert not any("proxy.table" in call for call in calls)
    status, calls, _ = proxy_of_words()
    assert status == 0
    assert not any("--row f" in call or "pretrain" in call or "datasets.pack" in call for call in calls)
    assert any("--row m" in call for call in calls)


def test_the_proxy_s_development_half_leaves_the_pages_alone(proxy_of_words):
    _, calls, _ = proxy_of_words("--half", "dev")
    pages = "--page exps/proxy/results_dev.md --picture exps/proxy/results_dev.png"
    assert calls[-1] == f"-m tools.proxy.table --seeds 3 --clips 0 --half dev {pages}"


@pytest.mark.parametrize("arguments", [["--row", "all"], ["all"], ["--seeds"]])
def test_the_proxy_s_script_refuses_what_it_does_not_know(proxy_of_words, arguments):
    status, calls, errors = proxy_of_words(*arguments)
    assert (status, calls) == (2, [])
    assert errors.startswith("usage: bash scripts/run_proxy.sh [--seeds N]")


@pytest.mark.slow
def test_two_machines_train_one_model(repo_root, environment, place):
    """Two starts of the script on this machine stand for two machines: one told by arguments, one by variables."""
    variables = environment | {"NPROC": "1", "MASTER_PORT": free_port()}
    script = ["bash", "scripts/run_train_multinodes.sh", place / "my config.yaml"]
    options = ["--log_time", "two", *FAST, "data.batch_size=2", "solver.epochs=1", f"data.output_path={place}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": repo_root}
    second = variables | {"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "NNODES": "2"}
    machines = [
        subprocess.Popen([*script, "0", "127.0.0.1", "2", *options], env=variables, **pipes),
        subprocess.Popen([*script, *options], env=second, **pipes),
    ]
    outputs = [machine.communicate(timeout=TIMEOUT_S)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs[0][-1500:] + outputs[1][-1500:]
    assert "2 processes" in outputs[0]
    assert "step 3/3" in outputs[0]  # 12 videos, 2 x 2 a step
    assert "step 3/3" not in outputs[1]
    folder = place / "debug" / "tiny_clip" / "two"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert (folder / "last_model.pt").exists()


@pytest.fixture
def fake_cluster(tmp_path, environment, repo_root) -> dict[str, str]:
    """Environment of a batch job on a cluster of this one machine; what its commands do is written to a log."""
    commands = {
        "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >>"$CLUSTER_LOG"; fi',
        "srun": 'shift 2; export SLURM_NODEID=0; echo $$ >"$CLUSTER_LOG.pid"; exec "$@"',
        # The real one signals the processes of the job's steps.
        "scancel": 'echo "scancel $*" >>"$CLUSTER_LOG"; kill -TERM "$(cat "$CLUSTER_LOG.pid")"',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return environment | {
        "PATH": f"{tmp_path}{os.pathsep}{environment['PATH']}", "CLUSTER_LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node[1]", "NPROC": "1",
        "SLURM_SUBMIT_DIR": str(repo_root), "SLURM_CPUS_PER_TASK": "2", "MASTER_PORT": port,
    }  # fmt: skip


@pytest.mark.slow
def test_a_cluster_job_at_its_time_limit_is_queued_again_and_goes_on(repo_root, fake_cluster, debug_config, tmp_path):
    command = [
        "bash",
        repo_root / "scripts" / "slurm_train.sbatch",
        debug_config,
        *FAST,
        f"data.output_path={tmp_path}",
    ]
    command += ["network.templates=single", "logging.print_freq=1"]
    folder = tmp_path / "debug" / "tiny_clip" / "slurm-7"
    job = subprocess.Popen([*command, "solver.epochs=500"], env=fake_cluster, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not (folder / "last_model.pt").exists():
        assert job.poll() is None, job.stderr.read()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=TIMEOUT_S)
    assert job.returncode not in (0, None)
    log = (tmp_path / "log").read_text()
    assert "scancel --signal=TERM 7" in log
    assert "requeue 7" in log
    assert "stopped by a signal" in (folder / "log.txt").read_text()
    epochs = torch.load(folder / "last_model.pt", weights_only=True)["epoch"] + 1

    (tmp_path / "log").unlink()
    done = subprocess.run([*command, f"solver.epochs={epochs + 1}"], env=fake_cluster, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0
    assert not (tmp_path / "log").exists()  # not queued again
    assert (folder / "log.txt").read_text().count("starting from") == 1
