"""The harness on contenders whose times and memory are known; the page, also of a run that was stopped."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import all as page_writer
from benchmarks.harness import Measurement, table

TINY = """
import os, sys, time
from benchmarks import harness

def sleeper(seconds, mib):
    def build():
        ballast = bytearray(mib * 2**20)
        print("a library's remark")
        return lambda: time.sleep(seconds) or ballast
    return build

contenders = {harness.BASELINE: sleeper(0.2, 1), "ours": sleeper(0.05, 200)}
if "BROKEN" in os.environ:
    contenders[harness.BASELINE] = None
ceilings = {"deep sleep": harness.Ceiling(sleeper(0.1, 1), 200.0)} if "CEILING" in os.environ else {}
harness.run(harness.Benchmark("sleep", "tiny", "naps", 2, contenders, lambda: 20.0, ceilings), sys.argv[1:])
"""


@pytest.fixture
def tiny(tmp_path, repo_root):
    """Run a small benchmark module as a command."""
    (tmp_path / "tiny.py").write_text(TINY)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{repo_root}"}
        command = [sys.executable, "-m", "tiny", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_ratios_and_memory_are_those_of_each_contender(tiny):
    done = tiny("--rounds", "3")
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.strip().splitlines()
    assert head == "| sleep | naps/s | median s | min s | max s | speed-up | peak MiB |"
    figures = {row.split("|")[1].strip(): [float(cell) for cell in row.split("|")[2:-1]] for row in rows}
    assert figures["baseline"][4] == 1.0
    assert figures["ours"][4] > 1.5  # 4 on a machine with nothing else to do
    assert figures["ours"][0] == pytest.approx(2 / figures["ours"][1], rel=0.1)
    assert figures["ours"][5] - figures["baseline"][5] > 150


@pytest.mark.slow
def test_a_share_is_of_the_operations_a_second_of_a_ceiling(tiny, monkeypatch):
    monkeypatch.setenv("CEILING", "1")  # 200 operations in 0.1 s; a contender has 40 in 0.2 s or 0.05 s
    done = tiny("--rounds", "3")
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.strip().splitlines()
    assert head.endswith(" peak MiB | % of deep sleep |")
    shares = {row.split("|")[1].strip(): float(row.split("|")[-2]) for row in rows}
    assert shares.keys() == {"baseline", "ours"}
    assert shares["baseline"] == pytest.approx(10, abs=2)
    assert shares["ours"] == pytest.approx(40, abs=8)


def test_a_contender_that_fails_is_an_error(tiny, monkeypatch):
    monkeypatch.setenv("BROKEN", "1")
    done = tiny()
    assert done.returncode != 0
    assert "a contender ended with status 1" in done.stderr


def test_a_page_holds_every_table_and_what_it_was_measured_on():
    def measurement(benchmark: str, contender: str) -> Measurement:
        return Measurement(benchmark, contender, "clips", 4.0, 0.5, 0.4, 0.6, 2.0, 100.0)

    rows = [measurement(name, who) for name in ("head, test", "head, train") for who in ("baseline", "ours")]
    text = page_writer.page({"head": rows}, rounds=7, memory_table="MiB of a block")
    assert text.count(table(rows[:2])) == text.count(table(rows[2:])) == 1
    for fact in ("| rounds | 7 |", "| torch | ", "| device | ", "## head", "## memory\n\nMiB of a block"):
        assert fact in text


@pytest.fixture
def counted(tmp_path, monkeypatch) -> tuple[list[str], list[str]]:
    """Two benchmarks in the place of all, a page of them: what was measured; arguments of the command."""
    calls = []

    class Counted:
        def __init__(self, name: str):
            self.name = name

        def main(self, argv: list[str]) -> list[Measurement]:
            calls.append(self.name)
            if self.name == "second" and calls == ["first", "second"]:
                raise KeyboardInterrupt
            return [
                Measurement(self.name, "baseline", "clips", 4.0, 0.5, 0.4, 0.6, 1.0, 100.0, None, {"products": 0.5})
            ]

    monkeypatch.setattr(page_writer, "BENCHMARKS", {name: Counted(name) for name in ("first", "second")})
    monkeypatch.setattr(page_writer.memory, "TOWERS", {})
    return calls, ["--rounds", "2", "--page", str(tmp_path / "page.md")]


def test_a_run_that_was_stopped_goes_on(counted, tmp_path):
    calls, arguments = counted
    with pytest.raises(KeyboardInterrupt):
        page_writer.main(arguments)
    page_writer.main(arguments)
    assert calls == ["first", "second", "second"]
    text = (tmp_path / "page.md").read_text()
    assert "## first" in text
    assert "## second" in text
    assert "| % of products |" in text
    assert len(json.loads((tmp_path / "page.json").read_text())) == 2
    assert not (tmp_path / "page.part.json").exists()


def test_figures_of_another_machine_or_of_other_rounds_are_measured_again(counted):
    calls, arguments = counted
    with pytest.raises(KeyboardInterrupt):
        page_writer.main(arguments)
    page_writer.main(["--rounds", "3", *arguments[2:]])
    assert calls == ["first", "second", "first", "second"]
