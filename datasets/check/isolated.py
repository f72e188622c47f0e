"""Jobs in processes of their own: one that crashes or never ends is lost alone."""

import contextlib
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import torch


class Lost(NamedTuple):
    """What stands in the place of a result: the process ended, or was ended."""

    reason: str


class _Worker:
    """One process and the job that it is at."""

    def __init__(self, function: Callable[[Any], Any]):
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection

    def begin(self, number: int, job: Any, limit_s: float) -> None:
        self.number, self.deadline = number, time.monotonic() + (limit_s or math.inf)
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile: the outcome will say so
            self.connection.send(job)

    def outcome(self, limit_s: float) -> Any:
        if not self.connection.poll():
            return Lost(f"took longer than {limit_s:g} s")
        try:
            return self.connection.recv()
        except (EOFError, OSError):  # nothing, or the beginning of an answer
            self.process.join()
            code = self.process.exitcode
            return Lost(f"crashed the decoder ({signal.Signals(-code).name if code < 0 else f'exit status {code}'})")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_isolated(
    function: Callable[[Any], Any], jobs: Sequence[Any], num_workers: int, limit_s: float
) -> Iterator[tuple[int, Any]]:
    """(number of the job, ``function(job)``) as the jobs end, in any order.

    A job that crashes its process, or takes longer than ``limit_s`` seconds (0: no limit), yields ``Lost``.
    ``function`` must not raise: an exception ends its process, too.
    """
    waiting = list(enumerate(jobs))[::-1]
    busy: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < num_workers:
                busy.append(_Worker(function))
                busy[-1].begin(*waiting.pop(), limit_s)
            # Wait for the workers that have an outcome, are dead, or are out of time.
            patience_s = max(min(worker.deadline for worker in busy) - time.monotonic(), 0)
            ready = wait([worker.connection for worker in busy], None if patience_s == math.inf else patience_s)
            for worker in [w for w in busy if w.connection in ready or time.monotonic() >= w.deadline]:
                outcome = worker.outcome(limit_s)
                yield worker.number, outcome
                if waiting and not isinstance(outcome, Lost):
                    worker.begin(*waiting.pop(), limit_s)
                else:
                    busy.remove(worker)
                    worker.end()
    finally:
        for worker in busy:
            worker.end()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """A worker's life: until the parent ends it, or is gone itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process().sentinel
    while parent not in wait([connection, parent]):
        connection.send(function(connection.recv()))
