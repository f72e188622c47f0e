"""A time limit for calls that may never come back."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from datasets.decode.readers import UnreadableVideo

Result = TypeVar("Result")
_of_this_thread = threading.local()  # its helper, kept for the next call


class TookTooLong(UnreadableVideo):
    """Opening or reading a video ran into the time limit."""


def within(limit_s: float, function: Callable[..., Result], *args: object) -> Result:
    """``function(*args)`` in a helper thread, waited for at most ``limit_s`` seconds (0: here, without a limit).

    A decoder that is stuck in C code cannot be interrupted: its thread is left behind, and as a daemon it does not
    keep the process from ending.

    Raises:
        TookTooLong: than ``limit_s``. Whatever ``function`` raises.
    """
    if not limit_s:
        return function(*args)
    helper = getattr(_of_this_thread, "helper", None)
    if helper is None or not helper.is_alive():  # none yet, or lost in a fork
        helper = _of_this_thread.helper = _Helper()
    helper.calls.put((function, args))
    try:
        result, error = helper.outcomes.get(timeout=limit_s)
    except Empty:
        del _of_this_thread.helper
        raise TookTooLong(f"took longer than {limit_s:g} s") from None
    if error is not None:
        raise error
    return result


class _Helper(threading.Thread):
    def __init__(self):
        super().__init__(name="time limit", daemon=True)
        self.calls, self.outcomes = SimpleQueue(), SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            function, args = self.calls.get()
            try:
                outcome = function(*args), None
            except BaseException as error:  # raised again where it was called
                outcome = None, error
            self.outcomes.put(outcome)
            del function, args, outcome  # or they would live until the next call
