"""Whether the training state in a checkpoint can be one of this run; looked at before any of it is used.

A fused optimizer does not compare shapes: state of another one would be written beyond the end of its tensors.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from utils.weights.four_keys import STATE_DICTS, outline
from utils.weights.state_dicts import check_fit, check_weights

MOST_STEPS = 2**24  # torch counts the steps of an optimizer in float32, which does not go on here


COUNT, NUMBER = (int,), (int, float)
# Entry: what it is, its types, and the least and the largest value. NaN is none of them.
ENTRIES = {
    "epoch": ("the last finished epoch, counted from 0", COUNT, -1, MOST_STEPS),
    "step": ("a number of steps", COUNT, 0, MOST_STEPS),
    "best_top1": ("a percentage, or -1", NUMBER, -1, 100),
    "best_epoch": ("a number of epochs", COUNT, 0, MOST_STEPS),
    "must_validate": ("true or false", (bool,), False, True),
    "videos_per_step": ("a positive number", COUNT, 1, MOST_STEPS),
}
TINY, HUGE = sys.float_info.min, sys.float_info.max
# Of the loss scaler of fp16; the state of one that is switched off is empty.
SCALER = {
    "scale": ("a positive number", NUMBER, TINY, HUGE),
    "growth_factor": ("a number above 1", NUMBER, math.nextafter(1, 2), HUGE),
    "backoff_factor": ("a number between 0 and 1", NUMBER, TINY, math.nextafter(1, 0)),
    "growth_interval": ("a positive number of steps", COUNT, 1, MOST_STEPS),
    "_growth_tracker": ("a number of steps", COUNT, 0, MOST_STEPS),
}
COUNT_AVERAGED = "n_averaged"  # beside the averaged weights: of how many steps they are
AVERAGE = "epoch_average"  # entry: the mean over epochs, and the logarithms of their weights
RATE = {"lr": ("a number from 0 on", NUMBER, 0, HUGE)}


def check_training_state(checkpoint: Mapping[str, Any], optimizer: torch.optim.Optimizer, source: str) -> None:
    """Check everything that a run takes from a checkpoint beside its weights.

    Args:
        optimizer: the one that is to take the state.
        source: how errors begin, such as ``checkpoint PATH``.

    Raises:
        ValueError: names what cannot be, and what was expected.
    """
    saved = checkpoint.get("optimizer_state_dict")
    if saved in (None, {}) or not checkpoint.keys() >= {"epoch", "scaler_state_dict", "step", "best_top1"}:
        raise ValueError(f"{source}: resume: it has no training state; to start from its weights use pretrain")
    _check_entries({name: checkpoint[name] for name in ENTRIES if name in checkpoint}, ENTRIES, source)
    scaler = checkpoint["scaler_state_dict"]
    if not isinstance(scaler, dict) or (scaler and scaler.keys() != SCALER.keys()):
        raise ValueError(
            f"{source}: scaler_state_dict: expected {', '.join(SCALER)} or nothing, found {outline(scaler)}"
        )
    _check_entries(scaler, SCALER, f"{source}: scaler_state_dict")
    _check_optimizer(saved, optimizer, source)
    if "ema" in checkpoint:
        _check_averaged(checkpoint["ema"], source)


def check_place(checkpoint: Mapping[str, Any], epochs: int, num_videos: int, videos_per_step: int, source: str) -> None:
    """Check that the place where a run was is one of this run.

    Args:
        epochs: of the whole run.
        num_videos: of an epoch.
        videos_per_step: where the checkpoint does not say how many a step had.

    Raises:
        ValueError: there are not so many epochs, or steps in one.
    """
    finished, step = checkpoint["epoch"] + 1, checkpoint["step"]
    if finished > epochs:
        raise ValueError(f"{source}: epoch: {finished} epochs are finished, but solver.epochs is {epochs}")
    per_step = checkpoint.get("videos_per_step", videos_per_step)
    if step * per_step > num_videos:
        raise ValueError(
            f"{source}: step: {step} steps of {per_step} videos are done of an epoch, which has {num_videos} videos"
        )


def check_epoch_average(found: Any, expected: Mapping[str, Tensor], source: str) -> None:
    """Check the mean over epochs of a checkpoint.

    Args:
        expected: tensors with the names and shapes that it must have.

    Raises:
        ValueError: there is none, or one of another model.
    """
    if found is None:
        raise ValueError(f"{source}: resume: it has no mean over epochs; set solver.epoch_average='' or start anew")
    if not isinstance(found, dict) or not isinstance(found.get("mean"), dict):
        raise ValueError(f"{source}: {AVERAGE}: expected mean and log_weights, found {outline(found)}")
    check_weights(found["mean"], f"{source}: {AVERAGE}")
    check_fit(expected, found["mean"], f"{source}: {AVERAGE}: the mean has")
    weights = found.get("log_weights")
    if not isinstance(weights, list) or not weights or not all(type(w) is float and math.isfinite(w) for w in weights):
        raise ValueError(f"{source}: {AVERAGE}: log_weights: expected finite numbers, found {outline(weights)}")


def _check_entries(found: Mapping[str, Any], known: dict[str, tuple], source: str) -> None:
    for name, value in found.items():
        what, types, least, largest = known[name]
        if type(value) not in types or not least <= value <= largest:
            raise ValueError(f"{source}: {name}: expected {what}, found {outline(value)}")


def _check_optimizer(saved: Any, optimizer: torch.optim.Optimizer, source: str) -> None:
    """Kind, groups and the state of every parameter."""
    groups, states = (saved.get("param_groups"), saved.get("state")) if isinstance(saved, dict) else (None, None)
    if not isinstance(states, dict) or not isinstance(groups, list) or not all(map(_is_group, groups)):
        raise ValueError(f"{source}: optimizer_state_dict: expected state and param_groups, found {outline(saved)}")
    found, expected = (
        [(sorted(group), len(group["params"])) for group in each] for each in (groups, optimizer.param_groups)
    )
    if found != expected:
        raise ValueError(
            f"{source}: resume: the checkpoint's optimizer is of another kind (solver.optim) or trains other "
            "parameters (network, solver) than configured; to start from its weights use pretrain"
        )
    for group in groups:
        _check_entries({"lr": group["lr"]}, RATE, f"{source}: optimizer_state_dict")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = list(range(len(parameters)))
    if [number for group in groups for number in group["params"]] != numbers:
        raise ValueError(f"{source}: optimizer_state_dict: params: expected 0 to {numbers[-1]} in their order")
    if strange := [number for number in states if type(number) is not int or number not in numbers]:
        found = f"state of parameter {strange[0]!r}"
        raise ValueError(f"{source}: optimizer_state_dict: {found}, expected 0 to {numbers[-1]}")
    if states and (missing := [number for number in numbers if number not in states]):  # before the first update: none
        raise ValueError(f"{source}: optimizer_state_dict: state of parameter {missing[0]} is missing")
    for number, entry in states.items():
        where = f"{source}: optimizer_state_dict: parameter {number}"
        _check_moments(entry, parameters[number], optimizer.defaults, where)


def _is_group(group: Any) -> bool:
    if not isinstance(group, dict) or not all(isinstance(key, str) for key in group):
        return False
    numbers = group.get("params")
    return isinstance(numbers, list) and all(type(number) is int for number in numbers)


def _check_moments(entry: Any, parameter: Tensor, defaults: Mapping[str, Any], source: str) -> None:
    """What an optimizer keeps for one parameter."""
    is_adam = "betas" in defaults
    known = {"step", "exp_avg", "exp_avg_sq"} if is_adam else {"momentum_buffer"}
    needed = known if is_adam or defaults.get("momentum") else set()
    if not isinstance(entry, dict) or not needed <= entry.keys() <= known:
        raise ValueError(f"{source}: expected {', '.join(sorted(known))}, found {outline(entry)}")
    for name, value in entry.items():
        check_weights({name: value}, source, most_repeated=0)  # they are changed in place
        shape, kind = (torch.Size(), torch.float32) if name == "step" else (parameter.shape, parameter.dtype)
        if value.shape != shape or value.dtype != kind:
            raise ValueError(
                f"{source}: {name} is {value.dtype} {list(value.shape)}, its parameter takes {kind} {list(shape)}"
            )
    if is_adam:
        step = entry["step"].item()
        if not 0 <= step <= MOST_STEPS or step != int(step):
            raise ValueError(f"{source}: step: expected a number of steps, found {step}")
        if (entry["exp_avg_sq"] < 0).any():
            raise ValueError(f"{source}: exp_avg_sq is a mean of squares, but negative in places")


def _check_averaged(ema: Any, source: str) -> None:
    """Averaged weights, and how many steps they are the average of."""
    states = {key: value for key, value in ema.items() if key != COUNT_AVERAGED} if isinstance(ema, dict) else {}
    if not states.keys() >= set(STATE_DICTS) or not all(isinstance(state, dict) for state in states.values()):
        raise ValueError(f"{source}: ema: expected {', '.join(STATE_DICTS)} and n_averaged, found {outline(ema)}")
    for state in states.values():
        check_weights(state, f"{source}: ema")
    count = ema.get(COUNT_AVERAGED)
    kind = (count.shape, count.dtype, count.device.type) if type(count) is Tensor else None
    if kind != ((), torch.int64, "cpu") or count < 0:
        raise ValueError(f"{source}: ema: n_averaged: expected a number of steps, int64, found {outline(count)}")
