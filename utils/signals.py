"""Stopping politely: SIGTERM and SIGINT become a flag that the training loop reads between steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """``signum`` is 0 until a signal arrives; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0

    def __call__(self, signum: int, frame: object) -> None:
        if self.signum:
            raise SystemExit(128 + signum)
        self.signum = signum


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
