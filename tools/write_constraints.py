"""Write constraints.txt from what was tested: the newest versions that scripts/check_pythons.sh installed.

REQUIREMENTS=requirements-dev.txt bash scripts/check_pythons.sh newest
python -m tools.write_constraints exps/check_pythons/*_newest.txt
"""

import argparse
import itertools
import re
from pathlib import Path

from utils.cli import run_main

# torch names the versions of its own GPU libraries, other ones for other builds of it.
OF_TORCH = re.compile(r"nvidia-.*|cuda-.*|triton")
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^+\s]+)(\+\S+)?")  # the local part (+cpu) is a build, not a version
HEAD = """\
# Versions that were tested together, for "pip install -c": later releases change nothing until they were tried.
# Written by tools/write_constraints.py; docs/install.md says how to renew it.
"""


def main(argv: list[str] | None = None) -> None:
    """Write the file; see ``constraints``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("freezes", nargs="+", type=Path, help="outputs of pip freeze, named 3.MINOR...")
    parser.add_argument("--out", type=Path, default=Path("constraints.txt"), help="(default: %(default)s)")
    args = parser.parse_args(argv)
    args.out.write_text(HEAD + "".join(f"{line}\n" for line in constraints(args.freezes)))


def constraints(freezes: list[Path]) -> list[str]:
    """Lines ``package==version``, with a marker where the Pythons have different versions.

    Raises:
        ValueError: a file is not named after a Python, or a line is no pin.
    """
    versions: dict[str, dict[int, str]] = {}  # package -> minor version of Python -> version
    for path in freezes:
        named = re.match(r"3\.(\d+)", path.name)
        if not named:
            raise ValueError(f"{path}: expected a name that begins with a Python's version, such as 3.12")
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            pin = PIN.fullmatch(line)
            if not pin:
                raise ValueError(f"{path}:{number}: expected package==version, found {line!r}")
            if not OF_TORCH.fullmatch(pin[1]):
                versions.setdefault(pin[1], {})[int(named[1])] = pin[2]
    names = sorted(versions, key=str.lower)
    return [line for name in names for line in _lines(name, sorted(versions[name].items()))]


def _lines(name: str, by_python: list[tuple[int, str]]) -> list[str]:
    """One line for each run of Pythons with the same version."""
    groups = [(version, next(same)[0]) for version, same in itertools.groupby(by_python, key=lambda pair: pair[1])]
    lines = []
    for place, (version, first) in enumerate(groups):
        bounds = [f'python_version >= "3.{first}"'] if place > 0 else []
        bounds += [f'python_version < "3.{groups[place + 1][1]}"'] if place + 1 < len(groups) else []
        lines.append(f"{name}=={version}" + ("; " + " and ".join(bounds) if bounds else ""))
    return lines


if __name__ == "__main__":
    run_main(main)
