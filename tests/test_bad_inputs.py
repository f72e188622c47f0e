"""Every kind of bad input over all commands: one line that says what and where, at once; never a traceback."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import train
from tests.bad_inputs.kinds import Bad, Places
from tests.bad_inputs.model_files import MODEL_KINDS
from tests.bad_inputs.settings import SETTINGS
from tests.bad_inputs.stores import STORE_KINDS
from tests.bad_inputs.tables import TABLE_KINDS
from tests.bad_inputs.texts import TEXT_KINDS

LIMIT_S = 30  # of a command
KINDS = [*SETTINGS, *TABLE_KINDS, *MODEL_KINDS, *STORE_KINDS, *TEXT_KINDS]


@pytest.fixture(scope="session")
def places(debug_data, debug_config, tmp_path_factory) -> Places:
    """The debug data, its configuration, and a checkpoint of one epoch."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = ["--log_time", "a", "--precision", "fp32", "solver.epochs=1", f"data.output_path={runs}"]
    train.main(["--config", str(debug_config), *arguments])
    return Places(debug_data, debug_config, runs / "debug" / "tiny_clip" / "a" / "last_model.pt")


@pytest.fixture(scope="module")
def run(repo_root) -> Iterator[Callable[[str, list[str], Path], int]]:
    """Runs a command in a process of its own: name, arguments, file for its output -> exit status."""
    command = [sys.executable, "-m", "tests.bad_inputs.server"]
    server = subprocess.Popen(command, cwd=repo_root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(name: str, arguments: list[str], output: Path) -> int:
        job = {"command": name, "arguments": arguments, "output": str(output), "limit_s": LIMIT_S}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    yield run
    server.stdin.close()
    server.wait()


def filled(arguments: list[str], folder: Path, places: Places) -> list[str]:
    """Arguments with paths in the places of ``{w}``, ``{data}``, ``{config}`` and ``{weights}``."""
    for name, path in {"w": folder, **places._asdict()}.items():
        arguments = [argument.replace(f"{{{name}}}", str(path)) for argument in arguments]
    return arguments


def test_there_are_more_than_three_hundred_kinds():
    assert len({bad.kind for bad in KINDS}) == len(KINDS) >= 300


@pytest.mark.slow
@pytest.mark.parametrize("bad", KINDS, ids=lambda bad: bad.kind)
def test_one_line_says_what_and_where(bad: Bad, places, run, tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    if bad.make:
        bad.make(folder, places)
    output = tmp_path / "output.txt"
    status = run(bad.command, filled(bad.arguments, folder, places), output)
    printed = output.read_text(errors="replace")
    assert "Traceback" not in printed, printed[-3000:]
    assert status in bad.statuses, f"status {status} (-14: took longer than {LIMIT_S} s): {printed[-1000:]}"
    last = printed.strip().splitlines()[-1]
    assert "error: " in last
    assert len(last) < 2000
    assert re.search(bad.says, last), last
