"""A run that was stopped anywhere continues as if it had not been: bit for bit on CPU fp32."""

import errno
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from commands.training.start import resumed_step
from engine.checkpoints import CheckpointStore
from engine.resume import AVERAGE
from engine.train import train
from modules.build import load_config
from modules.formats.ours import read_checkpoint
from modules.systems.remedies import TEACHER
from tests.engine.interruptions import Interrupted, assert_same, train_interrupted
from train import main
from utils.weights.four_keys import save_checkpoint

TIMEOUT_S = 600  # for a busy machine
ROOT = Path(__file__).resolve().parents[2]
# Dropout and several experts: whatever is random takes part. A checkpoint at every step.
OPTIONS = (
    "data.num_segments=2", "data.batch_size=2", "network.templates=single", "network.drop_out=0.1",
    "network.emb_dropout=0.1", "solver.epochs=2", "solver.lr_warmup_step=0", "logging.print_freq=1",
    "logging.save_minutes=0",
)  # fmt: skip


@pytest.fixture
def build(debug_config, tmp_path, fp32, prepare_run):
    def build(*overrides: str, name: str = "run"):
        config = load_config(debug_config, [f"data.output_path={tmp_path}", *OPTIONS, *overrides])
        return prepare_run(config, fp32, name)

    return build


SYSTEMS = {
    "mote": [],
    "accumulation": ["solver.grad_accumulation_steps=2"],
    "adamw_transformers": ["solver.optim=adamw_transformers"],
    "vificlip": [
        "network.system=vificlip", "network.sim_header=None", "network.fix_text=false", "solver.label_smoothing=0.1",
        "solver.mixup=0.8", "solver.cutmix=1.0", "solver.mix_switch=0.5", "data.transforms=vifi",
    ],
    "ost": [
        "network.system=ost", "network.sim_header=None", "network.fix_text=false", "solver.loss_type=contrast",
        "data.transforms=vifi",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_interrupted_at_any_step_ends_with_the_same_weights(build, debug_descriptors, name):
    options = [*SYSTEMS[name], f"ost.descriptors={debug_descriptors}"]
    whole, run = build(*options, name="whole")
    train(whole, run)
    expected = run.folder / "last_model.pt"

    for steps in (1, 4, 3):  # a new process each time, the last one to the end
        train_interrupted(*build(*options, "resume=auto", name="parts"), steps)
        torch.manual_seed(steps)
    state, run = build(*options, "resume=auto", name="parts")
    assert (state.epoch, state.step) != (0, 0)
    train(state, run)
    assert_same(run.folder / "last_model.pt", expected)


@pytest.mark.slow
def test_a_run_interrupted_in_its_second_epoch_ends_with_the_same_teacher_and_mean(build):
    options = ["loss.relations=0.4", "loss.relations_momentum=0.5", "loss.distill=1", "solver.epoch_average=gaussian"]
    whole, run = build(*options, name="whole")
    train(whole, run)
    parts = [*options, "resume=auto"]
    train_interrupted(*build(*parts, name="parts"), len(run.loader) + 3)
    state, again = build(*parts, name="parts")
    assert (state.epoch, state.step) == (1, 3)
    train(state, again)
    found, expected = (read_checkpoint(each.folder / "last_model.pt") for each in (again, run))
    assert found[AVERAGE]["log_weights"] == expected[AVERAGE]["log_weights"]
    for kept in (lambda content: content[TEACHER], lambda content: content[AVERAGE]["mean"]):
        assert all(torch.equal(kept(found)[name], value) for name, value in kept(expected).items())
    for name in ("last_model.pt", "average_model.pt"):
        assert_same(again.folder / name, run.folder / name)
    assert not torch.equal(expected[TEACHER]["visual.proj"], expected["model_state_dict"]["visual.proj"])


def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before(build, caplog):
    state, run = build("solver.epochs=1")
    train(state, run)
    newest, before = sorted((run.folder / "checkpoints").iterdir(), reverse=True)
    content = newest.read_bytes()
    newest.unlink()  # its other name, last_model.pt, keeps the content
    newest.write_bytes(content[: len(content) // 2])
    path, _ = CheckpointStore(run.folder, keep=2).read_newest()
    assert path == before
    assert newest.name in caplog.text
    assert "trying the one before" in caplog.text


def test_a_checkpoint_with_flipped_bytes_is_passed_over_and_without_another_the_run_does_not_start_anew(build, caplog):
    state, run = build("solver.epochs=1")
    train(state, run)
    store = CheckpointStore(run.folder, keep=2)
    newest, before = sorted(store.folder.iterdir(), reverse=True)
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    newest.unlink()
    newest.write_bytes(content)
    path, _ = store.read_newest()
    assert path == before
    assert "does not have its check sum" in caplog.text
    before.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 2 checkpoints"):
        build("resume=auto")


def test_going_back_to_an_earlier_checkpoint_renames_those_of_the_future_that_is_left(build):
    state, run = build("solver.epochs=1", "logging.keep=3")
    train(state, run)
    early, late, last = sorted((run.folder / "checkpoints").iterdir())
    state, run = build("solver.epochs=1", "logging.keep=1", f"resume={early}")
    run.store.save(state.content(), state.epoch, state.step)
    names = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert names == sorted([early.name, late.name + ".abandoned", last.name + ".abandoned"])


def test_a_run_cut_short_in_validation_validates_when_it_goes_on(build):
    state, run = build("solver.epochs=1")

    def interrupted(model):
        raise Interrupted

    with pytest.raises(Interrupted):
        train(state, replace(run, validate=interrupted))
    state, run = build("solver.epochs=1", "resume=auto")
    assert (state.epoch, state.step) == (1, 0)
    figures = train(state, run)
    assert figures["best_epoch"] == 1
    assert (run.folder / "model_best.pt").exists()
    state, _ = build("solver.epochs=1", "resume=auto")
    assert not state.must_validate


def test_a_process_told_to_stop_in_validation_stops_after_it(build):
    state, run = build()

    def stopped(model):
        os.kill(os.getpid(), signal.SIGTERM)
        return run.validate(model)

    with pytest.raises(SystemExit) as end:
        train(state, replace(run, validate=stopped))
    assert end.value.code == 128 + signal.SIGTERM
    assert (state.epoch, state.step) == (1, 0)


@pytest.mark.parametrize(
    ("step", "was", "now", "expected", "again"),
    [  # was: videos a step, steps an epoch; now: these and the accumulation
        (6, (8, 12), (8, 12, 1), 6, 0),
        (6, (8, 12), (16, 6, 1), 3, 0),
        (5, (8, 12), (16, 6, 1), 2, 8),  # half a batch
        (3, (8, 12), (4, 24, 4), 4, 8),  # half a window
        (2, (4, 3), (4, 3, 8), 0, 8),  # a window longer than an epoch has begun
        (3, (4, 3), (4, 3, 2), 3, 0),  # the last, shorter window
        (3, (4, 3), (4, 3, 8), 3, 0),
        (3, (4, 3), (5, 2, 1), 2, 0),  # of 13 videos: other ones are left over, the epoch is finished
        (2, (5, 2), (4, 3, 2), 3, 0),
        (3, (4, 3), (4, 6, 2), 6, 0),  # twice the list, or another shot_repeat, after the epoch was trained
        (4, (4, 6), (4, 3, 2), 3, 0),  # half the list
        (2, (4, 6), (4, 3, 2), 2, 0),
        (0, (4, 3), (4, 3, 2), 0, 0),
        (3, (), (4, 3, 2), 3, 0),  # older checkpoints tell less
        (2, (), (4, 3, 2), 2, 0),
        (3, (8,), (4, 24, 4), 4, 8),
    ],
)
def test_an_epoch_goes_on_with_batches_of_another_size(step, was, now, expected, again, caplog):
    start = dict(zip(("videos_per_step", "steps_per_epoch"), was, strict=False))
    assert resumed_step(step, start, *now) == expected
    assert (f"{again} videos of this epoch are trained on once more" in caplog.text) == (again > 0)


@pytest.mark.parametrize(
    ("step", "was", "now", "expected"),
    [
        (7, (4, 10), (4, 10, 1), 7),  # nothing has changed: in the middle of a round, too
        (7, (4, 10), (4, 10, 3), 6),
        (10, (4, 10), (4, 10, 3), 10),
        (7, (4, 10), (2, 20, 1), 12),  # three rounds of 4 videos are six of 2
        (7, (2, 20), (4, 10, 1), 2),  # three rounds of 2 are one of 4, and a half
        (20, (2, 20), (4, 10, 1), 10),
    ],
)
def test_an_epoch_of_several_sources_goes_on_with_the_videos_of_the_first(step, was, now, expected):
    start = dict(zip(("videos_per_step", "steps_per_epoch"), was, strict=True))
    assert resumed_step(step, start, *now, turns=2) == expected


@pytest.mark.parametrize(
    ("accumulation", "steps"),
    [(4, range(2)), (8, range(2)), (3, range(2))],
    ids=["the last window is shorter", "a window is longer than an epoch", "windows of one length"],
)
def test_a_save_at_the_last_step_of_an_epoch_goes_on_with_the_epoch_s_end(build, accumulation, steps):
    options = (f"solver.grad_accumulation_steps={accumulation}", "solver.ema=0.9", "logging.keep=50")
    whole, run = build(*options, name="whole")
    train(whole, run)
    for epoch in steps:
        saved = run.folder / "checkpoints" / f"epoch_{epoch:04d}_step_0000006.pt"
        state, parts = build(*options, f"resume={saved}", name=f"after epoch {epoch}")
        assert (state.epoch, state.step) == (epoch, 6)
        validated = []
        validate = parts.validate
        train(state, replace(parts, validate=lambda model, v=validate, to=validated: to.append(0) or v(model)))
        assert len(validated) == 2 * (2 - epoch)  # model and average, once an epoch
        for name in ("last_model.pt", "ema_model.pt"):
            assert_same(parts.folder / name, run.folder / name)
        assert read_checkpoint(parts.folder / "last_model.pt")["step"] == 0


def test_another_training_list_is_said(build, debug_data, tmp_path, caplog):
    state, run = build("solver.epochs=1")
    train(state, run)
    lines = (debug_data / "train.txt").read_text().splitlines()
    (tmp_path / "other.txt").write_text("\n".join(reversed(lines)))
    build("resume=auto", f"data.train_list={debug_data / 'train.txt'}")
    assert "training list is not" not in caplog.text
    build("resume=auto", f"data.train_list={tmp_path / 'other.txt'}")
    assert "training list is not the one of the checkpoint" in caplog.text


def test_a_validation_that_is_made_up_for_is_one_row_of_the_metrics(build):
    state, run = build("solver.epochs=1")
    save = run.store.save

    def interrupted(content, epoch, step):
        if epoch and not content["must_validate"]:
            raise Interrupted
        return save(content, epoch, step)

    run.store.save = interrupted
    with pytest.raises(Interrupted):
        train(state, run)
    state, run = build("solver.epochs=1", "resume=auto")
    train(state, run)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val/top1" in row] == [6]
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5, 6]


def test_what_is_configured_otherwise_than_in_the_checkpoint_is_logged(build, caplog):
    state, run = build("solver.epochs=1")
    train(state, run)
    with caplog.at_level(logging.INFO):
        build("resume=auto", "solver.epochs=1", "solver.lr=0.25", "data.crop_area=[0.5,1.0]")
    said = [record.message for record in caplog.records if record.message.startswith("not as in the checkpoint: ")]
    assert [line.split(": ", 1)[1] for line in said] == [
        "data.crop_area: [0.5, 1.0], was [0.08, 1.0]",
        "solver.lr: 0.25, was 0.001",
    ]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"network": {"sim_header": "Transf"}}, []),  # as older versions wrote the system's own head
        ({"network": {"a_key_of_later": 1}}, ["its configuration, which cannot be compared: "]),
    ],
)
def test_a_checkpoint_with_the_configuration_of_another_version_goes_on(build, caplog, added, said):
    state, run = build("solver.epochs=1")
    train(state, run)
    newest = max(run.store.folder.glob("*.pt"))
    checkpoint = torch.load(newest, weights_only=True)
    tree = yaml.safe_load(checkpoint["config"])
    for section, keys in added.items():
        tree[section] |= keys
    torch.save(checkpoint | {"config": yaml.safe_dump(tree)}, newest)
    with caplog.at_level(logging.INFO):
        build("resume=auto", "solver.epochs=1")
    found = [record.message for record in caplog.records if record.message.startswith("not as in the checkpoint: ")]
    assert len(found) == len(said)
    assert all(start in line for start, line in zip(said, found, strict=True))


@pytest.mark.parametrize("change", ["solver.optim=sgd", "network.fix_video=true"])
def test_another_optimizer_or_other_parameters_cannot_be_resumed(build, change):
    state, run = build("solver.epochs=1")
    train(state, run)
    with pytest.raises(ValueError, match=r"resume: the checkpoint's optimizer is of another kind.*use pretrain"):
        build("resume=auto", change)


def test_a_restarted_process_without_a_checkpoint_begins_where_its_run_did(build, monkeypatch):
    state, run = build("solver.epochs=1", name="first")
    train(state, run)
    last = str(run.folder / "last_model.pt")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    state, _ = build(f"resume={last}", name="second")
    assert state.epoch == 1


def test_a_run_is_continued_by_its_name(debug_config, tmp_path):
    with pytest.raises(ValueError, match="--log_time"):
        main(["--config", str(debug_config), f"data.output_path={tmp_path}", "resume=auto"])


def test_only_the_newest_checkpoints_are_kept(build):
    state, run = build("solver.epochs=1", "logging.keep=3")
    train(state, run)
    names = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert names == ["epoch_0000_step_0000005.pt", "epoch_0000_step_0000006.pt", "epoch_0001_step_0000000.pt"]


def test_a_full_disk_is_an_error_and_the_checkpoints_before_are_intact(build):
    state, run = build("solver.epochs=1")
    train(state, run)
    last = run.folder / "last_model.pt"
    before = last.read_bytes()
    state, run = build("resume=auto")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match=r"could not write .*\(File too large\); checkpoints written before are int"):
            train(state, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert last.read_bytes() == before
    assert not list(run.folder.rglob("*.part"))
    assert CheckpointStore(run.folder, keep=2).read_newest()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_torch_s_report_of_a_full_disk_gets_its_reason(tmp_path, monkeypatch, number):
    def save(content, file):
        try:
            raise OSError(number, os.strerror(number))
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match=rf"could not write {tmp_path}/x.pt \({os.strerror(number)}\)"):
        save_checkpoint(tmp_path / "x.pt", {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def uninterrupted(debug_config, tmp_path_factory) -> Path:
    """The last checkpoint of a run in a process of its own that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(debug_config, folder).wait() == 0
    return folder / "debug/tiny_clip/run/last_model.pt"


def start(config: Path, folder: Path, *launcher: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *launcher, str(ROOT / "train.py"), "--config", str(config), "--log_time", "run"]
    command += ["--precision", "fp32", f"data.output_path={folder}", *OPTIONS, "resume=auto", *overrides]
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    """Until a checkpoint of that step (counted over epochs of 6 steps) has been written."""
    name = f"epoch_{step // 6:04d}_step_{step % 6:07d}.pt"
    deadline = time.monotonic() + 120
    while not any(path.name >= name for path in folder.rglob("epoch_*.pt")):
        assert process.poll() is None, (folder / "output.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_process_continues_to_the_same_weights(debug_config, tmp_path, uninterrupted):
    for step in (2, 7):
        process = start(debug_config, tmp_path)
        wait_for_step(tmp_path, step, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(debug_config, tmp_path).wait() == 0
    assert_same(tmp_path / "debug/tiny_clip/run/last_model.pt", uninterrupted)


@pytest.mark.parametrize(
    "send", [os.kill, pytest.param(os.killpg, marks=pytest.mark.slow)], ids=["process", "with its data workers"]
)
def test_a_terminated_process_saves_and_ends_with_the_signal_s_code(debug_config, tmp_path, uninterrupted, send):
    process = start(debug_config, tmp_path, overrides=("logging.save_minutes=60", "data.workers=2"))
    deadline = time.monotonic() + 120
    while "step 2/6" not in (tmp_path / "output.txt").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    send(process.pid, signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert "stopped by a signal" in (tmp_path / "output.txt").read_text()
    assert len(list(tmp_path.rglob("epoch_*.pt"))) == 1
    assert start(debug_config, tmp_path).wait() == 0
    assert_same(tmp_path / "debug/tiny_clip/run/last_model.pt", uninterrupted)


@pytest.mark.slow
def test_a_launcher_told_to_stop_lets_its_processes_save(debug_config, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    overrides = ("data.batch_size=1", "logging.save_minutes=60", "solver.epochs=50", "data.workers=2")
    process = start(debug_config, tmp_path, *launcher, overrides=overrides)
    deadline = time.monotonic() + 120
    while "step 2/6" not in (tmp_path / "output.txt").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.terminate()  # torchrun signals the process groups of its workers
    assert process.wait() != 0
    output = (tmp_path / "output.txt").read_text()
    assert "stopped by a signal" in output
    assert "DataLoader worker" not in output
    assert CheckpointStore(tmp_path / "debug/tiny_clip/run", keep=2).read_newest()


def children(pid: int) -> list[int]:
    return [int(child) for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True).stdout.split()]


def test_a_data_worker_that_dies_while_a_checkpoint_is_written_is_not_an_error_of_writing(build):
    state, run = build("solver.epochs=50", "data.workers=1")
    save, saved = run.store.save, []

    def killing(*arguments):
        os.kill(run.loader._iterator._workers[0].pid, signal.SIGKILL)
        time.sleep(0.3)
        saved.append(save(*arguments))

    run.store.save = killing
    with pytest.raises(ChildProcessError, match=r"a data worker died or hung .*SIGKILL"):
        train(state, run)
    assert read_checkpoint(saved[-1])
    run.loader.close()


@pytest.mark.slow
def test_a_data_worker_that_dies_is_one_clear_error(debug_config, tmp_path):
    process = start(debug_config, tmp_path, overrides=("solver.epochs=500", "data.workers=2"))
    wait_for_step(tmp_path, 2, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(TIMEOUT_S) == 2
    output = (tmp_path / "output.txt").read_text()
    assert output.splitlines()[-1].startswith("error: a data worker died or hung")
    assert "Traceback" not in output
    assert not list(tmp_path.rglob("run.lock"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_data_worker_that_dies_ends_all_processes(debug_config, tmp_path, rank):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    overrides = ("data.batch_size=1", "solver.epochs=500", "data.workers=1")
    process = start(debug_config, tmp_path, *launcher, overrides=overrides)
    wait_for_step(tmp_path, 2, process)
    os.kill(children(children(process.pid)[rank])[0], signal.SIGKILL)
    assert process.wait(TIMEOUT_S) != 0
    assert (tmp_path / "output.txt").read_text().count("error: a data worker died or hung") == 1


def test_a_successful_run_ends_with_its_summary(debug_config, tmp_path):
    assert start(debug_config, tmp_path, overrides=("solver.epochs=1", "data.workers=2")).wait(TIMEOUT_S) == 0
    output = (tmp_path / "output.txt").read_text()
    assert "test the best: " in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not list(tmp_path.rglob("run.lock"))


@pytest.mark.slow
def test_a_compiled_run_ends_with_its_summary(debug_config, tmp_path):
    overrides = ("solver.epochs=1", "data.workers=2", "network.compile=true")
    assert start(debug_config, tmp_path, overrides=overrides).wait(TIMEOUT_S) == 0
    assert "test the best: " in (tmp_path / "output.txt").read_text().splitlines()[-1]


@pytest.mark.slow
def test_one_folder_has_one_run_and_a_killed_one_s_is_free_at_once(debug_config, tmp_path):
    first = start(debug_config, tmp_path, overrides=("solver.epochs=500",))
    wait_for_step(tmp_path, 2, first)
    part = tmp_path / "debug/tiny_clip/run/checkpoints/.stranger.part"
    (tmp_path / "second").mkdir()
    with (tmp_path / "second" / "output.txt").open("w") as output:
        second = subprocess.run(first.args, stdout=output, stderr=output, timeout=TIMEOUT_S, check=False)
    last = (tmp_path / "second" / "output.txt").read_text().splitlines()[-1]
    assert second.returncode == 2
    assert last.startswith(f"error: {tmp_path}/debug/tiny_clip/run is in use by another run: process {first.pid} on ")
    assert first.poll() is None
    first.kill()
    first.wait()
    part.write_text("left by the killed run")
    epoch = int(max(path.name for path in tmp_path.rglob("epoch_*.pt"))[6:10])
    begun = time.monotonic()
    assert start(debug_config, tmp_path, overrides=(f"solver.epochs={epoch + 1}",)).wait(TIMEOUT_S) == 0
    assert time.monotonic() - begun < 120
    assert not part.exists()
    assert "took over the lock of a run that is gone" in (tmp_path / "output.txt").read_text()


@pytest.mark.slow
def test_a_launch_with_restarts_does_not_go_on_with_somebody_else_s_run(debug_config, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "--max_restarts", "1")
    assert start(debug_config, tmp_path, *launcher).wait() == 0
    config = tmp_path / "debug/tiny_clip/run/config.yaml"
    before = config.read_text()
    assert start(debug_config, tmp_path, *launcher, overrides=("resume=", "solver.lr=0.5")).wait() != 0
    assert "already holds a run" in (tmp_path / "output.txt").read_text()
    assert config.read_text() == before


@pytest.mark.slow
def test_torchrun_restarts_after_a_killed_worker_and_ends_with_the_same_weights(debug_config, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--max_restarts", "2")
    overrides = ("data.batch_size=1",)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert start(debug_config, whole, *launcher, overrides=overrides).wait() == 0

    process = start(debug_config, parts, *launcher, overrides=overrides)
    wait_for_step(parts, 4, process)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert process.wait() == 0, (parts / "output.txt").read_text()
    assert "starting from" in (parts / "output.txt").read_text()
    assert_same(*(folder / "debug/tiny_clip/run/last_model.pt" for folder in (parts, whole)))


def test_the_configuration_s_weight_decay_and_lr_ratio_win_over_the_checkpoint_s(build):
    state, run = build("solver.epochs=1")
    train(state, run)
    state, _ = build("resume=auto", "solver.weight_decay=0.5", "solver.clip_ratio=0.3")
    assert [group["weight_decay"] for group in state.optimizer.param_groups] == [0.5, 0.5, 0.5]
    assert [group["lr_ratio"] for group in state.optimizer.param_groups] == [0.3, 1.0, 0.3]
    assert state.optimizer.state_dict()["state"]  # the moments are the checkpoint's


def test_a_run_of_another_precision_can_be_resumed_in_fp16(build):
    state, run = build("solver.epochs=1")
    train(state, run)
    state, run = build("resume=auto")
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    replace(state, scaler=scaler).resume(read_checkpoint(run.folder / "last_model.pt"))
    assert scaler.is_enabled()
