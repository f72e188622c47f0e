"""The random numbers of a training step: a function of seed, process and step, so that a restart draws them again."""

import numpy as np
import torch

from modules.systems.base import Draws


def draws_of_step(seed: int, rank: int, step: int) -> Draws:
    """Seed one step: torch's global generators (dropout), and the generator of the draws.

    All depend on (seed, rank, step) alone.
    """
    keys = np.random.SeedSequence((seed, rank, step)).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(keys[1]))
    return Draws(torch.Generator().manual_seed(int(keys[0])))


def draws_of_update(seed: int, update: int) -> Draws:
    """Draws that all processes and all steps of an update share."""
    key = np.random.SeedSequence(seed, spawn_key=(update,)).generate_state(1, np.uint64)[0]
    return Draws(torch.Generator().manual_seed(int(key >> np.uint64(1))))
