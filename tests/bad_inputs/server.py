"""Runs commands in processes of their own without importing PyTorch again for each: python -m tests.bad_inputs.server

Imports every command once, computes nothing, and then forks for each line of standard input, a JSON object with
``command``, ``arguments``, ``output`` (file for what the process prints) and ``limit_s``. Answers with a line each:
the exit status, negative for a signal; SIGALRM is the time limit.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from utils.cli import run_main

ROOT = Path(__file__).resolve().parents[2]
# Python has a package ``test`` of its own, so scripts are loaded by path.
SCRIPTS = ("train", "test", "test_zeroshot", "test_retrieval", "predict", "extract_features", "export", "probe")
MODULES = (
    "datasets.check", "datasets.prepare", "datasets.pack", "tools.search", "tools.convert", "tools.tradeoff",
    "tools.base_novel", "tools.few_shot_table", "tools.describe",
)  # fmt: skip
RETURN_A_STATUS = ("datasets.check",)


def load_commands() -> dict[str, Callable[[list[str]], object]]:
    """``main`` of every command."""
    commands = {name: runpy.run_path(str(ROOT / f"{name}.py"))["main"] for name in SCRIPTS}
    modules = {name: f"{name}.__main__" if name.startswith("datasets.") else name for name in MODULES}
    return commands | {name: importlib.import_module(module).main for name, module in modules.items()}


def run(name: str, main: Callable[[list[str]], object], arguments: list[str], output: str, limit_s: int) -> None:
    """In the forked process: run a command as its script does.

    Then it ends at once: Python would take everything that is imported apart first, longer than most errors take.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit_s)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(os.open(os.devnull, os.O_RDONLY))
    status = 1
    try:
        run_main(lambda: sys.exit(main(arguments)) if name in RETURN_A_STATUS else main(arguments))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):  # a message: its status is 1
            sys.stdout.flush()
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # as Python would at its end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve until the end of standard input."""
    commands = load_commands()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            run(job["command"], commands[job["command"]], job["arguments"], job["output"], job["limit_s"])
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
