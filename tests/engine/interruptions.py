"""What tests of runs that end in the middle share."""

from pathlib import Path

import pytest
import torch

from engine.state import TrainState
from engine.train import Training, train
from modules.formats.ours import IN_MODEL, read_checkpoint


class Interrupted(Exception):
    """Stands for whatever ends a process in the middle of a step."""


def train_interrupted(state: TrainState, run: Training, steps: int) -> None:
    """Train for some steps, and end in the loss of the next one."""
    loss, count = state.model.loss, iter(range(steps))

    def failing_loss(batch, draws):
        if next(count, None) is None:
            raise Interrupted
        return loss(batch, draws)

    state.model.loss = failing_loss
    with pytest.raises(Interrupted):
        train(state, run)


def weights(path: Path) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint, those of training alone, too."""
    content = read_checkpoint(path)
    return {f"{key}.{name}": value for key in IN_MODEL for name, value in content.get(key, {}).items()}


def assert_same(found: Path, expected: Path) -> None:
    """See that two checkpoints have the same weights, bit for bit."""
    found, expected = weights(found), weights(expected)
    assert found.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different
