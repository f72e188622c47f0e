"""Loader processes: what ends them is said at once and rightly, and none is left over."""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import torch
from torch.utils.data import Dataset

from utils import workers
from utils.workers import MIB, WorkerLoader, check_shared_memory, workers_ended

SHORT_S = 60  # on a busy machine; far below any time limit of a loader
Rows = namedtuple("Rows", "values names")


def collate(samples: list) -> Rows:
    return Rows(torch.stack(samples), tuple(map(str, samples)))


class Numbers(Dataset):
    """Tensors that count up; what an ``event`` maps an index to happens before it is there."""

    def __init__(self, events: dict | None = None, size: int = 3):
        self.events, self.size = events or {}, size

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        action, *arguments = self.events.get(index, (int,))
        action(*arguments)
        return torch.full((self.size,), index)


def fail(message: str) -> None:
    raise RuntimeError(message)


@pytest.fixture
def loader(monkeypatch):
    """Builds loaders, and ends their workers after the test."""
    monkeypatch.setattr(workers, "POLL_S", 0.2)
    made = []

    def build(dataset: Dataset, num_workers: int = 2, time_limit_s: float = 600, prefetch: int = 1) -> WorkerLoader:
        options = {"num_workers": num_workers, "prefetch_factor": prefetch if num_workers else None}
        made.append(WorkerLoader(dataset, 0, time_limit_s, collate_fn=collate, batch_size=2, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


def read(loader: WorkerLoader) -> list[int]:
    return [int(batch.values[0, 0]) for batch in loader]


def pids_of(loader: WorkerLoader) -> list[int]:
    return [worker.pid for worker in loader._iterator._workers]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_iteration_reads_everything_with_the_same_workers(loader, num_workers):
    numbers = loader(Numbers(), num_workers)
    assert read(numbers) == [0, 2, 4, 6, 8, 10]
    first = pids_of(numbers) if num_workers else []
    assert read(numbers) == [0, 2, 4, 6, 8, 10]
    assert first == (pids_of(numbers) if num_workers else [])


def test_an_iteration_that_was_left_does_not_disturb_the_next(loader):
    # Longer than a worker is awaited before torch is asked again.
    numbers = loader(Numbers({5: (time.sleep, 1.5)}))
    assert int(next(iter(numbers)).values[0, 0]) == 0
    assert read(numbers) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("pid", [0, 1], ids=["the one awaited", "the other"])
def test_a_killed_worker_is_an_error_at_once_and_never_anywhere_else(loader, pid):
    numbers = loader(Numbers({6: (time.sleep, 0.2)}))
    batches = iter(numbers)
    next(batches)
    victim = pids_of(numbers)[pid]
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + 1
    while time.monotonic() < end:  # as if a checkpoint were written; Python's signal handlers run in here
        time.sleep(0.01)
    start = time.monotonic()
    with pytest.raises(
        ChildProcessError, match=rf"a data worker died or hung \(pid {victim}, killed by SIGKILL; lower"
    ):
        list(batches)
    assert time.monotonic() - start < SHORT_S


def test_a_worker_that_dies_between_two_iterations_is_an_error_of_the_second(loader):
    numbers = loader(Numbers())
    read(numbers)
    worker = numbers._iterator._workers[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(SHORT_S)  # on a busy machine its death takes a moment
    with pytest.raises(ChildProcessError, match="killed by SIGKILL"):
        read(numbers)
    numbers.close()
    assert read(numbers) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ((os._exit, 0), r"exit status 0"),
        ((os._exit, 3), r"exit status 3"),
        ((os.kill, 0, signal.SIGSEGV), "killed by SIGSEGV"),
    ],
)
def test_however_a_worker_ends_it_is_said(loader, action, said):
    if action[0] is os.kill:
        action = (_kill_itself, signal.SIGSEGV)
    with pytest.raises(ChildProcessError, match=said):
        read(loader(Numbers({4: action})))


def _kill_itself(signum: int) -> None:
    os.kill(os.getpid(), signum)


def test_a_bus_error_is_a_full_shared_memory(loader):
    with pytest.raises(ChildProcessError, match=r"killed by SIGBUS; /dev/shm is full: .*--shm-size"):
        read(loader(Numbers({4: (_kill_itself, signal.SIGBUS)})))


def test_a_worker_that_hangs_is_an_error_after_the_time_limit_and_is_ended(loader, monkeypatch):
    monkeypatch.setattr(workers, "GRACE_S", 0.5)
    numbers = loader(Numbers({4: (time.sleep, 600)}), time_limit_s=1)
    with pytest.raises(TimeoutError, match=r"a data worker died or hung \(no batch for 1 s, data.loader_timeout_s\)"):
        read(numbers)
    processes = numbers._iterator._workers
    start = time.monotonic()
    with workers_ended():
        pass
    assert time.monotonic() - start < SHORT_S
    assert not any(process.is_alive() for process in processes)


def test_a_slow_batch_is_waited_for(loader):
    assert read(loader(Numbers({4: (time.sleep, 0.5), 10: (time.sleep, 0.5)}))) == [0, 2, 4, 6, 8, 10]


def test_workers_end_when_a_command_ends_by_an_error(loader):
    numbers = loader(Numbers())
    next(iter(numbers))
    processes = numbers._iterator._workers
    with pytest.raises(ValueError, match="of the command"), workers_ended():
        raise ValueError("of the command")
    assert [process.exitcode for process in processes] == [0, 0]
    assert not set(processes) & set(multiprocessing.active_children())


def test_workers_of_a_loader_that_is_found_in_a_cycle_end_at_once():
    """Its queues are closed before torch's own destructor would use them: workers lived on, and hung up the exit."""
    numbers = WorkerLoader(Numbers(), 0, 600, collate_fn=collate, batch_size=2, num_workers=2)
    assert read(numbers) == [0, 2, 4, 6, 8, 10]
    processes, numbers.itself = numbers._iterator._workers, numbers
    del numbers
    gc.collect()
    assert not any(process.is_alive() for process in processes)


def test_a_forked_process_leaves_its_parents_workers_alone(loader):
    numbers = loader(Numbers())
    next(iter(numbers))
    context = multiprocessing.get_context("fork")
    child = context.Process(target=workers._kill, args=[numbers._iterator._workers])
    child.start()
    child.join(SHORT_S)
    assert child.exitcode == 0
    assert all(process.is_alive() for process in numbers._iterator._workers)


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        ("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)", OSError,
         r"/dev/shm is full \(.*No space left.*--shm-size"),
        ("received 0 items of ancdata", OSError, "ulimit -n"),
        ("a mistake of ours", RuntimeError, "Caught RuntimeError in DataLoader worker"),
    ],
)  # fmt: skip
def test_an_error_within_a_worker_is_what_it_was(loader, message, error, said):
    with pytest.raises(error, match=said):
        read(loader(Numbers({4: (fail, message)})))


@pytest.fixture
def free(monkeypatch):
    """Sets the free size of the shared memory, in MiB."""

    def set_free(size: float) -> None:
        status = os.statvfs_result((4096, 4096, *[int(size * MIB / 4096)] * 3, 1, 1, 1, 0, 255))
        monkeypatch.setattr(workers.os, "statvfs", lambda path: status)

    return set_free


@pytest.mark.parametrize(
    ("size", "surely", "most", "processes", "is_error", "is_tight"),
    [
        (64, 4, 8, 1, True, False),  # 4 x 20 MiB
        (81, 4, 8, 1, False, True),
        (170, 4, 8, 1, False, True),
        (201, 4, 8, 1, False, False),
        (201, 4, 8, 4, True, False),
        (64, 3, 3, 1, False, True),
    ],
)
def test_the_need_for_shared_memory_is_batches_of_all_workers(
    free, caplog, monkeypatch, size, surely, most, processes, is_error, is_tight
):
    free(size)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    if is_error:
        expected = (
            rf"/dev/shm has {size}\.0 MiB free, and {4 * processes} data workers put {surely * processes} batches"
        )
        with pytest.raises(OSError, match=expected + r" of 20\.0 MiB there; .*--shm-size.*data\.workers"):
            check_shared_memory(20 * MIB, surely, most, 4)
    else:
        check_shared_memory(20 * MIB, surely, most, 4)
    assert ("--shm-size" in caplog.text) == is_tight


def test_a_loader_counts_what_it_prepares_ahead_and_no_more_than_it_has(free):
    free(100)
    options = {"collate_fn": collate, "batch_size": 2, "prefetch_factor": 2}
    WorkerLoader(Numbers(), 16 * MIB, 0, num_workers=8, **options)  # six batches in all
    with pytest.raises(OSError, match="8 data workers put 6 batches of 17"):
        WorkerLoader(Numbers(), 17 * MIB, 0, num_workers=8, **options)
    WorkerLoader(Numbers(), 17 * MIB, 0, num_workers=2, **options)
    with pytest.raises(OSError, match="2 data workers put 5 batches of 26"):
        WorkerLoader(Numbers(), 26 * MIB, 0, num_workers=2, **options)
    WorkerLoader(Numbers(), 26 * MIB, 0, num_workers=0, collate_fn=collate)


def with_small_shared_memory(command: str) -> list[str]:
    """A shell command that sees 64 MB in /dev/shm; skips where that needs more rights than one has."""
    mount = ["unshare", "-rm", "sh", "-c"]
    small = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    if not shutil.which("unshare") or subprocess.run([*mount, small], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs rights that this process does not have")
    return [*mount, f"{small} && exec {command}"]


@pytest.mark.slow
def test_training_with_a_small_shared_memory_ends_before_the_model_is_built(debug_config, tmp_path, repo_root):
    overrides = "data.input_size=224 data.num_segments=8 data.batch_size=12 data.workers=4 data.shot_repeat=8"
    command = f"{sys.executable} train.py --config {debug_config} data.output_path={tmp_path} {overrides}"
    done = subprocess.run(
        with_small_shared_memory(command), cwd=repo_root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith(
        "error: /dev/shm has 64.0 MiB free, and 4 data workers put 8 batches of 13.8 MiB there; give"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_shared_memory_that_fills_up_later_is_named_with_the_remedy(repo_root):
    code = (
        "from utils.cli import run_main; from utils.workers import WorkerLoader\n"
        "from tests.utils.test_workers import Numbers, collate\n"
        "loader = WorkerLoader(Numbers(size=2**21), 0, 600, collate_fn=collate, num_workers=2, prefetch_factor=4)\n"
        "run_main(lambda: [batch for batch in loader])"
    )  # batches of 16 MiB that are kept
    done = subprocess.run(
        with_small_shared_memory(f"{sys.executable} -c '{code}'"), cwd=repo_root, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "/dev/shm is full" in done.stderr.splitlines()[-1]
    assert "--shm-size" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
