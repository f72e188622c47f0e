"""The random numbers of a training step: a function of seed, process and step, so that a restart draws them again."""

import numpy as np
import torch

from modules.systems.base import Draws

SHARED = 1  # tells draws that all processes share from others of the same step


def draws_of_step(seed: int, rank: int, step: int) -> Draws:
    """Seed one step: torch's global generators (dropout), and the generators of the draws.

    All depend on (seed, rank, step) alone, what is shared on (seed, step).
    """
    keys = np.random.SeedSequence((seed, rank, step)).generate_state(2, np.uint64) >> np.uint64(1)
    torch.manual_seed(int(keys[1]))
    return Draws(torch.Generator().manual_seed(int(keys[0])), _generator(seed, step, SHARED))


def draws_of_update(seed: int, update: int) -> Draws:
    """Draws that all processes and all steps of an update share."""
    return Draws(_generator(seed, update), _generator(seed, update, SHARED))


def _generator(seed: int, *place: int) -> torch.Generator:
    key = np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> np.uint64(1)))
