"""Training state that cannot be, in a checkpoint: one line that names file and entry, before any of it is used."""

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.optim import build_optimizer
from engine.resume import check_place
from engine.sharding import shard
from engine.state import TrainState
from engine.train import train
from modules.build import load_config
from modules.formats.ours import read_checkpoint
from utils.distributed import process_group

OPTIONS = ["data.num_segments=2", "network.templates=single", "solver.epochs=1", "solver.ema=0.9"]


@pytest.fixture(scope="module")
def run(debug_config, fp32, prepare_run, tmp_path_factory) -> tuple[TrainState, dict]:
    """A state to resume into, and a checkpoint that fits."""
    folder = tmp_path_factory.mktemp("runs")
    config = load_config(debug_config, [f"data.output_path={folder}", *OPTIONS])
    state, training = prepare_run(config, fp32, "run")
    train(state, training)
    return state, read_checkpoint(training.folder / "last_model.pt")


@pytest.fixture
def checkpoint(run) -> dict:
    """A checkpoint to damage."""
    return copy.deepcopy(run[1])


def moments(**changes) -> Callable[[dict], None]:
    """Change the state of parameter 3; a function gets the old value, None removes the entry."""

    def damage(checkpoint: dict) -> None:
        entry = checkpoint["optimizer_state_dict"]["state"][3]
        for name, change in changes.items():
            if change is None:
                del entry[name]
            else:
                entry[name] = change(entry[name]) if callable(change) else change

    return damage


def part(name: str, change) -> Callable[[dict], None]:
    """Change an entry of the checkpoint in place, or replace it."""

    def damage(checkpoint: dict) -> None:
        if callable(change):
            change(checkpoint[name])
        else:
            checkpoint[name] = change

    return damage


def remove(name: str) -> Callable[[dict], None]:
    return lambda checkpoint: checkpoint.pop(name)


def with_state(change: Callable[[dict], object]) -> Callable[[dict], None]:
    return lambda checkpoint: change(checkpoint["optimizer_state_dict"]["state"])


def with_groups(change: Callable[[list], object]) -> Callable[[dict], None]:
    return lambda checkpoint: change(checkpoint["optimizer_state_dict"]["param_groups"])


def with_scaler(**changes) -> Callable[[dict], None]:
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    return part("scaler_state_dict", scaler | {"_growth_tracker": 0} | changes)


NAN, INF = float("nan"), float("inf")
# What is wrong -> how the checkpoint comes to it, and what the error names.
DAMAGES = {
    "moments of three elements": (moments(exp_avg=torch.zeros(3)), "exp_avg is"),
    "moments of more elements": (moments(exp_avg_sq=torch.zeros(10**6)), "exp_avg_sq is"),
    "moments transposed": (moments(exp_avg=lambda value: value.reshape(-1)), "exp_avg is"),
    "moments of a scalar": (moments(exp_avg=torch.tensor(0.0)), "exp_avg is"),
    "moments in half precision": (moments(exp_avg=lambda value: value.half()), "exp_avg is torch.float16"),
    "moments of integers": (moments(exp_avg=lambda value: value.long()), "exp_avg is int64"),
    "moments of complex numbers": (moments(exp_avg=lambda value: value.cfloat()), "exp_avg is complex64"),
    "moments without values": (moments(exp_avg=lambda value: value.to("meta")), "exp_avg holds no values"),
    "sparse moments": (moments(exp_avg=lambda value: value.to_sparse()), "exp_avg is a tensor of another kind"),
    "moments that repeat a value": (moments(exp_avg=lambda v: torch.zeros(1).expand(v.shape)), "exp_avg of shape"),
    "moments of NaN": (moments(exp_avg=lambda value: value * NAN), "exp_avg is not finite"),
    "negative squares": (moments(exp_avg_sq=lambda value: value - 1), "exp_avg_sq"),
    "moments that are a list": (moments(exp_avg=[0.0]), "exp_avg is of type list"),
    "no moments": (moments(exp_avg=None), "expected exp_avg, exp_avg_sq, step"),
    "more moments": (moments(max_exp_avg_sq=torch.zeros(1)), "max_exp_avg_sq"),
    "an optimizer step below 0": (moments(step=torch.tensor(-1.0)), "step: expected a number of steps, found -1"),
    "an optimizer step that is NaN": (moments(step=torch.tensor(NAN)), "step is not finite"),
    "an optimizer step that is huge": (moments(step=torch.tensor(1e30)), "step: expected a number of steps"),
    "half an optimizer step": (moments(step=torch.tensor(1.5)), "step: expected a number of steps, found 1.5"),
    "an optimizer step that is a text": (moments(step="3"), "step is of type str"),
    "optimizer steps of a vector": (moments(step=torch.zeros(2)), "step is"),
    "an entry that is no dict": (with_state(lambda state: state.update({3: 7})), "expected exp_avg"),
    "a parameter's state missing": (with_state(lambda state: state.pop(3)), "state of parameter 3 is missing"),
    "a parameter too much": (with_state(lambda state: state.update({10**6: state[3]})), "parameter 1000000"),
    "a parameter below 0": (with_state(lambda state: state.update({-1: state[3]})), "parameter -1"),
    "a parameter by name": (with_state(lambda state: state.update({"3": state[3]})), "parameter '3'"),
    "states exchanged": (with_state(lambda state: state.update({0: state[1], 1: state[0]})), "exp_avg is"),
    "states as a list": (part("optimizer_state_dict", lambda saved: saved.update(state=[])), "optimizer_state_dict"),
    "no groups": (part("optimizer_state_dict", lambda saved: saved.pop("param_groups")), "optimizer_state_dict"),
    "an optimizer that is a list": (part("optimizer_state_dict", [1]), "optimizer_state_dict"),
    "no optimizer": (remove("optimizer_state_dict"), "no training state"),
    "a group that is a number": (with_groups(lambda groups: groups.append(3)), "param_groups"),
    "a group without parameters": (with_groups(lambda groups: groups[0].pop("params")), "param_groups"),
    "a group too few": (with_groups(lambda groups: groups.pop()), "optimizer is of another kind"),
    "parameters in another order": (with_groups(lambda groups: groups[0]["params"].reverse()), "params: expected 0"),
    "a parameter twice": (with_groups(lambda groups: groups[0]["params"].__setitem__(0, 1)), "params: expected 0"),
    "a parameter that is a tensor": (
        with_groups(lambda groups: groups[0]["params"].__setitem__(0, torch.zeros(2))), "param_groups",
    ),
    "an optimizer that is a tensor": (part("optimizer_state_dict", torch.zeros(2)), "optimizer_state_dict"),
    "keys of a group that are numbers": (with_groups(lambda groups: groups[0].update({1: 2})), "param_groups"),
    "a step below 0": (part("step", -1), "step: expected a number of steps, found int -1"),
    "a step that is huge": (part("step", 10**400), "step: expected a number of steps"),
    "a step that is NaN": (part("step", NAN), "step: expected a number of steps, found float nan"),
    "a step that is a float": (part("step", 1.0), "step: expected a number of steps, found float 1.0"),
    "a step that is a text": (part("step", "1"), "step: expected a number of steps, found str 1"),
    "a step that is a tensor": (part("step", torch.tensor(1)), "step: expected a number of steps, found a tensor"),
    "no step": (remove("step"), "no training state"),
    "an epoch below -1": (part("epoch", -2), "epoch: expected the last finished epoch"),
    "an epoch that is true": (part("epoch", True), "epoch: expected the last finished epoch"),
    "an epoch that is a float": (part("epoch", -1.0), "epoch: expected the last finished epoch"),
    "an epoch that is a text": (part("epoch", "0"), "epoch: expected the last finished epoch"),
    "an epoch that is absurd": (part("epoch", 10**12), "epoch: expected the last finished epoch"),
    "a best figure of NaN": (part("best_top1", NAN), "best_top1: expected a percentage"),
    "a best figure without bound": (part("best_top1", INF), "best_top1: expected a percentage"),
    "a best figure of None": (part("best_top1", None), "best_top1: expected a percentage"),
    "a best epoch of a text": (part("best_epoch", "2"), "best_epoch: expected a number of epochs"),
    "validation that is a number": (part("must_validate", 2), "must_validate: expected true or false"),
    "no videos in a step": (part("videos_per_step", 0), "videos_per_step: expected a positive number"),
    "videos of a step as a list": (part("videos_per_step", [8]), "videos_per_step: expected a positive number"),
    "a scaler that is a list": (part("scaler_state_dict", [1]), "scaler_state_dict: expected scale"),
    "a scaler of other keys": (part("scaler_state_dict", {"scale": 1.0}), "scaler_state_dict: expected scale"),
    "a scale of 0": (with_scaler(scale=0.0), "scaler_state_dict: scale"),
    "a scale of NaN": (with_scaler(scale=NAN), "scaler_state_dict: scale"),
    "a growth of a text": (with_scaler(growth_factor="2"), "scaler_state_dict: growth_factor"),
    "averages that are a list": (part("ema", [1]), "ema: expected model_state_dict"),
    "averages without a part": (part("ema", lambda ema: ema.pop("model_state_dict")), "ema: expected"),
    "averages of NaN": (
        part("ema", lambda ema: ema["model_state_dict"]["visual.proj"].fill_(NAN)), "ema: visual.proj is not finite",
    ),
    "averages of no count": (part("ema", lambda ema: ema.pop("n_averaged")), "n_averaged"),
    "averages of a negative count": (part("ema", lambda e: e.update(n_averaged=torch.tensor(-1))), "n_averaged"),
    "averages of half a count": (part("ema", lambda e: e.update(n_averaged=torch.tensor(1.5))), "n_averaged"),
    "averages of two counts": (part("ema", lambda e: e.update(n_averaged=torch.ones(2).long())), "n_averaged"),
    "averages of a text": (part("ema", lambda e: e.update(n_averaged="3")), "n_averaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGES)
def test_training_state_that_cannot_be_is_named_and_changes_nothing(run, checkpoint, case):
    state, _ = run
    damage, message = DAMAGES[case]
    damage(checkpoint)
    before = copy.deepcopy(state.optimizer.state_dict())
    with pytest.raises(ValueError, match=r"^checkpoint bad\.pt: ") as error:
        state.resume(checkpoint, "bad.pt")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    after = state.optimizer.state_dict()
    assert all(torch.equal(after["state"][3][name], value) for name, value in before["state"][3].items())


def test_whole_training_state_is_resumed(run, checkpoint):
    state, _ = run
    state.resume(checkpoint, "good.pt")
    found = state.optimizer.state_dict()["state"]
    for number, entry in checkpoint["optimizer_state_dict"]["state"].items():
        assert all(torch.equal(found[number][name], value) for name, value in entry.items())
    with_scaler()(checkpoint)
    state.resume(checkpoint, "good.pt")
    checkpoint["optimizer_state_dict"]["state"].clear()  # as before the first update
    state.resume(checkpoint, "good.pt")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"epoch": 4, "step": 0}, r"epoch: 5 epochs are finished, but solver\.epochs is 4"),
        ({"epoch": 0, "step": 7, "videos_per_step": 2}, r"step: 7 steps of 2 videos are done of an epoch.* 12 videos"),
        ({"epoch": 0, "step": 4}, r"step: 4 steps of 4 videos"),
    ],
)
def test_a_place_beyond_the_run_is_named(where, message):
    with pytest.raises(ValueError, match=rf"^checkpoint x: {message}"):
        check_place(where, epochs=4, num_videos=12, videos_per_step=4, source="checkpoint x")


def test_places_within_the_run_are_fine():
    for where in ({"epoch": 3, "step": 0}, {"epoch": -1, "step": 3}, {"epoch": 0, "step": 6, "videos_per_step": 2}):
        check_place(where, epochs=4, num_videos=12, videos_per_step=4, source="checkpoint x")


@pytest.mark.parametrize("options", [["solver.optim=sgd"], ["solver.optim=adam", "network.fix_text=false"],
                                     ["solver.optim=adamw_transformers"],
                                     ["network.joint_st=true", "network.sim_header=None"]])  # fmt: skip
def test_every_trained_parameter_has_its_state(debug_config, fp32, prepare_run, tmp_path, options):
    """So that a missing one is an error."""
    config = load_config(debug_config, [f"data.output_path={tmp_path}", *OPTIONS, *options])
    state, training = prepare_run(config, fp32, "run")
    train(state, training)
    state, _ = prepare_run(replace(config, resume=str(training.folder / "last_model.pt")), fp32, "again")
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    assert len(state.optimizer.state_dict()["state"]) == len(parameters)


def test_momentum_of_another_shape_is_named(run):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2, 3))], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2, 3)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["momentum_buffer"] = torch.zeros(3)
    checkpoint = {"epoch": 0, "step": 0, "best_top1": 0.0, "scaler_state_dict": {}, "optimizer_state_dict": saved}
    state = TrainState(torch.nn.Linear(1, 1), optimizer, torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(ValueError, match=r"momentum_buffer is torch\.float32 \[3\], its parameter takes .* \[2, 3\]"):
        state.resume(checkpoint, "x")


def test_sharded_parameters_take_no_state_of_another_shape(
    debug_config, fp32, prepare_run, tmp_path, checkpoint, monkeypatch
):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    config = load_config(debug_config, [f"data.output_path={tmp_path}", *OPTIONS, "solver.ema=0"])
    state, _ = prepare_run(config, fp32, "run")
    with process_group(60):
        shard(state.model, state.model.blocks())
        state = replace(state, optimizer=build_optimizer(state.model.groups(), config.solver))
        state.resume(checkpoint, "good.pt")
        moments(exp_avg=torch.zeros(3))(checkpoint)
        with pytest.raises(ValueError, match=r"^checkpoint bad\.pt: .*parameter 3: exp_avg is torch\.float32 \[3\]"):
            state.resume(checkpoint, "bad.pt")


@pytest.mark.slow
def test_a_run_with_state_of_another_shape_ends_in_one_line(debug_config, repo_root, checkpoint, tmp_path):
    for entry in checkpoint["optimizer_state_dict"]["state"].values():
        entry["exp_avg"] = torch.zeros(3)
    torch.save(checkpoint | {"epoch": -1, "step": 0}, tmp_path / "bad.pt")
    command = [sys.executable, str(repo_root / "train.py"), "--config", str(debug_config), "--precision", "fp32"]
    command += [f"data.output_path={tmp_path}", f"resume={tmp_path / 'bad.pt'}", *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: checkpoint {tmp_path / 'bad.pt'}: optimizer_state_dict: ")


def test_averages_are_taken_on_with_their_count(run, checkpoint):
    state, _ = run
    ema = AveragedModel(state.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    replace(state, ema=ema).resume(checkpoint, "good.pt")
    assert ema.n_averaged == checkpoint["ema"]["n_averaged"] > 0
