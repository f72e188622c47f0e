"""On a GPU: train, continue and test the debug configuration in every precision."""

import pytest
import torch

import test_zeroshot
import train

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
