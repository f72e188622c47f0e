"""The scenes of the shapes set: how an object in motion and its distracting background look.

Lengths and instants are those of `datasets/shapes/paths.py`.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from datasets.shapes.paths import sample_paths, uniform_draws
from datasets.shapes.world import OBJECTS

NUM_CLUTTER = 6
MOSAIC_BLOCKS = 8
HUE_STEP = 5  # between the usual hues of neighbouring objects, in 1 / len(OBJECTS) of the colour wheel
HUE_SPREAD = 0.25  # radians


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
    uniform = partial(uniform_draws, generator, count)
    poster = is_poster.astype(np.float32)
    change, middle = sample_paths(motion_ids, generator)
    bright = _object_colours(object_ids, generator)
    main = _blend(bright, 0.5 * bright, poster)
    lower = main * _blend(uniform(0.4, 0.65, 1), uniform(0.9, 1.0, 1), poster)
    base = _blend(uniform(0.05, 0.45, 3), uniform(0.65, 0.95, 3), poster)
    place = [uniform(-1.2, 1.2, NUM_CLUTTER, 2), uniform(0.06, 0.2, NUM_CLUTTER, 2)]
    travel = [uniform(-0.9, 0.9, NUM_CLUTTER, 2), np.round(uniform(0, 1, NUM_CLUTTER, 1))]
    clutter_rgb = _blend(uniform(0.1, 0.85, NUM_CLUTTER, 3), uniform(0.3, 0.9, NUM_CLUTTER, 3), poster)
    return Scenes(
        object_ids=np.asarray(object_ids, dtype=np.int64),
        change=change,
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
