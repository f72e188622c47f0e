"""A time limit for calls that may never come back."""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from datasets.decode.readers import UnreadableVideo

Item = TypeVar("Item")
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
        return helper.outcome(limit_s)
    except Empty:
        del _of_this_thread.helper
        raise TookTooLong(f"took longer than {limit_s:g} s") from None


def all_within(
    limit_s: float, function: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result | UnreadableVideo]:
    """``function`` of every item, all at the same time: they take no longer than one may.

    An ``UnreadableVideo`` stands in the place of its result; other errors are raised.
    """
    helpers = [_Helper((function, (item,)), None) for item in items]
    deadline, outcomes = time.monotonic() + limit_s, []
    for helper in helpers:
        try:
            outcomes.append(helper.outcome(max(deadline - time.monotonic(), 0)))
        except Empty:
            outcomes.append(TookTooLong("took too long"))
        except UnreadableVideo as error:
            outcomes.append(error)
    return outcomes


class _Helper(threading.Thread):
    """A thread that makes calls, until it is given None."""

    def __init__(self, *calls: tuple[Callable, tuple] | None):
        super().__init__(name="time limit", daemon=True)
        self.calls, self.outcomes = SimpleQueue(), SimpleQueue()
        for call in calls:
            self.calls.put(call)
        self.start()

    def outcome(self, limit_s: float) -> object:
        """The result of the next call, or its error raised; ``queue.Empty`` after ``limit_s`` seconds."""
        result, error = self.outcomes.get(timeout=limit_s)
        if error is not None:
            raise error
        return result

    def run(self) -> None:
        for function, args in iter(self.calls.get, None):
            try:
                outcome = function(*args), None
            except BaseException as error:  # raised again where it was called
                outcome = None, error
            self.outcomes.put(outcome)
            del function, args, outcome  # or they would live until the next call
