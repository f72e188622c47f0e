"""Loader processes: one that dies is one error within seconds, a full shared memory is found before the first batch.

All end before the interpreter does.
"""

import atexit
import logging
import os
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from utils.signals import ignore_stop_signals

logger = logging.getLogger(__name__)

SHARED_MEMORY = "/dev/shm"  # where workers put their batches; Linux
REMEDY = (
    "give the machine or container a larger one (docker run --shm-size=16g), or lower data.workers, data.prefetch or "
    "data.batch_size"
)
POLL_S = 2  # between looks at the workers while a batch is awaited
GRACE_S = 5  # for workers to end by themselves
GONE_S = 30  # for those that were killed to be gone, which takes a moment on a busy machine
TIGHT = 0.8  # share of the free shared memory
MIB = 2**20

IS_SILENT = re.compile(r"DataLoader timed out")
IS_SHARED_MEMORY = re.compile(r"shared memory|</torch_|No space left on device")
IS_DESCRIPTORS = re.compile(r"Too many open files|received 0 items of ancdata")

_loaders: "weakref.WeakSet[WorkerLoader]" = weakref.WeakSet()


class WorkerLoader(DataLoader):
    """A DataLoader whose workers are watched.

    Iterating raises:
        ChildProcessError: a worker died, which is noticed within seconds.
        TimeoutError: no batch came for ``time_limit_s`` seconds.
        OSError: the shared memory is full, or there are too many open files.

    Args:
        batch_bytes: size of a batch.
        time_limit_s: longest wait for a batch; 0: no limit.

    Raises:
        OSError: the shared memory cannot hold what the workers prepare ahead.
    """

    def __init__(self, dataset: Dataset, batch_bytes: int, time_limit_s: float, **options: Any):
        collate, num_workers = options.pop("collate_fn"), options["num_workers"]
        super().__init__(
            dataset,
            collate_fn=partial(_to_shared_memory, collate),
            # torch itself looks at its workers when this time has passed, and only then.
            timeout=POLL_S if num_workers else 0,
            worker_init_fn=ignore_stop_signals,
            persistent_workers=num_workers > 0,
            **options,
        )
        self.time_limit_s = time_limit_s
        if num_workers:
            most = min(num_workers * self.prefetch_factor + 1, len(self))  # and the one in use
            # A batch stays in shared memory until it was used or, where it is pinned, copied.
            surely = min(num_workers, len(self)) if self.pin_memory else most
            check_shared_memory(batch_bytes, surely, most, num_workers)
            _loaders.add(self)

    def __iter__(self) -> Iterator:
        if not self.num_workers:
            yield from super().__iter__()
            return
        batches = self._start()
        while (batch := self._next(batches)) is not None:
            yield batch

    def close(self) -> None:
        """End the workers; a later iteration starts new ones."""
        batches, self._iterator = self._iterator, None
        if batches is None:
            return
        workers = batches._workers
        # torch waits for each in turn. One that was killed may keep the others waiting.
        grace_s = GRACE_S if all(worker.is_alive() for worker in workers) else 0
        impatience = threading.Timer(grace_s, _kill, [workers])
        impatience.start()
        try:
            batches._shutdown_workers()  # what the iterator's destructor calls, which comes too late in an error
        finally:
            impatience.cancel()
            _kill(workers)

    def _start(self) -> Iterator:
        """torch's iterator, its workers at work."""
        before = self._iterator
        with _unchanged_child_handler():
            try:
                batches = super().__iter__()
            except (RuntimeError, OSError, EOFError) as error:
                self._explain(error, self._iterator._workers if self._iterator else [])
                self.close()  # workers that are still busy with an iteration that was left
                batches = super().__iter__()
        if batches is not before:
            # Once garbage collection has found a loader in a cycle, its queues are closed before torch tells the
            # workers to end through them: they would wait for ever, and the interpreter's end for them.
            weakref.finalize(batches, _kill, batches._workers).atexit = False
        return batches

    def _next(self, batches: Iterator) -> Any:
        """The next batch, or None at the end."""
        start = time.monotonic()
        while True:
            try:
                return next(batches, None)
            except (RuntimeError, OSError, EOFError) as error:
                self._explain(error, batches._workers)
            waited_s = time.monotonic() - start
            if self.time_limit_s and waited_s > self.time_limit_s:
                raise TimeoutError(
                    f"a data worker died or hung (no batch for {self.time_limit_s:g} s, data.loader_timeout_s)"
                )

    def _explain(self, error: Exception, workers: list) -> None:
        """Raise what an error of torch's iterator means; returns if it only says that no batch has come yet."""
        message = str(error)
        is_silent = isinstance(error, RuntimeError) and IS_SILENT.match(message)
        if dead := _dead(workers, wait_s=0 if is_silent else 1):
            raise ChildProcessError(f"a data worker died or hung ({dead})") from error
        if is_silent:
            return
        if IS_DESCRIPTORS.search(message):
            raise OSError("the data workers need more open files; raise the limit (ulimit -n) or lower data.workers")
        if isinstance(error, RuntimeError | OSError) and IS_SHARED_MEMORY.search(message):
            last = message.strip().splitlines()[-1]
            raise OSError(f"the shared memory {SHARED_MEMORY} is full ({last}); {REMEDY}") from error
        raise error


def check_shared_memory(batch_bytes: int, surely: int, most: int, num_workers: int) -> None:
    """See that there is room for the batches of one loader in every process of this machine.

    Args:
        surely: batches that lie there together before the first step is done.
        most: batches that may lie there together.

    Raises:
        OSError: there is no room for ``surely`` batches.
    """
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:  # another system
        return
    free = status.f_bavail * status.f_frsize
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    situation = (
        f"{SHARED_MEMORY} has {free / MIB:.1f} MiB free, and {processes * num_workers} data workers put "
        f"{{}} batches of {batch_bytes / MIB:.1f} MiB there"
    )
    if surely * processes * batch_bytes > free:
        raise OSError(f"{situation.format(surely * processes)}; {REMEDY}")
    if most * processes * batch_bytes > TIGHT * free:
        logger.warning("%s; if a worker dies, %s", situation.format(f"up to {most * processes}"), REMEDY)


@contextmanager
def workers_ended() -> Iterator[None]:
    """End all loaders' workers on leaving, however that comes."""
    try:
        yield
    finally:
        for loader in list(_loaders):
            loader.close()


def _to_shared_memory(collate: Callable[[list], tuple], samples: list) -> tuple:
    """A batch whose tensors a worker has put into shared memory, where a lack of it is an error that can be reported.

    torch would do the same later, in a thread whose errors nobody hears of.
    """
    batch = collate(samples)
    if get_worker_info() is not None:
        for value in batch:
            if isinstance(value, Tensor) and value.numel():
                value.share_memory_()
    return batch


@contextmanager
def _unchanged_child_handler() -> Iterator[None]:
    """Keep the signal handler for children that end. torch's raises wherever the process happens to be: while it writes
    a checkpoint, or in a destructor, where the error is lost."""
    is_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if is_main_thread:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _dead(workers: list, wait_s: float) -> str:
    """How one of the workers ended, and what may help; empty if all live on. One just killed takes a moment."""
    deadline = time.monotonic() + wait_s
    while all(worker.is_alive() for worker in workers):
        if time.monotonic() >= deadline:
            return ""
        time.sleep(0.05)
    worker = next(worker for worker in workers if not worker.is_alive())
    if worker.exitcode >= 0:
        return f"pid {worker.pid}, exit status {worker.exitcode}"
    name = signal.Signals(-worker.exitcode).name
    hint = {"SIGKILL": "; lower data.workers if memory is short", "SIGBUS": f"; {SHARED_MEMORY} is full: {REMEDY}"}
    return f"pid {worker.pid}, killed by {name}{hint.get(name, '')}"


def _kill(workers: list) -> None:
    # A process that was forked has its parent's loaders, and collects them some day.
    remaining = [worker for worker in workers if worker._parent_pid == os.getpid() and worker.is_alive()]
    for worker in remaining:
        worker.kill()
    for worker in remaining:
        worker.join(GONE_S)


@atexit.register
def _kill_all() -> None:
    # Those of a program that calls a command's main() and ends by an error: they ignore the signal by which Python ends
    # its children, and would be waited for. No thread can be started any more, so they cannot be ended in order.
    for loader in list(_loaders):
        if loader._iterator is not None:
            _kill(loader._iterator._workers)
