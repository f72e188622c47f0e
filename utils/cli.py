"""What the commands have in common."""

import argparse
import os
import re
import sys
from collections.abc import Callable

from utils.allocator import keep_freed_memory
from utils.precision import CHOICES

# What a user can cause; anything else is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, OSError, FloatingPointError)

# How torch speaks of data workers that are gone or silent. It may do so at any place, since a signal tells it; a batch
# that was on its way ends in a ConnectionResetError.
LOST_WORKER = re.compile(r"DataLoader.*(killed by signal|exited unexpectedly|timed out)")

OVERRIDE = re.compile(r"(\w+\.)*\w+=")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that computes."""
    parser.add_argument("--precision", choices=CHOICES, default="auto", help="number format (default: auto)")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="change the configuration"
    )


def split_overrides(values: list[str]) -> tuple[list[str], list[str]]:
    """Positional arguments as (paths, overrides): ``section.key=value`` is an override unless a file has this name."""
    overrides = [value for value in values if OVERRIDE.match(value) and not os.path.lexists(value)]
    return [value for value in values if value not in overrides], overrides


def run_main(main: Callable[[], object]) -> None:
    """Run a command; an error of the user's is one line and exit status 2 (TRACEBACK=1 shows where)."""
    keep_freed_memory()
    try:
        main()
    except (*USER_ERRORS, RuntimeError) as error:
        is_lost_worker = LOST_WORKER.match(str(error)) or isinstance(error, ConnectionResetError)
        if os.environ.get("TRACEBACK") or not (is_lost_worker or isinstance(error, USER_ERRORS)):
            raise
        message = str(error)
        if is_lost_worker:
            reason = message.splitlines()[0]
            message = f"a data worker died or hung ({reason}); lower data.workers if memory is short"
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
