"""Commands one after the other in one process."""

import gc
import json
import multiprocessing

import pytest

from tools.demo.in_turn import command, main


def test_commands_run_in_turn_with_their_arguments(debug_config, tmp_path):
    config = str(debug_config)
    tests = [["test.py", "--config", config, "--weights", "clip", "--output", str(tmp_path / name)] for name in "ab"]
    main([*tests[0], ",", *tests[1], "--test_clips", "2"])
    views = [json.loads((tmp_path / name / "results.json").read_text())["num_clips"] for name in "ab"]
    assert views == [1, 2]


def test_training_leaves_no_worker_behind_for_the_next_command(debug_config, tmp_path):
    before = set(multiprocessing.active_children())
    gc.disable()  # what training leaves is in cycles
    try:
        command("train.py")(["--config", str(debug_config), f"data.output_path={tmp_path}", "data.workers=1"])
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_imports_of_the_commands_are_not_searched_for_garbage_at_the_end(monkeypatch):
    frozen = []
    monkeypatch.setattr("tools.demo.in_turn.command", lambda name: lambda words: frozen.append(gc.get_freeze_count()))
    gc.unfreeze()
    main(["test.py"])
    assert frozen[0] > 0


@pytest.mark.parametrize("name", ["tests.py", "test", "../test.py", "README.md", ""])
def test_what_is_no_command_is_an_error_before_the_first(name):
    with pytest.raises(ValueError, match=r"expected a command, test\.py for example, found"):
        command(name)
    with pytest.raises(ValueError, match="expected a command"):
        main(["test.py", ",", name])
