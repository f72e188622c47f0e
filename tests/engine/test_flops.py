from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import engine.flops
from clip.blocks import NONE, RECOMPUTE, Transformer, set_recompute
from commands.training.data import example_of
from engine.flops import count_flops, peak_flops, utilisation
from modules.build import load_config
from modules.systems.base import Batch, Draws, Losses
from utils.distributed import process_group

WIDTH, LENGTH, LAYERS = 64, 10, 2


class Blocks(nn.Module):
    """A system that is a transformer over features."""

    def __init__(self):
        super().__init__()
        self.transformer = Transformer(WIDTH, LAYERS, 1, "quick_gelu").train()

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        return Losses(self.transformer(batch.features).sum(), {})


@pytest.fixture
def blocks() -> Blocks:
    return Blocks()


@pytest.fixture
def transformer(blocks) -> Transformer:
    return blocks.transformer


def step_of(num_clips: int) -> tuple[Batch, Draws]:
    features = torch.empty(num_clips, LENGTH, WIDTH, device="meta", requires_grad=True)
    return Batch(features=features), Draws(torch.Generator())


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_operations_are_those_of_the_matrices_without_recomputation(blocks, transformer, recompute):
    set_recompute(transformer, recompute)
    matrices = LAYERS * 12 * WIDTH**2 * LENGTH * 2  # multiply and add
    attention = LAYERS * 2 * LENGTH**2 * WIDTH * 2
    # Forward once, backward twice.
    assert count_flops(blocks, *step_of(1)) == 3 * (matrices + attention)
    assert {block.recompute for block in transformer.resblocks} == {recompute}
    assert all(parameter.grad is None for parameter in transformer.parameters())


# Of a training step: what the towers see, and which of them train.
STEPS = {
    "image tower and head": [],
    "text tower too": ["network.fix_text=false", "solver.optim=sgd"],
    "joint attention": ["network.joint_st=true", "network.sim_header=None"],
    "space-time attention": ["network.system=clip", "network.tower=divided", "network.sim_header=None"],
    "frames that see each other": ["network.tm=tokent1d"],
    "fixed image tower": ["network.fix_video=true"],
    "recomputation": ["network.recompute=full"],
    "recomputation of what is cheap": ["network.recompute=light"],
    "averaged weights, dropout": ["solver.ema=0.9", "network.drop_out=0.1", "network.emb_dropout=0.1"],
}


def operations_of_a_real_step(state, example: Batch) -> float:
    """Counted while a batch runs, with attention as its plain products."""
    set_recompute(state.model, NONE)
    batch = Batch(*(None if part is None else torch.zeros_like(part, device="cpu") for part in example))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        state.model(batch, Draws(torch.Generator().manual_seed(0))).total.backward()
    return counter.get_total_flops()


def operations_without_memory(state, example: Batch, fp32, monkeypatch) -> float:
    """As training counts them, of a video."""
    monkeypatch.setattr(engine.flops, "peak_flops", lambda device: 1.0)
    per_video, _ = utilisation(state.model, example, replace(fp32, name="bf16"))
    return per_video


@pytest.mark.parametrize("step", STEPS)
def test_operations_counted_without_memory_are_those_of_a_real_step(
    debug_config, fp32, prepare_run, tmp_path, monkeypatch, step
):
    config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.templates=single", *STEPS[step]])
    state, _ = prepare_run(config, fp32, "run")
    example = example_of(config.data, state.model.towers.spec.embed_dim)
    per_video = operations_without_memory(state, example, fp32, monkeypatch)
    assert per_video > 0
    assert per_video * len(example.labels) == operations_of_a_real_step(state, example)


def test_a_run_counts_before_its_model_is_compiled_or_sharded(debug_config, fp32, prepare_run, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.flops, "peak_flops", lambda device: 1.0)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    found = []
    for name, options in {"plain": [], "fast": ["network.compile=true", "solver.strategy=fsdp"]}.items():
        config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.templates=single", *options])
        with process_group(60):
            found.append(prepare_run(config, replace(fp32, name="bf16"), name)[1].utilisation)
    assert found[0] == found[1]
    assert found[0][0] > 0


def test_operations_of_cached_features_are_those_of_the_head(debug_config, fp32, prepare_run, tmp_path, monkeypatch):
    config = load_config(debug_config, [f"data.output_path={tmp_path}", "network.fix_video=true"])
    state, _ = prepare_run(config, fp32, "run")
    width = state.model.towers.spec.embed_dim
    example = example_of(replace(config.data, modality="features"), width)
    assert example.features.shape == (4, 4, width)
    per_video = operations_without_memory(state, example, fp32, monkeypatch)
    assert 4 * per_video == operations_of_a_real_step(state, example)


def test_a_batch_that_no_memory_holds_is_counted(blocks):
    clips = 10**9
    assert count_flops(blocks, *step_of(clips)) == clips * count_flops(blocks, *step_of(1))


def test_counting_leaves_the_model_as_it_was(blocks):
    before = {name: value.clone() for name, value in blocks.state_dict().items()}
    count_flops(blocks, *step_of(2))
    assert all(torch.equal(value, before[name]) for name, value in blocks.state_dict().items())
    assert isinstance(blocks.transformer.resblocks[0].ln_1.weight, nn.Parameter)


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
