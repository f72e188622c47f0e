"""The paths of objects, in every world: how what is asked of a motion becomes poses over a clip.

Lengths are in units of half the picture's shorter side, with the origin in the middle and y pointing down, so
that a positive angle is clockwise. A clip lasts from instant -0.5 to 0.5.
"""

from functools import partial
from typing import Protocol

import numpy as np

from datasets.shapes.world import MOTION_SIGNS

# The smallest and largest change over a clip of: x, y, angle (radians), log radius, orbit angle (radians).
MOTION_LOW = np.array([0.60, 0.60, 2.6, 0.75, 2.6], dtype=np.float32)
MOTION_HIGH = np.array([0.95, 0.95, 4.2, 1.15, 4.2], dtype=np.float32)
# Standard deviation of the change that a motion does not ask for, which only distracts.
MOTION_JITTER = np.array([0.06, 0.06, 0.15, 0.06, 0.0], dtype=np.float32)


class Moving(Protocol):
    """B scenes of whatever world, as far as their objects' paths go."""

    object_ids: np.ndarray  # [B] int64
    change: np.ndarray  # [B, 5] float32, over the clip: x, y, angle, log radius, orbit angle
    middle: np.ndarray  # [B, 5] float32: x, y, angle, radius, orbit phase at the clip's middle


def sample_paths(motion_ids: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`change` and `middle`, float32 [B, 5] each, of B objects with motions [B], indices into MOTIONS."""
    count = len(motion_ids)
    uniform = partial(uniform_draws, generator, count)
    signs = MOTION_SIGNS[motion_ids]
    # The second motion of each pair is the first one backwards, in the parts that only distract too.
    direction = 1 - 2 * (np.asarray(motion_ids)[:, None] % 2)
    jitter = direction * MOTION_JITTER * generator.standard_normal((count, 5), dtype=np.float32)
    change = np.where(signs == 0, jitter, signs * uniform(MOTION_LOW, MOTION_HIGH, 5))
    middle = np.concatenate(
        [uniform(-0.12, 0.12, 2), 0.35 * generator.standard_normal((count, 1), dtype=np.float32),
         uniform(0.42, 0.52, 1), uniform(0, 2 * np.pi, 1)], axis=1)  # fmt: skip
    return change.astype(np.float32), middle


def poses(scenes: Moving, rows: np.ndarray, instants: np.ndarray) -> np.ndarray:
    """Where the objects are: x, y, angle and radius, float32 [N, 4], of scene rows [N] at instants [N]."""
    change, middle = scenes.change[rows] * instants[:, None], scenes.middle[rows]
    # An object that circles has an orbit of a fixed radius; any other one has none.
    orbit_radius = 0.38 * (scenes.change[rows, 4] != 0)
    phase = middle[:, 4] + change[:, 4]
    return np.stack(
        [
            middle[:, 0] + change[:, 0] + orbit_radius * np.cos(phase),
            middle[:, 1] + change[:, 1] + orbit_radius * np.sin(phase),
            middle[:, 2] + change[:, 2],
            middle[:, 3] * np.exp(change[:, 3]),
        ],
        axis=1,
    )


def uniform_draws(
    generator: np.random.Generator, count: int, low: float | np.ndarray, high: float | np.ndarray, *shape: int
) -> np.ndarray:
    """Uniform draws, float32 [count, *shape]."""
    draws = generator.random((count, *shape), dtype=np.float32)
    return (low + (high - low) * draws).astype(np.float32)
