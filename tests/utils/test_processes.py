import multiprocessing
import os
import socket

import torch

from utils.distributed import average_over_processes, process_group


def _average(rank: int, port: int, results) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    with process_group(60):
        tensors = [torch.tensor([1.0 + rank, 4.0]), torch.full((2, 1), 10.0 * rank)]
        average_over_processes(tensors)
        results.put([tensor.tolist() for tensor in tensors])


def test_tensors_are_averaged_over_processes():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_average, args=(rank, port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert found == [[[1.5, 4.0], [[5.0], [5.0]]]] * 2
