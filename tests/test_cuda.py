"""On a GPU, and what can be on a CPU: training and tests in every precision, whatever a step recomputes or compiles."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import test_zeroshot
import train
from clip.blocks import LIGHT, NONE, RECOMPUTE, ResidualAttentionBlock, set_recompute
from clip.model import CLIP
from engine.failures import settle
from engine.sharding import whole
from engine.train import batch_of, train_step, update
from modules.build import load_config
from modules.compile import CACHE_VARIABLE
from modules.running.attention import BACKENDS, Call, seconds_of
from tests.modules.processes_on_one_device import results_on
from utils.distributed import process_group
from utils.precision import Precision

gpu = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
on_both = pytest.mark.parametrize("device", [torch.device("cpu"), pytest.param(torch.device("cuda", 0), marks=gpu)])


def on_gpu(test):
    """Mark a test that needs a GPU."""
    return gpu[0](gpu[1](test))


# Of cosines, largest and mean: those of the goldens in fp32 (tests/commands/test_golden.py), and in bf16.
TOLERANCES = {"fp32": (5e-3, 5e-4), "bf16": (5e-3, 2e-3)}


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_debug_configuration_trains_continues_and_tests(precision, debug_config, tmp_path):
    common = ["--config", str(debug_config), "--precision", precision, f"data.output_path={tmp_path}"]
    for epochs in (1, 2):
        train.main([*common, "--log_time", "run", "resume=auto", f"solver.epochs={epochs}"])
    weights = str(tmp_path / "debug/tiny_clip/run/last_model.pt")
    results = test_zeroshot.main([*common, "--weights", weights, "--test_clips", "2", "--test_crops", "3"])
    assert results["num_videos"] == 8
    assert results["failed_videos"] == []
    assert results["precision"] == precision


@pytest.mark.parametrize("precision", TOLERANCES)
def test_golden_results_are_the_published_ones_on_the_device_that_there_is(golden, close_set, tmp_path, precision):
    reference = np.load(golden / "ref_close_1x1.npz")["view_logits"]
    data = {
        "dataset": "golden", "num_segments": 8, "workers": 0, "num_classes": 12, "input_size": 48, "decoder": "decord",
        "val_root": golden / "videos", "val_list": golden / "list.txt", "label_list": golden / "labels.csv",
    }  # fmt: skip
    config = tmp_path / "golden.yaml"
    config.write_text(f"network: {{arch: {golden / 'tiny_clip.pt'}, temporal_layer: 3, num_experts: 4}}")
    argv = ["--config", str(config), "--weights", str(golden / "tiny_mote.pt"), "--precision", precision]
    argv += ["--save_logits", str(tmp_path / "logits.npz"), "--output", str(tmp_path), "--test_clips", "1"]
    close_set([*argv, "--test_crops", "1", *(f"data.{key}={value}" for key, value in data.items())])
    difference = np.abs(np.load(tmp_path / "logits.npz")["view_logits"] - reference)
    largest, mean = TOLERANCES[precision]
    assert difference.max() <= largest
    assert difference.mean() <= mean


@pytest.fixture
def run_on(debug_config, tmp_path, prepare_run):
    """A run of the debug configuration that is prepared on a device; overrides as on the command line."""

    def run_on(device: torch.device, *overrides: str, precision: str = "bf16", name: str = "run"):
        config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.templates=single", *overrides])
        return prepare_run(config, Precision(precision, device), name)

    return run_on


@on_both
def test_features_in_fp32_are_those_of_the_cpu_and_in_bf16_close_to_them(tiny_clip, device):
    clips = torch.randint(256, (4, 3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = tiny_clip.encode_clips(clips)
        towers = tiny_clip.to(device)
        torch.testing.assert_close(towers.encode_clips(clips.to(device)).cpu(), expected, rtol=1e-4, atol=1e-5)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            found = towers.encode_clips(clips.to(device)).cpu().float()
    assert 0 < (found - expected).abs().max() < 0.03 * expected.abs().max()


@on_both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_recomputed_changes_no_gradient(tiny_clip_config, device, dtype):
    torch.manual_seed(0)
    towers, clips = CLIP(tiny_clip_config).to(device).train(), torch.randint(256, (4, 3, 3, 32, 32), device=device)
    gradients = {}
    for name in RECOMPUTE:
        set_recompute(towers, name)
        towers.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = towers.encode_clips(clips).float().square().sum()
        loss.backward()
        gradients[name] = [parameter.grad.clone() for parameter in towers.visual.parameters()]
    for found in gradients.values():
        for pair in zip(found, gradients[NONE], strict=True):
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)  # some kernels add in any order


@on_gpu
def test_less_memory_is_needed_the_more_is_recomputed():
    block, x = ResidualAttentionBlock(512, 8, "quick_gelu", 0.0).cuda().train(), torch.randn(64, 197, 512).cuda()
    peaks = []
    for name in RECOMPUTE:
        set_recompute(block, name)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            kept = x.clone().requires_grad_()
            before = torch.cuda.memory_allocated()
            result = block(kept)
        peaks.append(torch.cuda.memory_allocated() - before)
        result.sum().backward()
        block.zero_grad()
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[1] < 0.65 * peaks[0]


@on_gpu
def test_a_step_does_not_wait_for_the_device_and_leaves_out_an_update_that_is_not_finite(run_on):
    state, run = run_on(torch.device("cuda", 0), "network.compile=off")
    batch, window = batch_of(next(iter(run.loader)), run.precision.device), range(1)

    def step() -> list[dict[str, torch.Tensor]]:
        return [train_step(state.model, batch, state, run, window)]

    for _ in range(3):  # what is made at first may wait
        update(state, run, step())
    settle(state, run.folder, run.metadata)
    before = [parameter.clone() for parameter in state.model.parameters()]
    torch.cuda.set_sync_debug_mode("error")
    try:
        reports = step()
        reports[0]["loss"] = reports[0]["loss"] * float("nan")
        update(state, run, reports)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(*pair) for pair in zip(state.model.parameters(), before, strict=True))
    with pytest.raises(FloatingPointError, match="loss nan"):
        update(state, run, step())
    assert all(torch.equal(*pair) for pair in zip(state.model.parameters(), before, strict=True))


@on_gpu
def test_out_of_memory_is_one_line(debug_config, tmp_path):
    argv = ["--config", str(debug_config), f"data.output_path={tmp_path}", "network.templates=single"]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(ValueError, match=r"out of memory on cuda.*: data\.batch_size 4, network\.recompute light"):
            train.main(argv)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@on_both
@pytest.mark.slow
def test_a_compiled_and_sharded_step_gives_the_gradients_of_a_plain_one(run_on, device, monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "compiled"))
    if device.type == "cpu":  # also where there is a GPU
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(key, value)
    gradients = []
    with process_group(60):
        for name, options in {"plain": ["off", "ddp"], "fast": ["blocks", "fsdp"]}.items():
            keys = ("network.compile", "solver.strategy", "network.recompute")
            overrides = [f"{key}={value}" for key, value in zip(keys, [*options, LIGHT], strict=True)]
            state, run = run_on(device, *overrides, precision="fp32", name=name)
            train_step(state.model, batch_of(next(iter(run.loader)), device), state, run, range(1))
            gradients.append(whole({key: value.grad for key, value in state.model.named_parameters()}))
    plain, fast = gradients
    assert any(value is not None and value.any() for value in plain.values())
    for name, value in plain.items():
        if value is not None:
            torch.testing.assert_close(fast[name].cpu(), value.cpu(), rtol=1e-3, atol=1e-5)


@on_both
@pytest.mark.slow
def test_two_processes_on_one_device_give_the_gradients_of_one(repo_root, device, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script, file = "tests/modules/processes_on_one_device.py", tmp_path / "results.pt"
    environment = os.environ | {"PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, script, str(device), file], cwd=repo_root, env=environment, timeout=300, check=True)
    for expected, found in zip(results_on(device), torch.load(file, weights_only=True), strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


@on_gpu
def test_every_gpu_has_a_fused_kernel_of_attention():
    call = Call((16, 12, 197, 64), (16, 12, 197, 64), False)
    assert {*seconds_of({call: 1}, torch.device("cuda", 0), torch.bfloat16)} & {*BACKENDS} - {"math"}
