"""Independent jobs in processes that end with the one that started them."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, start: str | None = None
) -> Iterator[Result]:
    """Results of independent jobs in any order; 0 workers: in this process.

    Args:
        start: how the processes start, see ``multiprocessing``; None: as is usual on this system.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise OSError("a worker process was killed (out of memory?); start again with fewer --workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes outlive a parent that is killed; what they wrote then could meet a new run."""
    multiprocessing.parent_process().join()
    os._exit(1)
