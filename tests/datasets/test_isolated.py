"""Isolated jobs: a crash or a hang loses one job and nothing else."""

import faulthandler
import os
import signal
import time

from datasets.check.isolated import Lost, run_isolated


def work(job: object) -> object:
    if job == "crash":
        faulthandler.disable()  # pytest would print a traceback
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        os._exit(3)
    if job == "hang":
        time.sleep(60)
    return job * 2


def test_every_job_has_its_outcome():
    assert dict(run_isolated(work, range(20), 3, 0)) == {number: 2 * number for number in range(20)}


def test_no_jobs_no_outcomes():
    assert list(run_isolated(work, [], 2, 0)) == []


def test_crashes_and_hangs_are_lost_alone():
    jobs = [1, "crash", 2, "exit", 3, "hang", "crash", 4]
    outcomes = dict(run_isolated(work, jobs, 2, 1))
    assert {number: outcomes[number] for number in (0, 2, 4, 7)} == {0: 2, 2: 4, 4: 6, 7: 8}
    assert outcomes[1] == outcomes[6] == Lost("crashed the decoder (SIGSEGV)")
    assert outcomes[3] == Lost("crashed the decoder (exit status 3)")
    assert outcomes[5] == Lost("took longer than 1 s")


def test_leaving_early_ends_the_processes():
    outcomes = run_isolated(work, [1, "hang", "hang"], 3, 0)
    start = time.monotonic()
    assert next(outcomes) == (0, 2)
    outcomes.close()
    assert time.monotonic() - start < 20
