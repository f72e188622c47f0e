"""The kernel of attention is chosen by what it takes, and computes the same."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

from commands.training.data import example_of
from commands.training.run import Run
from modules.build import load_config
from modules.running import attention
from modules.running.attention import BACKENDS, AttentionCalls, Call, fastest_attention, seconds_of
from utils.precision import Precision

CPU = torch.device("cpu")
ON_CPU = {name: BACKENDS[name] for name in ("efficient", "flash", "math")}
CALLS = {Call((2, 2, 5, 16), (2, 2, 5, 16), False): 3, Call((2, 2, 1, 16), (2, 2, 5, 16), False): 1}


def test_calls_without_masks_and_dropout_are_counted_by_shape():
    query, key = torch.randn(2, 2, 3, 16), torch.randn(2, 2, 5, 16)
    with AttentionCalls() as calls:
        for _ in range(2):
            F.scaled_dot_product_attention(query, key, key)
        F.scaled_dot_product_attention(key, key, key, is_causal=True)
        F.scaled_dot_product_attention(query, key, key, torch.ones(3, 5, dtype=torch.bool))
        F.scaled_dot_product_attention(query, key, key, dropout_p=0.1)
    assert calls.counts == {
        Call((2, 2, 3, 16), (2, 2, 5, 16), False): 2,
        Call((2, 2, 5, 16), (2, 2, 5, 16), True): 1,
    }


def test_kernels_that_there_are_not_are_left_out_and_random_numbers_stay_as_they_are():
    before = torch.get_rng_state()
    times = seconds_of(CALLS, CPU, torch.bfloat16, ON_CPU)
    assert set(times) == {"flash", "math"}  # a CPU has no other
    assert list(times.values()) == sorted(times.values())
    assert min(times.values()) > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("first", ["flash", "math"])
def test_the_fastest_is_taken_and_computes_the_same(first, monkeypatch, caplog):
    def seconds(call, device, dtype):
        (backend,) = _cur_sdpa_kernel_backends()
        if backend == SDPBackend.EFFICIENT_ATTENTION:
            raise RuntimeError("No available kernel")
        return 0.001 if backend == ON_CPU[first] else 0.002

    monkeypatch.setattr(attention, "_seconds", seconds)
    query = torch.randn(2, 2, 5, 16)
    expected, before = F.scaled_dot_product_attention(query, query, query), _cur_sdpa_kernel_backends(True)
    with caplog.at_level(logging.INFO), fastest_attention(CALLS, CPU, torch.float32, ON_CPU):
        assert _cur_sdpa_kernel_backends(True)[0] == ON_CPU[first]
        torch.testing.assert_close(F.scaled_dot_product_attention(query, query, query), expected)
    assert _cur_sdpa_kernel_backends(True) == before
    second = "math" if first == "flash" else "flash"
    assert caplog.messages == [
        f"attention, forward and backward of a step: {first} 4.00 ms, {second} 8.00 ms; the first is taken"
    ]


def test_without_calls_torch_chooses(caplog):
    before = _cur_sdpa_kernel_backends(True)
    with caplog.at_level(logging.INFO), fastest_attention({}, CPU, torch.float32):
        assert _cur_sdpa_kernel_backends(True) == before
    assert caplog.messages == []


def test_a_run_measures_what_its_steps_ask_for_until_it_ends(debug_config, fp32, prepare_run, tmp_path, monkeypatch):
    config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.templates=single"])
    system = prepare_run(config, fp32, "run")[0].model
    asked = []
    monkeypatch.setattr(attention, "seconds_of", lambda calls, *_: asked.append(dict(calls)) or {"math": 0.1})
    before, example = _cur_sdpa_kernel_backends(True), example_of(config.data, 64)
    Run(config, fp32, tmp_path).choose_attention(system, [example])
    assert asked == []  # a CPU has no choice
    run = Run(config, Precision("bf16", torch.device("cuda", 0)), tmp_path)
    run.choose_attention(system, [example])
    assert _cur_sdpa_kernel_backends(True)[0] == SDPBackend.MATH
    run.contexts.close()
    assert _cur_sdpa_kernel_backends(True) == before
    heads = {call.query[:2]: count for call, count in asked[0].items()}
    assert len(heads) >= 2  # of the image tower's frames, and of the head's clips
    assert sum(heads.values()) >= 3
