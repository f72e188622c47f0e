"""Runs that are killed again and again, at random moments, end with the bits of one that nobody disturbed."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.engine import kill_points

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("KILLS", 5))  # of each configuration; more find more
TIMEOUT_S = 300
SMALL = (
    "data.num_segments=2", "data.batch_size=2", "network.templates=single", "solver.epochs=3",
    "solver.lr_warmup_step=0", "logging.print_freq=1", "resume=auto",
)  # fmt: skip
CONFIGURATIONS = {
    "accumulation and average": (
        "solver.grad_accumulation_steps=4", "solver.ema=0.9", "logging.save_minutes=0", "data.workers=1",
    ),
    "dropout and augmentation": (
        "network.drop_out=0.1", "network.emb_dropout=0.1", "data.randaug.N=2", "data.randaug.M=9",
        "logging.save_minutes=0.005",
    ),
    "one checkpoint": ("logging.save_minutes=0", "logging.keep=1", "logging.eval_freq=2", "data.workers=2"),
    "gradient descent and text tower": ("solver.optim=sgd", "network.fix_text=false", "logging.save_minutes=0"),
    "mixed clips": (
        "network.system=vificlip", "network.sim_header=None", "network.fix_text=false", "data.transforms=vifi",
        "solver.mixup=0.8", "solver.cutmix=1.0", "solver.mix_switch=0.5", "solver.label_smoothing=0.1",
        "logging.save_minutes=0",
    ),
    "a teacher that follows and a mean over epochs": (
        "loss.relations=0.4", "loss.relations_momentum=0.5", "solver.epoch_average=gaussian", "logging.save_minutes=0",
    ),
    "sharded over two processes": ("solver.strategy=fsdp", "data.batch_size=1", "logging.save_minutes=0"),
    "texts in turn": ("logging.save_minutes=0", "data.workers=1", "solver.grad_accumulation_steps=3", "solver.ema=0.9"),
    "texts in turn on two processes": ("logging.save_minutes=0", "solver.epochs=2"),
}  # fmt: skip
ON_TWO_PROCESSES = ("sharded over two processes", "texts in turn on two processes")
# Imported once, not once a process, though training would import some of it late.
PRELOADED = ["tests.engine.kill_points", "torch._dynamo", "torch.utils.tensorboard", "matplotlib.pyplot", "open_clip"]
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# What ends a process: a signal, its number after the state was saved, and torchrun's 1 when one of its processes ended.
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


class Run:
    """One run folder, and processes that train there until they are killed."""

    def __init__(self, config: Path, folder: Path, name: str, texts: tuple[str, ...]):
        self.folder, self.log = folder, folder / "output.txt"
        self.has_launcher = name in ON_TWO_PROCESSES
        folder.mkdir()
        self.argv = ["--config", str(config), "--log_time", "run", "--precision", "fp32"]
        self.argv += [f"data.output_path={folder}", *(texts if name.startswith("texts") else ())]
        self.argv += [*SMALL, *CONFIGURATIONS[name]]

    def start(self, point: int = 0, signum: int = signal.SIGKILL, rank: int = 0, delay_s: float = 0) -> int:
        """Train; returns the exit status. Killed at a point of its way, or after some time."""
        end = self._launch(point, signum, rank) if self.has_launcher else self._fork(point, signum)
        return end(delay_s, signum)

    def _fork(self, point: int, signum: int) -> Callable[[float, int], int]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        arguments = (self.argv, str(self.folder), point, signum, str(self.log))
        process = context.Process(target=kill_points.train_in_child, args=arguments)
        process.start()

        def end(delay_s: float, signum: int) -> int:
            process.join(delay_s or TIMEOUT_S)
            if process.is_alive():
                os.kill(process.pid, signum if delay_s else signal.SIGKILL)
                process.join(TIMEOUT_S)
            return process.exitcode

        return end

    def _launch(self, point: int, signum: int, rank: int) -> Callable[[float, int], int]:
        facts = {"KILL_POINT": point, "KILL_SIGNAL": signal.Signals(signum).name, "KILL_RANK": rank}
        environment = os.environ | {key: str(value) for key, value in facts.items()} | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, *LAUNCHER, kill_points.__file__, str(self.folder), *self.argv]
        with self.log.open("a") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

        def end(delay_s: float, signum: int) -> int:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(delay_s or TIMEOUT_S)
            ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            if signum == signal.SIGKILL and ranks:  # without its launcher a process would live on
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(ranks[rank % len(ranks)]), signum)
            else:
                process.terminate()
            return process.wait(TIMEOUT_S)

        return end

    def result(self) -> dict[str, object]:
        """All that the last checkpoints hold but the configuration, by path of keys."""
        leaves = {}
        for file in ("last_model.pt", "ema_model.pt", "average_model.pt", "model_best.pt"):
            with contextlib.suppress(FileNotFoundError):
                content = torch.load(self.folder / "debug/tiny_clip/run" / file, weights_only=True)
                leaves |= flat({file: {key: value for key, value in content.items() if key != "config"}})
        return leaves


def flat(tree: object, path: str = "") -> dict[str, object]:
    """The leaves of nested mappings and lists."""
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{path}/{key}").items()}
    if isinstance(tree, list):
        return {k: v for key, value in enumerate(tree) for k, v in flat(value, f"{path}/{key}").items()}
    return {path: tree}


def differing(found: dict, expected: dict) -> list[str]:
    assert found.keys() == expected.keys()
    return [
        name
        for name, value in expected.items()
        if not (torch.equal(value, found[name]) if isinstance(value, torch.Tensor) else value == found[name])
    ]


def survive(
    config: Path, folder: Path, name: str, kills: int, rng: random.Random, texts: tuple[str, ...] = ()
) -> tuple[int, int]:
    """Kill runs of one configuration; returns how often, and how many runs came to their end and were compared.

    Args:
        texts: overrides of those that train on texts.
    """
    for number in range(2):  # the first starts what starts processes
        whole, start = Run(config, folder / f"whole {number}", name, texts), time.monotonic()
        assert whole.start() == 0, whole.log.read_text()
        duration_s = time.monotonic() - start
    expected = whole.result()
    assert sum(isinstance(value, torch.Tensor) for value in expected.values()) > 100
    done = ended = 0
    while done < kills:
        run = Run(config, folder / f"run {ended}", name, texts)
        while True:
            options = {"signum": rng.choice((signal.SIGKILL, signal.SIGTERM)), "rank": rng.randrange(2)}
            # Half of them where files are written and steps are taken, half whenever the time comes.
            by_point = {"point": int(rng.triangular(1, 100, 10))}
            options |= by_point if rng.random() < 0.5 else {"delay_s": rng.uniform(0.1, 0.9 * duration_s)}
            status = run.start(**options) if done < kills else run.start()
            if status == 0:
                break
            assert status in KILLED or (run.has_launcher and status == 1), run.log.read_text()
            assert "error: " not in run.log.read_text()
            done += 1
        assert differing(run.result(), expected) == []
        ended += 1
    return done, ended


def test_a_run_killed_three_times_ends_with_the_same_bits(debug_config, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert survive(debug_config, tmp_path, "accumulation and average", 3, random.Random(3))[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_runs_killed_at_random_moments_end_with_the_same_bits(debug_config, debug_texts, tmp_path, monkeypatch, name):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kills, ended = survive(debug_config, tmp_path, name, KILLS, random.Random(name), debug_texts)
    print(f"{name}: {kills} kills, {ended} runs compared, 0 values differ")
    assert kills == KILLS
