"""However the processes share the work, training gives the same weights."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip.trunk import fit_size
from engine.resume import AVERAGE
from engine.train import train
from modules.build import load_config
from modules.formats.ours import read_checkpoint
from modules.systems.remedies import TEACHER
from tests.clip.members import description, reference_of, save_member
from train import main
from utils.distributed import process_group
from utils.precision import Precision

pytestmark = pytest.mark.slow
TIMEOUT_S = 240
# Five steps of batches of 8 from 40 videos, with the experts and all losses.
RECIPE = ["--precision", "fp32", "network.templates=single", "data.random_shift=false", "solver.lr_warmup_step=0",
          "solver.draws=shared", "solver.clip_ratio=1.0", "logging.print_freq=1"]  # fmt: skip


@pytest.fixture
def run_train(repo_root, debug_config, debug_data, tmp_path):
    """Run train.py on some processes; returns its last checkpoint."""
    lines = (debug_data / "train.txt").read_text().splitlines()
    (tmp_path / "train.txt").write_text("\n".join((lines * 4)[:40]))

    def run(name: str, processes: int, *overrides: str) -> dict:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), str(repo_root / "train.py")]
        command += ["--config", str(debug_config), "--log_time", name, f"data.output_path={tmp_path}"]
        command += [f"data.train_list={tmp_path / 'train.txt'}", *RECIPE, *overrides]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return read_checkpoint(next(tmp_path.rglob(f"{name}/last_model.pt")))

    return run


def largest_difference(one: dict, other: dict) -> float:
    parts = ("model_state_dict", "fusion_model_state_dict")
    assert all(one[part].keys() == other[part].keys() for part in parts)
    return max((one[part][name] - other[part][name]).abs().max().item() for part in parts for name in one[part])


def test_processes_and_accumulation_share_a_batch_without_a_difference(run_train, debug_data):
    # Plain gradient descent: AdamW's first steps turn rounding errors of tiny gradients into whole steps.
    recipe = ["solver.epochs=1", "solver.optim=sgd", "solver.lr=0.02"]
    whole = run_train("whole", 1, "data.batch_size=8", *recipe)
    assert largest_difference(whole, run_train("two", 2, "data.batch_size=4", *recipe)) < 1e-5
    halves = run_train("halves", 1, "data.batch_size=4", "solver.grad_accumulation_steps=2", *recipe)
    assert largest_difference(whole, halves) < 1e-5
    sharded = run_train("sharded", 2, "data.batch_size=2", "solver.grad_accumulation_steps=2", "solver.strategy=fsdp",
                        "solver.clip_grad_norm=1e9", *recipe)  # fmt: skip
    assert largest_difference(whole, sharded) < 1e-5
    start = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    moved = [(tensor - start[name].float()).abs().max() for name, tensor in whole["model_state_dict"].items()]
    assert max(moved) > 1e-3


def test_distances_from_clip_and_relations_to_anchors_are_shared_without_a_difference(run_train):
    # Draws of each process: anchors are alike on all, other than experts, which this system has not. At a temperature
    # of 0.01 a hundredfold of the rounding errors would be in the gradients.
    recipe = ["network.system=clip", "network.sim_header=transformer", "solver.epochs=1", "solver.optim=sgd",
              "solver.lr=0.02", "solver.draws=rank", "loss.distill=2", "loss.head_mse=1", "loss.relations=5",
              "loss.relations_momentum=0.9", "solver.epoch_average=uniform",
              "loss.relations_temperature=0.1"]  # fmt: skip
    whole = run_train("whole", 1, "data.batch_size=8", *recipe)
    two = run_train("two", 2, "data.batch_size=4", *recipe)
    assert largest_difference(whole, two) < 1e-5
    for found, expected in ((two[TEACHER], whole[TEACHER]), (two[AVERAGE]["mean"], whole[AVERAGE]["mean"])):
        assert max((found[name] - value).abs().max() for name, value in expected.items()) < 1e-5
    without = run_train("without", 1, "data.batch_size=8", *recipe, "loss.relations=0")
    assert largest_difference(whole, without) > 1e-4


def test_sharded_runs_have_the_mean_over_epochs_of_replicated_ones_and_continue_each_other(run_train, tmp_path):
    recipe = ["data.batch_size=4", "solver.optim=sgd", "solver.lr=0.02", "solver.epoch_average=gaussian",
              "loss.distill=1", "solver.epochs=2"]  # fmt: skip
    whole = run_train("ddp", 2, *recipe)
    sharded = run_train("fsdp", 2, *recipe, "solver.strategy=fsdp")
    first = tmp_path / "debug" / "tiny_clip" / "ddp" / "checkpoints" / "epoch_0001_step_0000000.pt"
    resumed = run_train("resumed", 2, *recipe, "solver.strategy=fsdp", f"resume={first}")
    expected = whole[AVERAGE]["mean"]
    for found in (sharded, resumed):
        assert found[AVERAGE]["log_weights"] == whole[AVERAGE]["log_weights"]
        assert found[AVERAGE]["mean"].keys() == expected.keys()
        assert max((found[AVERAGE]["mean"][name] - value).abs().max() for name, value in expected.items()) < 1e-5
    files = [read_checkpoint(tmp_path / "debug" / "tiny_clip" / name / "average_model.pt") for name in ("ddp", "fsdp")]
    assert largest_difference(*files) < 1e-5
    assert largest_difference(files[0], whole) > 1e-3
    name = "visual.proj"
    assert torch.equal(files[1]["model_state_dict"][name], sharded[AVERAGE]["mean"][name])


def test_a_space_time_tower_is_shared_without_a_difference(run_train):
    recipe = ["network.system=clip", "network.tower=divided", "network.sim_header=None", "solver.epochs=1",
              "solver.optim=sgd", "solver.lr=0.02"]  # fmt: skip
    whole = run_train("whole", 1, "data.batch_size=8", *recipe)
    assert "visual.transformer.resblocks.0.timeattn.in_proj_weight" in whole["model_state_dict"]
    assert largest_difference(whole, run_train("two", 2, "data.batch_size=4", *recipe)) < 1e-5
    sharded = run_train("sharded", 2, "data.batch_size=4", "solver.strategy=fsdp", *recipe)
    assert largest_difference(whole, sharded) < 1e-5


# Processes of their own build these, so their trunks are timm's own.
MEMBERS = {"a trunk of timm": "PE-Core-T", "open_clip's own tower": "CLIPA"}


def write_member(family: str, folder: Path) -> str:
    """A member of a family for pictures of 32 pixels, with CLIP's tokens; its ``network.arch``."""
    tree = description(family)
    tree["model_cfg"]["vision_cfg"]["image_size"] = 32
    text = {"hf_tokenizer_name": None, "tokenizer_kwargs": None, "vocab_size": 49408, "pool_type": "argmax"}
    tree["model_cfg"]["text_cfg"] |= text
    reference = reference_of(tree)
    fit_size(reference.visual, 32, family)
    return save_member(folder, tree, reference)


@pytest.mark.parametrize("kind", MEMBERS)
def test_towers_of_open_clip_are_shared_and_continued_without_a_difference(kind, run_train, tmp_path):
    arch = write_member(MEMBERS[kind], tmp_path / "member")
    recipe = [f"network.arch={arch}", "data.transforms=tower", "data.input_size=32", "network.fix_text=false",
              "solver.epochs=2", "solver.optim=sgd", "solver.lr=0.02"]  # fmt: skip
    replicated = run_train("two", 2, "data.batch_size=4", *recipe)
    sharding = ["data.batch_size=4", "solver.strategy=fsdp", "network.recompute=light", *recipe]
    sharded = run_train("sharded", 2, *sharding)
    assert largest_difference(replicated, sharded) < 1e-5
    first = next(tmp_path.rglob("sharded/checkpoints/epoch_0001_step_0000000.pt"))
    assert largest_difference(run_train("again", 2, *sharding, f"resume={first}"), sharded) < 1e-6
    start = load_file(tmp_path / "member" / "open_clip_model.safetensors")
    state = sharded["model_state_dict"]
    for part in ("visual.", "text."):  # whole, and moved
        names = [name for name in state if name.startswith(part) and state[name].is_floating_point()]
        # In a file of open_clip's plain CLIP a text tower's names have no prefix.
        before = {name: start[name if name in start else name.removeprefix("text.")] for name in names}
        assert max((state[name] - before[name].view_as(state[name])).abs().max() for name in names) > 1e-4


def test_sharded_and_replicated_runs_continue_each_other(run_train, tmp_path):
    recipe = ["data.batch_size=4", "solver.optim=adamw", "solver.lr=1e-3", "solver.clip_grad_norm=5.0"]
    whole, ends = {}, {}
    for start, end in (("ddp", "fsdp"), ("fsdp", "ddp")):
        whole[start] = run_train(start, 2, *recipe, f"solver.strategy={start}", "solver.epochs=2")
        checkpoint = tmp_path / "debug" / "tiny_clip" / start / "checkpoints" / "epoch_0001_step_0000000.pt"
        # As if the run had been killed before this validation: blocks run in a test before they run in training.
        torch.save(torch.load(checkpoint, weights_only=True) | {"must_validate": True}, checkpoint)
        options = (f"solver.strategy={end}", "solver.epochs=2", f"resume={checkpoint}")
        ends[start, end] = run_train(f"{start}_{end}", 2, *recipe, *options)
    expected = whole["ddp"]
    assert expected["epoch"] == 1
    for pair, found in ends.items():
        assert largest_difference(found, expected) < 2e-3, pair  # AdamW: rounding may flip steps of 1e-3
        moments = [state["optimizer_state_dict"]["state"] for state in (found, expected)]
        assert moments[0].keys() == moments[1].keys()
        for key, moment in moments[1].items():
            torch.testing.assert_close(moments[0][key]["exp_avg"], moment["exp_avg"], rtol=1e-2, atol=1e-3)
            assert moments[0][key]["step"] == moment["step"] == 10


def test_a_sharded_model_takes_scaled_losses_and_validates_alone(debug_config, tmp_path, monkeypatch, prepare_run):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    overrides = ["solver.strategy=fsdp", "network.templates=single", f"data.output_path={tmp_path}"]
    with process_group(60) as device:
        config = load_config(debug_config, overrides)
        state, run = prepare_run(config, Precision("fp32", device), "run")
        state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # as fp16 has it on a GPU
        before = state.model.head.frame_position_embeddings.weight.full_tensor().clone()
        figures = train(state, replace(run, epochs=1))
        assert not torch.equal(state.model.head.frame_position_embeddings.weight.full_tensor(), before)
        assert figures["top5"] == 100.0
    monkeypatch.setenv("MASTER_PORT", str(int(port) + 1))
    arguments = ["--config", str(debug_config), "--log_time", "alone", *overrides, "solver.evaluate=true"]
    assert main(arguments)["top5"] == 100.0


def test_sharding_and_averaged_weights_exclude_each_other(repo_root, debug_config, tmp_path):
    command = [sys.executable, str(Path(repo_root) / "train.py"), "--config", str(debug_config)]
    command += ["solver.strategy=fsdp", "solver.ema=0.9", f"data.output_path={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 2
    assert "error: solver.ema keeps a whole second model" in done.stderr
