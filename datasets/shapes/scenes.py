"""The scenes of the shapes set: how an object in motion and its distracting background look.

Lengths are in units of half the picture's shorter side, with the origin in the middle and y pointing down, so
that a positive angle is clockwise. A clip lasts from instant -0.5 to 0.5.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from datasets.shapes.world import MOTION_SIGNS, OBJECTS

NUM_CLUTTER = 6
MOSAIC_BLOCKS = 8
HUE_STEP = 5  # between the usual hues of neighbouring objects, in 1 / len(OBJECTS) of the colour wheel
HUE_SPREAD = 0.25  # radians

# The smallest and largest change over a clip of: x, y, angle (radians), log radius, orbit angle (radians).
MOTION_LOW = np.array([0.60, 0.60, 2.6, 0.75, 2.6], dtype=np.float32)
MOTION_HIGH = np.array([0.95, 0.95, 4.2, 1.15, 4.2], dtype=np.float32)
# Standard deviation of the change that a motion does not ask for, which only distracts.
MOTION_JITTER = np.array([0.06, 0.06, 0.15, 0.06, 0.0], dtype=np.float32)


@dataclass(frozen=True)
class Scenes:
    """B scenes; every array has B rows and, but for `object_ids`, is float32."""

    object_ids: np.ndarray  # [B] int64
    change: np.ndarray  # [B, 5] over the clip: x, y, angle, log radius, orbit angle
    middle: np.ndarray  # [B, 5] x, y, angle, radius, orbit phase at the clip's middle
    colours: np.ndarray  # [B, 2, 3] upper and lower half of the object, in [0, 1]
    is_outline: np.ndarray  # [B] 1 where the object is drawn as a line
    base: np.ndarray  # [B, 3] background colour
    waves: np.ndarray  # [B, 2, 4] frequency x, frequency y, phase, phase change over the clip
    wave_colours: np.ndarray  # [B, 2, 3]
    wave_sharpness: np.ndarray  # [B] 1 is a sine; more is closer to hard stripes
    mosaic: np.ndarray  # [B, 3, 8, 8] blocks of colour added to the background
    clutter: np.ndarray  # [B, M, 7] x, y, half width, half height, dx, dy over the clip, 1 for an ellipse
    clutter_colours: np.ndarray  # [B, M, 4] red, green, blue, opacity
    noise: np.ndarray  # [B] standard deviation of the pixel noise


def sample_scenes(
    object_ids: np.ndarray, motion_ids: np.ndarray, is_poster: np.ndarray, generator: np.random.Generator
) -> Scenes:
    """Draw the looks of B scenes.

    What is drawn from the generator does not depend on the objects and the motions: with equal generator states
    the two motions of a time-reversed pair visit the same poses, in opposite order.

    Args:
        object_ids: int [B], indices into OBJECTS.
        motion_ids: int [B], indices into MOTIONS.
        is_poster: bool [B], the shifted style: dark outlines on pale stripes.
        generator: the source of everything random.
    """
    count = len(object_ids)
    uniform = partial(_uniform, generator, count)
    poster = is_poster.astype(np.float32)
    signs = MOTION_SIGNS[motion_ids]
    # The second motion of each pair is the first one backwards, in the parts that only distract too.
    direction = 1 - 2 * (np.asarray(motion_ids)[:, None] % 2)
    jitter = direction * MOTION_JITTER * generator.standard_normal((count, 5), dtype=np.float32)
    change = np.where(signs == 0, jitter, signs * uniform(MOTION_LOW, MOTION_HIGH, 5))
    middle = np.concatenate(
        [uniform(-0.12, 0.12, 2), 0.35 * generator.standard_normal((count, 1), dtype=np.float32),
         uniform(0.42, 0.52, 1), uniform(0, 2 * np.pi, 1)], axis=1)  # fmt: skip
    bright = _object_colours(object_ids, generator)
    main = _blend(bright, 0.5 * bright, poster)
    lower = main * _blend(uniform(0.4, 0.65, 1), uniform(0.9, 1.0, 1), poster)
    base = _blend(uniform(0.05, 0.45, 3), uniform(0.65, 0.95, 3), poster)
    place = [uniform(-1.2, 1.2, NUM_CLUTTER, 2), uniform(0.06, 0.2, NUM_CLUTTER, 2)]
    travel = [uniform(-0.9, 0.9, NUM_CLUTTER, 2), np.round(uniform(0, 1, NUM_CLUTTER, 1))]
    clutter_rgb = _blend(uniform(0.1, 0.85, NUM_CLUTTER, 3), uniform(0.3, 0.9, NUM_CLUTTER, 3), poster)
    return Scenes(
        object_ids=np.asarray(object_ids, dtype=np.int64),
        change=change.astype(np.float32),
        middle=middle,
        colours=np.stack([main, lower], axis=1),
        is_outline=poster,
        base=base,
        waves=np.concatenate([uniform(-7, 7, 2, 2), uniform(0, 2 * np.pi, 2, 1), uniform(-6, 6, 2, 1)], axis=2),
        wave_colours=uniform(-0.13, 0.13, 2, 3),
        wave_sharpness=1 + 7 * poster,
        mosaic=uniform(-0.06, 0.06, 3, MOSAIC_BLOCKS, MOSAIC_BLOCKS),
        clutter=np.concatenate(place + travel, axis=2),
        clutter_colours=np.concatenate([clutter_rgb, uniform(0.5, 0.95, NUM_CLUTTER, 1)], axis=2),
        noise=uniform(0.0, 0.035),
    )


def poses(scenes: Scenes, rows: np.ndarray, instants: np.ndarray) -> np.ndarray:
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


def _uniform(
    generator: np.random.Generator, count: int, low: float | np.ndarray, high: float | np.ndarray, *shape: int
) -> np.ndarray:
    """Uniform draws, float32 [count, *shape]."""
    draws = generator.random((count, *shape), dtype=np.float32)
    return (low + (high - low) * draws).astype(np.float32)


def _blend(plain: np.ndarray, poster: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Rows of `poster` where weight [B] is 1, of `plain` where it is 0."""
    weight = weight.reshape(-1, *[1] * (plain.ndim - 1))
    return plain * (1 - weight) + poster * weight


def _object_colours(object_ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Bright colours [B, 3]: every object has a usual hue, as leaves and hearts do, and strays from it."""
    usual = 2 * np.pi * (np.asarray(object_ids) * HUE_STEP % len(OBJECTS)) / len(OBJECTS)
    hue = usual + HUE_SPREAD * generator.standard_normal(len(object_ids))
    wheel = np.clip(0.5 + np.cos(hue[:, None] + np.array([0, 2, 4]) * np.pi / 3), 0, 1)
    pale = generator.uniform(0.0, 0.35, (len(object_ids), 1))
    brightness = generator.uniform(0.8, 1.0, (len(object_ids), 1))
    return ((pale + (1 - pale) * wheel) * brightness).astype(np.float32)
