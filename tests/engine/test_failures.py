"""A GPU skips an update that is not finite, and the host learns it later; here the CPU's fused optimizer does so."""

from collections.abc import Iterator

import pytest
import torch

import engine.train
from engine.failures import can_wait
from engine.state import TrainState
from engine.train import train
from modules.build import load_config
from modules.systems.base import Losses

NAN = float("nan")


@pytest.fixture
def build(debug_config, tmp_path, fp32, prepare_run):
    """Prepare a run of the debug configuration; overrides as on the command line."""

    def build(*overrides: str, name: str = "run"):
        small = ["data.num_segments=2", "network.templates=single", "network.temporal_layer=1", "solver.epochs=2"]
        options = [f"data.output_path={tmp_path}", "solver.lr_warmup_step=0", *small, *overrides]
        return prepare_run(load_config(debug_config, options), fp32, name)

    return build


def multiply_loss(state: TrainState, factors: Iterator[float]) -> list[float]:
    """Make each step's loss so many times as large; returns the list of those that were used."""
    loss, used = state.model.loss, []

    def broken_loss(batch, draws) -> Losses:
        total, reported = loss(batch, draws)
        used.append(next(factors))
        return Losses(total * used[-1], reported)

    state.model.loss = broken_loss
    return used


def assert_equal(found, expected) -> None:
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            assert_equal(*pair)
    else:
        assert found == expected


def train_either_way(build, monkeypatch, waits: bool, factors: list[float], *options: str) -> tuple[dict, str, int]:
    """A checkpoint of the run's end, its error, and the number of steps; ``waits``: as on a GPU."""
    state, run = build("logging.print_freq=100", *options, name=f"waits_{waits}")
    used = multiply_loss(state, iter(factors))
    monkeypatch.setattr(engine.train, "can_wait", lambda state, device: waits)
    try:
        train(state, run)
    except FloatingPointError as error:
        content = torch.load(run.folder / "non_finite.pt", weights_only=True)
        return content, str(error).replace(str(run.folder), ""), len(used)
    return torch.load(run.folder / "last_model.pt", weights_only=True), "", len(used)


def without_config(content: dict) -> dict:
    return {name: value for name, value in content.items() if name != "config"}


def test_updates_that_are_finite_are_the_same_to_the_bit(build, monkeypatch):
    at_once, later = (train_either_way(build, monkeypatch, waits, [1.0] * 6)[0] for waits in (False, True))
    assert_equal(without_config(later), without_config(at_once))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_one_that_is_not_stops_the_run_a_window_later_with_the_state_before_it(build, monkeypatch, accumulation):
    factors, option = [1.0, 1.0, 1.0, NAN, 1.0, 1.0], f"solver.grad_accumulation_steps={accumulation}"
    content, message, steps = train_either_way(build, monkeypatch, False, factors, option)
    found, found_message, found_steps = train_either_way(build, monkeypatch, True, factors, option)
    assert_equal(without_config(found), without_config(content))
    assert found_message == message
    assert f"epoch 2, step {accumulation}: loss nan" in message
    assert found_steps == steps + 1  # the next window: of one step, also where it is the epoch's last and shorter


def test_the_last_update_of_an_epoch_is_seen_before_anything_is_saved(build, monkeypatch):
    content, message, steps = train_either_way(build, monkeypatch, True, [1.0, 1.0, NAN])
    assert steps == 3
    assert "epoch 1, step 3: loss nan" in message
    assert content["step"] == 3


def test_only_a_gpu_waits_and_only_where_nothing_else_follows_from_an_update(build):
    gpu = torch.device("cuda", 0)
    state, _ = build()
    assert can_wait(state, gpu)
    assert not can_wait(state, torch.device("cpu"))
    assert not can_wait(build("solver.optim=sgd", name="sgd")[0], gpu)
    assert not can_wait(build("solver.ema=0.9", name="ema")[0], gpu)
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    assert not can_wait(state, gpu)
