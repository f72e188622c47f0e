"""On a GPU: train, continue and test the debug configuration in every precision, whatever a step recomputes."""

import pytest
import torch

import test_zeroshot
import train
from clip.blocks import NONE, RECOMPUTE, ResidualAttentionBlock, set_recompute
from clip.model import CLIP
from engine.failures import settle
from engine.train import batch_of, train_step, update
from modules.build import load_config
from utils.precision import Precision

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


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


@pytest.fixture
def gpu_run(debug_config, tmp_path, prepare_run):
    """A run of the debug configuration that is prepared on the GPU; overrides as on the command line."""

    def gpu_run(*overrides: str, precision: str = "bf16"):
        config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.templates=single", *overrides])
        return prepare_run(config, Precision(precision, torch.device("cuda", 0)), "run")

    return gpu_run


def test_features_in_fp32_are_those_of_the_cpu_and_in_bf16_close_to_them(tiny_clip):
    clips = torch.randint(256, (4, 3, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = tiny_clip.encode_clips(clips)
        towers = tiny_clip.cuda()
        torch.testing.assert_close(towers.encode_clips(clips.cuda()).cpu(), expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = towers.encode_clips(clips.cuda()).cpu().float()
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_recomputed_changes_no_gradient(tiny_clip_config, dtype):
    torch.manual_seed(0)
    towers, clips = CLIP(tiny_clip_config).cuda().train(), torch.randint(256, (4, 3, 3, 32, 32), device="cuda")
    gradients = {}
    for name in RECOMPUTE:
        set_recompute(towers, name)
        towers.zero_grad()
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            loss = towers.encode_clips(clips).float().square().sum()
        loss.backward()
        gradients[name] = [parameter.grad.clone() for parameter in towers.visual.parameters()]
    for found in gradients.values():
        for pair in zip(found, gradients[NONE], strict=True):
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)  # some kernels add in any order


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
    assert peaks[1] < 0.7 * peaks[0]


def test_a_step_does_not_wait_for_the_device_and_leaves_out_an_update_that_is_not_finite(gpu_run):
    state, run = gpu_run("network.compile=false")
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


def test_out_of_memory_is_one_line(debug_config, tmp_path):
    argv = ["--config", str(debug_config), f"data.output_path={tmp_path}", "network.templates=single"]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(ValueError, match=r"out of memory on cuda.*: data\.batch_size 4, network\.recompute light"):
            train.main(argv)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
