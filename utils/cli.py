"""What the commands have in common."""

import argparse
import ctypes
import gc
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence

from utils.precision import CHOICES
from utils.text import shown
from utils.workers import workers_ended

# What a user can cause; anything else is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, OSError, FloatingPointError)

IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker")

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # parameters of mallopt (malloc.h)

MOST = 10_000  # of what an argument counts

OVERRIDE = re.compile(r"(\w+\.)*\w+=")


def add_common_arguments(parser: argparse.ArgumentParser, formats: Sequence[str] = CHOICES) -> None:
    """Arguments of every command that computes; the first of the number formats is the default."""
    parser.add_argument(
        "--precision", choices=formats, default=formats[0], help=f"number format (default: {formats[0]})"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="change the configuration"
    )


def count(text: str) -> int:
    """The value of an argument that counts something: 1 to 10,000."""
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MOST}, found {shown(text)}")
    return int(text)


def seconds(text: str) -> float:
    """The value of an argument that is a time: a finite number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, found {shown(text)}")
    return value


def split_overrides(values: list[str]) -> tuple[list[str], list[str]]:
    """Positional arguments as (paths, overrides): ``section.key=value`` is an override unless a file has this name."""
    overrides = [value for value in values if OVERRIDE.match(value) and not os.path.lexists(value)]
    return [value for value in values if value not in overrides], overrides


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for reuse, instead of returning each large one to the system at once.

    On the CPU every activation is a large block: returned and asked for again, its pages are mapped and zeroed anew
    at each operation, which costs more than the operation. No effect elsewhere than under glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2**26)


def run_main(main: Callable[[], object]) -> None:
    """Run a command; an error of the user's is one line and exit status 2 (TRACEBACK=1 shows where).

    Data workers have ended before it returns.
    """
    keep_freed_memory()
    # What is imported by now stays. Python would search it for garbage as it ends, for longer than a second.
    gc.freeze()
    try:
        with workers_ended():
            main()
    except USER_ERRORS as error:
        if os.environ.get("TRACEBACK"):
            raise
        message = str(error)
        if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
            message = f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"  # without its number
        elif IN_WORKER.match(message):  # torch hands over the worker's whole traceback, which ends with the message
            message = message.strip().splitlines()[-1].split(": ", 1)[-1]
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(128 + signal.SIGINT)
