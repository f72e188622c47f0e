"""Training that kills itself at the n-th point of its way: a step, or a file operation in its run folder.

Run as a script, it takes a folder and train.py's arguments, and KILL_POINT, KILL_SIGNAL, KILL_RANK of the environment.
"""

import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import engine.train
import train
from utils.cli import run_main

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.link", "os.utime")


def train_and_die(argv: list[str], folder: str, point: int, signum: int) -> None:
    """Run train.py's command; at the ``point``-th point (0: never) the process sends itself ``signum``.

    Args:
        folder: file operations below it count.
    """
    passed, draws_of_step = 0, engine.train.draws_of_step

    def pass_point() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signum)

    def watch(event: str, args: tuple) -> None:
        if event in FILE_EVENTS and str(args[0]).startswith(folder):
            pass_point()

    def counted_draws(*args):
        pass_point()
        return draws_of_step(*args)

    sys.addaudithook(watch)
    engine.train.draws_of_step = counted_draws
    run_main(partial(train.main, argv))


def train_in_child(argv: list[str], folder: str, point: int, signum: int, log: str) -> None:
    """``train_and_die`` with its output in a file, in a process made for it."""
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in a process started by hand
    with open(log, "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    train_and_die(argv, folder, point, signum)


if __name__ == "__main__":
    is_chosen = os.environ.get("KILL_RANK", "0") == os.environ.get("RANK", "0")
    point = int(os.environ.get("KILL_POINT", "0")) if is_chosen else 0
    train_and_die(sys.argv[2:], sys.argv[1], point, signal.Signals[os.environ.get("KILL_SIGNAL", "SIGKILL")])
