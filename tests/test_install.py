"""Requirements, constraints and the set-up agree; the constraints are written from what was tested."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.write_constraints import OF_TORCH, constraints

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# Python that stands for pip: it writes down how it was called.
PIP = '#!/bin/sh\nif [ "$1 $2" = "-m pip" ]; then echo "$@" >>calls; fi\n'


def required(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


def all_required() -> list[Requirement]:
    return [requirement for path in sorted(ROOT.glob("requirements*.txt")) for requirement in required(path.name)]


def pinned(python: str) -> dict[str, str]:
    """Package -> version of constraints.txt for a Python."""
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(set(names)) == len(names), "a package has two versions"
    return {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, chosen, strict=True)}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(python):
    pins = pinned(python)
    for requirement in all_required():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_what_the_requirements_bring_is_pinned_too():
    pins = pinned(f"{sys.version_info.major}.{sys.version_info.minor}")
    waiting, seen = {canonicalize_name(requirement.name) for requirement in all_required()}, set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        try:
            brought = [Requirement(line) for line in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue  # not on this machine
        if metadata.version(name).partition("+")[0] != pins.get(name, metadata.version(name)):
            continue  # other versions bring other packages
        needed = [other for other in brought if other.marker is None or other.marker.evaluate({"extra": ""})]
        waiting |= {canonicalize_name(other.name) for other in needed} - seen
    assert {name for name in seen - pins.keys() if not OF_TORCH.fullmatch(name)} == set()


def test_decord_is_asked_for_only_where_it_has_wheels():
    (decord,) = [requirement for requirement in required("requirements.txt") if requirement.name == "decord"]
    machines = {
        ("linux", "x86_64"),
        ("win32", "AMD64"),
        ("linux", "aarch64"),
        ("darwin", "arm64"),
        ("darwin", "x86_64"),
    }
    asked = {
        (system, machine)
        for system, machine in machines
        if decord.marker.evaluate({"sys_platform": system, "platform_machine": machine})
    }
    assert asked == {("linux", "x86_64"), ("win32", "AMD64")}


@pytest.fixture
def set_up(tmp_path):
    """Runs setup.sh in a folder where an environment is already made, whose pip writes down its arguments."""
    for path in (*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt"):
        shutil.copy(path, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PIP)
    python.chmod(0o755)
    shutil.copy(python, python.with_name("pip"))

    def run(**variables: str) -> list[str]:
        """Arguments of the calls of pip so far."""
        command = [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            'source "$1"; setup requirements.txt',
            "-",
            ROOT / "scripts" / "setup.sh",
        ]
        subprocess.run(command, cwd=tmp_path, env=os.environ | variables, check=True, capture_output=True)
        calls = tmp_path / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    return run


def test_the_set_up_installs_with_constraints_once_and_again_when_they_change(set_up, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_CONSTRAINTS", raising=False)
    (call,) = set_up()
    assert call.endswith("-r requirements.txt -c constraints.txt")
    assert set_up() == [call]
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("torch==0\n")
    assert set_up() == [call, call]
    *_, last = set_up(NO_CONSTRAINTS="1")
    assert last.endswith("-c /dev/null")


def test_a_python_that_is_too_old_is_one_line(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["bash", "-euo", "pipefail", "-c", f"source '{ROOT}/scripts/setup.sh'; setup requirements.txt"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHON": str(old)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {old} is no Python 3.10 or newer; PYTHON=python3.12 in front names another one\n"
    assert not (tmp_path / ".venv").exists()


def test_pins_are_given_markers_where_pythons_differ(tmp_path):
    (tmp_path / "3.10.1_newest.txt").write_text("a==1\nB==2+cpu\nnvidia-x==1\ntriton==3\nold==1\n")
    (tmp_path / "3.11.1_newest.txt").write_text("a==2\nB==2\n")
    (tmp_path / "3.12.1_newest.txt").write_text("a==3\nB==2\n")
    assert constraints(sorted(tmp_path.iterdir())) == [
        'a==1; python_version < "3.11"',
        'a==2; python_version >= "3.11" and python_version < "3.12"',
        'a==3; python_version >= "3.12"',
        "B==2",
        "old==1",
    ]


@pytest.mark.parametrize(
    ("name", "line"), [("newest.txt", "a==1"), ("3.12.txt", "a @ file:///a.whl"), ("3.12.txt", "a>=1")]
)
def test_what_is_no_pin_is_refused(tmp_path, name, line):
    (tmp_path / name).write_text(f"{line}\n")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
        constraints([tmp_path / name])


@pytest.mark.parametrize("arguments", [["fastest"], ["newest", "--help"]])
def test_check_pythons_tells_its_usage(arguments):
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "check_pythons.sh", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_check_pythons_goes_on_after_a_failure_and_tells_it(tmp_path):
    """With Pythons that cannot make an environment: a line of the table for each, and exit status 1."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for path in (*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt"):
        shutil.copy(path, tmp_path)
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=tmp_path, check=True)
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.12.9\n')
    broken.chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/check_pythons.sh", "newest"],
        cwd=tmp_path, env=os.environ | {"PYTHONS": f"{broken} {broken}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    row = "| 3.12.9 | newest | - | - | - | FAILED | | | | |"
    assert done.stdout.splitlines()[2:] == [row, row]
