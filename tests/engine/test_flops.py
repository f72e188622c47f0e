from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import engine.train
from clip.model import Transformer
from engine.flops import count_flops, peak_flops
from engine.sharding import shard, without_memory
from train import prepare
from utils.config import load_config
from utils.distributed import process_group

WIDTH, LENGTH, LAYERS = 64, 10, 2


@pytest.fixture
def transformer():
    return Transformer(WIDTH, LAYERS, 1, "quick_gelu").train()


@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_operations_are_those_of_the_matrices_without_recomputation(transformer, grad_checkpointing):
    transformer.grad_checkpointing = grad_checkpointing
    x = torch.empty(1, LENGTH, WIDTH, requires_grad=True, device="meta")
    matrices = LAYERS * 12 * WIDTH**2 * LENGTH * 2  # multiply and add
    attention = LAYERS * 2 * LENGTH**2 * WIDTH * 2
    # Forward once, backward twice.
    assert count_flops(transformer, lambda model: model(x).sum()) == 3 * (matrices + attention)
    assert transformer.grad_checkpointing == grad_checkpointing
    assert all(parameter.grad is None for parameter in transformer.parameters())


# Of a training step: what the towers see, and which of them train.
STEPS = {
    "image tower and head": [],
    "text tower too": ["network.fix_text=false", "solver.optim=sgd"],
    "joint attention": ["network.joint_st=true", "network.sim_header=None"],
    "fixed image tower": ["network.fix_video=true"],
    "recomputation": ["network.grad_checkpointing=true"],
    "averaged weights, dropout": ["solver.ema=0.9", "network.drop_out=0.1", "network.emb_dropout=0.1"],
}


def operations_of_a_real_step(state, run) -> float:
    """Counted while a batch runs, with attention as its plain products."""
    state.model.clip.visual.transformer.grad_checkpointing = False
    mixing = state.model.draw_mixing(torch.Generator().manual_seed(0))
    labels = torch.zeros(len(run.example), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run.loss(state.model(run.example, run.classes, mixing), labels)[0].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("step", STEPS)
def test_operations_counted_without_memory_are_those_of_a_real_step(debug_config, fp32, tmp_path, monkeypatch, step):
    config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.templates=single", *STEPS[step]])
    state, run = prepare(config, fp32, log_time="run")
    monkeypatch.setattr(engine.train, "peak_flops", lambda device: 1.0)
    per_video, _ = engine.train._utilisation(state, replace(run, precision=replace(fp32, name="bf16")))
    assert per_video > 0
    assert per_video * len(run.example) == operations_of_a_real_step(state, run)


def test_operations_of_cached_features_are_those_of_the_head(debug_config, fp32, tmp_path, monkeypatch):
    config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.fix_video=true"])
    state, run = prepare(config, fp32, log_time="run")
    run = replace(run, example=torch.zeros(()).expand(4, 4, state.model.clip.config.embed_dim))
    monkeypatch.setattr(engine.train, "peak_flops", lambda device: 1.0)
    per_video, _ = engine.train._utilisation(state, replace(run, precision=replace(fp32, name="bf16")))
    assert 4 * per_video == operations_of_a_real_step(state, run)


def test_a_batch_that_no_memory_holds_is_counted(transformer):
    clips = 10**9
    x = torch.empty(clips, LENGTH, WIDTH, device="meta")
    one = torch.empty(1, LENGTH, WIDTH, device="meta")
    assert count_flops(transformer, lambda model: model(x).sum()) == clips * count_flops(
        transformer, lambda model: model(one).sum()
    )


def test_the_copy_that_is_counted_has_no_memory_and_leaves_the_model_as_it_was(transformer):
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    hooked = []
    transformer.register_forward_hook(lambda *_: hooked.append(1))
    transformer.compile()
    copy = without_memory(transformer)
    assert all(value.is_meta for value in copy.state_dict().values())
    assert copy.state_dict().keys() == before.keys()
    assert copy(torch.empty(1, LENGTH, WIDTH, device="meta")).is_meta
    assert hooked == []
    assert all(torch.equal(value, before[name]) for name, value in transformer.state_dict().items())
    assert isinstance(transformer.resblocks[0].ln_1.weight, nn.Parameter)


def test_a_sharded_model_is_counted_as_the_whole(transformer, monkeypatch):
    x = torch.empty(2, LENGTH, WIDTH, device="meta")
    expected = count_flops(transformer, lambda model: model(x).sum())
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with process_group(60):
        shard(transformer, transformer.resblocks)
        assert count_flops(transformer, lambda model: model(x).sum()) == expected


def test_the_rate_of_a_device_comes_by_its_name(monkeypatch):
    def rate(name: str) -> float | None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        return peak_flops(torch.device("cuda", 0))

    assert rate("NVIDIA H200") == 989e12
    assert rate("NVIDIA H100 PCIe") == 756e12
    assert rate("NVIDIA H100 80GB HBM3") == 989e12
    assert rate("NVIDIA A100-SXM4-80GB") == 312e12
    assert rate("Some card") is None
    assert peak_flops(torch.device("cpu")) is None
