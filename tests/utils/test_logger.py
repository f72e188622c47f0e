"""Logging: one set of handlers, metric rows on disk, progress that yields everything."""

import contextlib
import json
import logging
from pathlib import Path

import pytest

from utils.logger import MetricWriter, progress, setup_logging


@pytest.fixture
def restored_logging():
    """The root logger as it was, after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_setting_up_twice_logs_each_line_once(restored_logging, tmp_path, capsys):
    setup_logging()
    setup_logging(tmp_path / "log.txt")
    logging.getLogger("some.module").info("hello")
    assert capsys.readouterr().err.count("hello") == 1
    assert (tmp_path / "log.txt").read_text().count("hello") == 1


def test_metrics_are_rows_of_json(tmp_path):
    for step in (1, 2):  # a resumed run appends
        writer = MetricWriter(tmp_path)
        writer.write(step, {"train/loss": 0.5 * step})
        writer.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": 1.0}]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_run_that_goes_on_drops_rows_beyond_its_start_and_unfinished_ones(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 1, "train/lo')
    MetricWriter(tmp_path, step=2).close()
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_metrics_that_cannot_be_written_are_warned_of_once(tmp_path, caplog):
    writer = MetricWriter(tmp_path)
    writer._file.close()
    writer._file = open("/dev/full", "a", buffering=1)  # noqa: SIM115
    for step in (1, 2):
        writer.write(step, {"train/loss": 1.0})
    writer._tensorboard.add_scalar = fail
    for step in (3, 4):
        writer.write(step, {"train/loss": 1.0})
    writer._tensorboard.close = fail
    writer.close()
    assert caplog.text.count("could not write /dev/full (No space left on device); the run goes on") == 1
    assert caplog.text.count(f"could not write TensorBoard's files in {tmp_path} (no space here)") == 1


def fail(*args) -> None:
    raise OSError(28, "no space here")


def test_a_log_file_that_cannot_be_written_is_said_once(restored_logging, capsys):
    setup_logging(Path("/dev/full"))
    for number in range(3):
        logging.getLogger("some.module").info("hello %d", number)
    setup_logging()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert sum("could not write /dev/full (No space left on device); the run goes on" in line for line in lines) == 1


def test_a_console_that_is_gone_ends_nothing(restored_logging, monkeypatch):
    setup_logging()
    with open("/dev/full", "w", buffering=1) as gone:
        monkeypatch.setattr("sys.stderr", gone)
        logging.getLogger("some.module").info("hello")
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            gone.close()


def test_rows_of_a_validation_that_comes_again_are_dropped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "val/top1": 1}\n{"step": 2, "train/loss": 1}\n{"step": 2, "val/top1": 1}\n')
    MetricWriter(tmp_path, step=2, again="val/").close()
    assert file.read_text() == '{"step": 1, "val/top1": 1}\n{"step": 2, "train/loss": 1}\n'


def test_progress_yields_everything_and_logs_every_few_items(caplog):
    with caplog.at_level(logging.INFO):
        assert list(progress([1, 2, 3, 4, 5], "test", 5, every=2)) == [1, 2, 3, 4, 5]
    assert [record.message for record in caplog.records] == ["test 2/5", "test 4/5"]
