"""Errors of the user's are one line; errors of ours keep their traceback."""

import argparse
import subprocess
import sys

import pytest

from utils.cli import add_common_arguments, count, run_main, seconds
from utils.config import load_config


def test_a_user_s_error_is_one_line_and_exit_status_2(repo_root):
    code = "from utils.cli import run_main\ndef main(): raise ValueError('data.x: expected y')\nrun_main(main)"
    result = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=False)
    assert result.stderr.splitlines() == ["error: data.x: expected y"]
    assert result.stdout == ""
    assert result.returncode == 2


def fail(error: Exception):
    raise error


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, FileExistsError])
def test_errors_that_a_user_can_cause_end_the_command(kind, monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)
    with pytest.raises(SystemExit):
        run_main(lambda: fail(kind("what and where")))


def test_traceback_shows_where_a_user_s_error_arose(monkeypatch):
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(ValueError, match="what and where"):
        run_main(lambda: fail(ValueError("what and where")))


def test_errors_of_ours_keep_their_traceback(monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 / 0)


def test_a_command_that_succeeds_returns():
    assert run_main(lambda: {"top1": 1.0}) is None


def test_common_arguments_take_a_precision_and_overrides(debug_config):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    args = parser.parse_args(["--precision", "bf16", "seed=7", "data.workers=1"])
    assert args.precision == "bf16"
    assert load_config(debug_config, args.overrides).seed == 7
    assert parser.parse_args([]).precision == "auto"
    with pytest.raises(SystemExit):
        parser.parse_args(["--precision", "fp8"])


def test_ctrl_c_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        run_main(lambda: fail(KeyboardInterrupt()))
    assert end.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_user_s_error_within_a_data_worker_is_its_last_line(monkeypatch, capsys):
    monkeypatch.delenv("TRACEBACK", raising=False)

    def failed():
        raise ValueError(
            "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            '  File "x.py", line 1, in read\nValueError: features.npy: damaged, row 3 is not finite\n'
        )

    with pytest.raises(SystemExit) as end:
        run_main(failed)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: features.npy: damaged, row 3 is not finite\n"


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²", "1" * 12, "nan", ""])
def test_an_argument_that_counts_takes_whole_numbers(text):
    assert count("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to"):
        count(text)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "long", ""])
def test_an_argument_that_is_a_time_takes_finite_seconds(text):
    assert seconds("1.5") == 1.5
    with pytest.raises(argparse.ArgumentTypeError, match="expected seconds"):
        seconds(text)


def test_an_error_of_the_system_is_said_without_its_number(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)
    with pytest.raises(SystemExit):
        run_main(lambda: (tmp_path / "none" / "x").write_text(""))
    assert capsys.readouterr().err == f"error: {tmp_path}/none/x: no such file or directory\n"


def test_imports_are_not_searched_for_garbage_when_a_command_ends(repo_root):
    counts = "gc.get_freeze_count(), len(gc.get_objects())"
    code = f"import gc\nfrom utils.cli import run_main\nrun_main(lambda: print({counts}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    frozen, searched = map(int, result.stdout.split())
    assert frozen > 10 * searched
