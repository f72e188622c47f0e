"""Several commands one after the other in one process, since each would start longer than it works on tiny models.

    python -m tools.demo.in_turn test.py --config C --weights W , test_zeroshot.py --config C --weights W

A comma that stands alone is between two of them. The first error ends all.
"""

import gc
import runpy
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from utils.cli import run_main
from utils.workers import workers_ended

ROOT = Path(__file__).resolve().parents[2]
BETWEEN = ","


def command(name: str) -> Callable[[list[str]], object]:
    """The function ``main`` of a command, ``test.py`` for example; its data workers end with it.

    Raises:
        ValueError: there is no such command.
    """
    path = ROOT / name
    if path.parent != ROOT or path.suffix != ".py" or not path.is_file():
        raise ValueError(f"expected a command, test.py for example, found {name!r}")
    return workers_ended()(runpy.run_path(str(path))["main"])


def main(argv: list[str] | None = None) -> None:
    """Run the commands of the arguments."""
    words = sys.argv[1:] if argv is None else argv
    lines = [list(line) for is_between, line in groupby(words, BETWEEN.__eq__) if not is_between]
    commands = [(command(name), arguments) for name, *arguments in lines]
    gc.freeze()  # these imports, too, see run_main
    for run, arguments in commands:
        run(arguments)


if __name__ == "__main__":
    run_main(main)
