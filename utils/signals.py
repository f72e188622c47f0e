"""Stopping politely: SIGTERM and SIGINT become a flag that the training loop reads between steps."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

ECHO_S = 5  # a terminal and a launcher both pass Ctrl-C on: one signal arrives twice
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """``signum`` is 0 until a signal arrives; a later second one ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._arrived_s = 0.0

    def __call__(self, signum: int, frame: object) -> None:
        if not self.signum:
            self.signum, self._arrived_s = signum, time.monotonic()
        elif time.monotonic() - self._arrived_s > ECHO_S:
            raise SystemExit(128 + signum)


def ignore_stop_signals(worker: int) -> None:
    """Let a data worker work on (``worker_init_fn``): launchers signal whole process groups, but it is for the main
    process to end, when it has saved."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch stop signals within the context (in the main thread); their handlers are restored after it."""
    request = StopRequest()
    previous = {signum: signal.signal(signum, request) for signum in STOP_SIGNALS}
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
