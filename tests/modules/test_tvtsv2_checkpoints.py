"""Checkpoints of TVTSv2's training: with the sorter for training, without it for all else."""

import logging
from dataclasses import replace

import pytest
import torch

from engine.optim import build_optimizer, set_lr
from engine.state import TrainState, averaged
from modules.formats.ours import joined, read_checkpoint
from modules.systems.base import Draws
from modules.systems.tvtsv2 import TVTSv2
from tests.modules.tvtsv2_on_processes import SOLVER
from tests.modules.tvtsv2_on_processes import batch_of as batch_of_six
from tests.modules.tvtsv2_on_processes import system as tiny
from utils.weights.four_keys import SORTER, save_checkpoint


def state_of(model: TVTSv2) -> TrainState:
    optimizer = build_optimizer(model.groups(), replace(SOLVER, optim="adamw_transformers"))
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


def take_steps(state: TrainState, steps: range) -> None:
    """Transcripts and captions in turn."""
    for step in steps:
        batch, _ = batch_of_six(slice(6), (4, 1)[step % 2])
        set_lr(state.optimizer, 1e-2)
        state.model(batch, Draws(torch.Generator().manual_seed(step))).total.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
    state.step = steps.stop


def test_training_goes_on_from_a_checkpoint_to_the_last_bit(tmp_path):
    whole, parts = (state_of(tiny(mask_ratio=0.5)) for _ in range(2))
    take_steps(whole, range(6))
    take_steps(parts, range(3))
    save_checkpoint(tmp_path / "half.pt", parts.content())
    checkpoint = read_checkpoint(tmp_path / "half.pt")
    other = tiny(mask_ratio=0.5)
    for parameter in other.parameters():
        parameter.data.fill_(0.5)
    other.load_weights(checkpoint, "half.pt", with_classifier=True)
    resumed = state_of(other)
    resumed.resume(checkpoint)
    take_steps(resumed, range(3, 6))
    expected = whole.model.state_dict()
    assert {
        name for name, value in resumed.model.state_dict().items() if not torch.equal(value, expected[name])
    } == set()
    assert any("sorter." in name for name in expected)


def test_averaged_weights_have_the_sorter_and_come_back_with_it(tmp_path):
    state = state_of(tiny())
    state.ema = averaged(state.model, 0.5)
    take_steps(state, range(2))
    state.ema.update_parameters(state.model)
    save_checkpoint(tmp_path / "averaged.pt", state.content())
    again = state_of(tiny())
    again.ema = averaged(again.model, 0.5)
    again.resume(read_checkpoint(tmp_path / "averaged.pt"))
    expected = state.ema.module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.ema.module.state_dict().items())


def test_a_test_passes_the_sorter_over_and_a_start_without_one_trains_a_new_one(caplog):
    model = tiny()
    with_sorter = {**model.weights(), "towers": {}}
    assert with_sorter[SORTER].keys() == dict(model.sorter.named_parameters()).keys()
    without = {key: value for key, value in with_sorter.items() if key != SORTER}
    broken = {**with_sorter, SORTER: {"type_embed": torch.zeros(3)}}
    for checkpoint in (with_sorter, without, broken):
        tested = tiny(sorter_layers=1)
        tested.drop_training_parts()
        tested.load_weights(checkpoint, "x")
        assert SORTER not in tested.weights()
        assert torch.equal(tested.towers.visual.proj, model.towers.visual.proj)
    # What is shared, in safetensors, has no names of it.
    assert not any("sorter" in name for name in joined(with_sorter))
    with caplog.at_level(logging.INFO):
        tiny().load_weights(without, "x")
    assert "x brings no sorter: a new one is trained" in caplog.text
    with pytest.raises(
        ValueError, match=r"^checkpoint x does not fit the configured model: its sorter has missing"
    ) as error:
        tiny().load_weights(broken, "x")
    assert "type_embed is [3], the configured model has [1, 2, 16]" in str(error.value) or "and" in str(error.value)
    with pytest.raises(ValueError, match=r"its sorter has missing blocks\.1\."):
        tiny(sorter_layers=3).load_weights(tiny(sorter_layers=1).weights(), "x")
