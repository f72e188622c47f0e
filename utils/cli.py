"""What the commands have in common."""

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable

from utils.allocator import keep_freed_memory
from utils.precision import CHOICES
from utils.text import shown
from utils.workers import workers_ended

# What a user can cause; anything else is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, OSError, FloatingPointError)

IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker")

MOST = 10_000  # of what an argument counts

OVERRIDE = re.compile(r"(\w+\.)*\w+=")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that computes."""
    parser.add_argument("--precision", choices=CHOICES, default="auto", help="number format (default: auto)")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="change the configuration"
    )


def add_view_arguments(parser: argparse.ArgumentParser, crops: Iterable[int], num_clips: int = 1) -> None:
    """``--test_clips`` (default: ``num_clips``) and ``--test_crops`` (one of ``crops``)."""
    parser.add_argument("--test_clips", type=count, default=num_clips, help=f"clips a video (default: {num_clips})")
    parser.add_argument("--test_crops", type=int, default=1, choices=sorted(crops), help="crops a clip (default: 1)")


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


def run_main(main: Callable[[], object]) -> None:
    """Run a command; an error of the user's is one line and exit status 2 (TRACEBACK=1 shows where).

    Data workers have ended before it returns.
    """
    keep_freed_memory()
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
