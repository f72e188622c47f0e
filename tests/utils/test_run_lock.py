"""A run folder has one run: of several that begin, of one that was killed, and of one on another machine."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from utils import run_lock as module
from utils.run_lock import LOCK, Owner, RunLock, run_lock

PROCESSES = multiprocessing.get_context("fork")


def begin(folder: Path, barrier, results) -> None:
    """Try to take the lock at the same moment as others; the winner keeps it until all have tried."""
    lock = RunLock(folder)
    barrier.wait(60)
    try:
        lock.acquire()
    except OSError as error:
        results.put(str(error))
        barrier.wait(60)
        return
    results.put("")
    barrier.wait(60)
    lock.release()


def hold(folder: Path, ready) -> None:
    RunLock(folder).acquire()
    ready.set()
    time.sleep(600)


@pytest.fixture
def killed(tmp_path):
    """A folder whose run was killed, not yet waited for by its parent."""
    ready = PROCESSES.Event()
    process = PROCESSES.Process(target=hold, args=(tmp_path / "run", ready))
    process.start()
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    yield tmp_path / "run"
    process.join()


@pytest.fixture
def elsewhere(tmp_path):
    """Writes a lock of another machine's process."""

    def write(**facts) -> Path:
        owner = replace(module._this_process(), host="other", pid=7, machine="another boot", **facts)
        path = tmp_path / LOCK
        path.write_text(json.dumps(asdict(owner)))
        return path

    return write


@pytest.mark.parametrize("left", ["nothing", "a lock", "a lock and a claim on it"])
def test_of_many_that_begin_at_once_one_runs(tmp_path, left, monkeypatch):
    monkeypatch.setattr(module, "DYING_S", 0.2)
    count, lock = 12, tmp_path / LOCK
    dead = replace(module._this_process(), started="another start")
    if left != "nothing":
        lock.write_text(json.dumps(asdict(dead)))
    if left == "a lock and a claim on it":
        lock.with_name(f".{LOCK}.{dead.token}").write_text(json.dumps(asdict(replace(dead, token="dead"))))
    barrier, results = PROCESSES.Barrier(count), PROCESSES.Queue()
    processes = [PROCESSES.Process(target=begin, args=(tmp_path, barrier, results)) for _ in range(count)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert answers.count("") == 1
    assert all("in use by another run: process " in answer for answer in answers if answer)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_s_lock_is_taken_over_at_once_though_nobody_has_waited_for_it(killed, caplog):
    start = time.monotonic()
    lock = RunLock(killed)
    lock.acquire()
    assert time.monotonic() - start < module.DYING_S
    assert "took over the lock of a run that is gone" in caplog.text
    assert json.loads((killed / LOCK).read_text())["pid"] == os.getpid()
    lock.release()
    assert list(killed.iterdir()) == []


def test_the_second_run_is_refused_and_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DYING_S", 0.2)
    folder = tmp_path / "run"
    with run_lock(folder):
        (folder / ".x.part").write_text("being written")
        before = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
        with (
            pytest.raises(OSError, match=rf"{folder} is in use by another run: process {os.getpid()} on .*, since 20"),
            run_lock(folder),
        ):
            pass
        assert {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())} == before
    (folder / ".x.part").unlink()
    folder.rmdir()


def test_a_folder_in_which_nothing_was_written_goes_with_its_parents(tmp_path):
    with pytest.raises(ValueError, match="wrong"), run_lock(tmp_path / "a" / "b"):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_number_used_again_by_another_process_is_not_the_owner(tmp_path):
    owner = replace(module._this_process(), pid=os.getppid(), started="1")
    (tmp_path / LOCK).write_text(json.dumps(asdict(owner)))
    with run_lock(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_another_machine_s_lock_is_stale_when_it_stands_still_and_not_when_it_moves(elsewhere, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(module, "STALE_S", 0.5)
    path = elsewhere()
    with run_lock(path.parent):  # nobody renewed it
        pass
    path = elsewhere()
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        os.utime(path, (len(slept), time.time() + len(slept)))

    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(OSError, match="process 7 on other, since"), run_lock(path.parent):
        pass
    assert len(slept) == 1


def test_a_lock_of_yesterday_is_taken_over_after_two_looks(elsewhere, monkeypatch):
    path = elsewhere()
    os.utime(path, (time.time() - 90_000,) * 2)
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    with run_lock(path.parent):
        assert slept == [module.HEARTBEAT_S] * 2


def test_processes_that_torchrun_starts_anew_take_over_their_own_launch_s_lock(elsewhere, monkeypatch):
    monkeypatch.setenv("LAUNCH_ID", "1-2-3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    path = elsewhere(launch="1-2-3")
    start = time.monotonic()
    with run_lock(path.parent):
        assert time.monotonic() - start < module.HEARTBEAT_S


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": -1}', '{"host": 3, "pid": 1}', '{"pid": 1, "token": "../../x"}'],
)
def test_a_lock_that_cannot_be_understood_is_nobody_s_and_stale_when_it_stands_still(tmp_path, text, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(module, "STALE_S", 0.1)
    (tmp_path / LOCK).write_text(text)
    assert module._read(tmp_path / LOCK) == Owner()
    with run_lock(tmp_path):
        assert module._read(tmp_path / LOCK).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_renewed_written_again_when_it_is_gone_and_its_loss_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    path = tmp_path / "run" / LOCK

    def wait_for(condition) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with run_lock(path.parent):
        os.utime(path, (1, 1))
        wait_for(lambda: path.stat().st_mtime > 1)
        path.unlink()
        wait_for(path.exists)
        assert "is gone; written again" in caplog.text
        path.parent.rename(tmp_path / "moved")
        wait_for(lambda: "cannot be renewed" in caplog.text)
    assert (tmp_path / "moved" / LOCK).exists()


def lose(folder: Path) -> None:
    module.HEARTBEAT_S = 0.02
    with run_lock(folder):
        (folder / LOCK).write_text(json.dumps(asdict(replace(module._this_process(), token="other", pid=7))))
        time.sleep(60)


def test_a_run_whose_folder_was_taken_over_ends(tmp_path):
    process = PROCESSES.Process(target=lose, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 2
    assert module._read(tmp_path / LOCK).pid == 7


def test_a_file_system_without_links_has_locks_too(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError("no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    monkeypatch.setattr(module, "DYING_S", 0.1)
    with run_lock(tmp_path):
        with pytest.raises(OSError, match="in use by another run"), run_lock(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert list(tmp_path.iterdir()) == []
