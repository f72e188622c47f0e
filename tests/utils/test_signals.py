import os
import signal

import pytest

from utils.signals import ECHO_S, stop_requests


def test_a_signal_is_a_request_and_its_echo_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert stop.signum == 0
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C
        os.kill(os.getpid(), signal.SIGTERM)  # passed on by a launcher
        assert stop.signum == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_person_who_asks_again_is_obeyed_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("utils.signals.time.monotonic", lambda: now[0])
    with stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] += ECHO_S + 1
        with pytest.raises(SystemExit) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 128 + signal.SIGTERM
