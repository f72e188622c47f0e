import multiprocessing
import os
import socket
import time
from collections.abc import Callable

import pytest
import torch

from utils.distributed import average_over_processes, from_main, process_group, rank

TIMEOUT_S = 5.0  # of exchanges that all processes are ready for


def _run(index: int, port: int, started, results, work: Callable[[], object]) -> None:
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    started.wait(120)  # so that the timeout below is not used up by imports
    with process_group(TIMEOUT_S if work is _slowly else 60):
        results.put(work())


@pytest.fixture
def on_two_processes() -> Callable[[Callable[[], object]], list]:
    """What a function returns on each of two processes."""

    def run(work: Callable[[], object]) -> list:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        started, results = context.Barrier(2), context.Queue()
        processes = [context.Process(target=_run, args=(index, port, started, results, work)) for index in range(2)]
        for process in processes:
            process.start()
        found = [results.get(timeout=120) for _ in processes]
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        return found

    return run


def _average() -> list:
    tensors = [torch.tensor([1.0 + rank(), 4.0]), torch.full((2, 1), 10.0 * rank())]
    average_over_processes(tensors)
    return [tensor.tolist() for tensor in tensors]


def _slowly() -> str:
    """Takes the main process longer than the others wait in an exchange."""

    def compute() -> str:
        time.sleep(2 * TIMEOUT_S)
        return "of the main process"

    return from_main(compute)


def _refused() -> str:
    def compute() -> None:
        raise ValueError(f"refused by process {rank()}")

    try:
        return from_main(compute)
    except ValueError as error:
        return str(error)


def test_tensors_are_averaged_over_processes(on_two_processes):
    assert on_two_processes(_average) == [[[1.5, 4.0], [[5.0], [5.0]]]] * 2


@pytest.mark.slow
def test_processes_wait_for_the_main_one_as_long_as_it_takes(on_two_processes):
    assert on_two_processes(_slowly) == ["of the main process"] * 2


@pytest.mark.slow
def test_an_error_of_the_main_process_is_raised_on_all(on_two_processes):
    assert on_two_processes(_refused) == ["refused by process 0"] * 2


def test_one_process_computes_for_itself():
    assert from_main(lambda: 3) == 3
