"""How the pictures of the second world look, as draws: what is shown (an index each) and how exactly."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from datasets.shapes.paths import sample_paths, uniform_draws
from datasets.shapes.proxy.world import ANY, COLOURS, OBJECTS, TEXTURES, USUAL_RATE, usual_colour, usual_texture

LARGER = 1.18  # than the objects of the demo's world, so that their outlines and textures can be seen
GRAIN_CELLS = 24
_USUAL = np.array([(usual_colour(i), usual_texture(i)) for i in range(len(OBJECTS))])
_RGB = np.array(
    [(0.85, 0.12, 0.12), (0.95, 0.5, 0.08), (0.95, 0.88, 0.15), (0.15, 0.65, 0.2), (0.15, 0.3, 0.9), (0.5, 0.15, 0.65),
     (0.98, 0.55, 0.75), (0.93, 0.93, 0.93)], dtype=np.float32)  # fmt: skip


@dataclass(frozen=True)
class Looks:
    """B scenes; every array has B rows. Ids are int64, all others float32."""

    object_ids: np.ndarray  # [B]
    motion_ids: np.ndarray  # [B]
    colour_ids: np.ndarray  # [B]
    texture_ids: np.ndarray  # [B]
    scene_ids: np.ndarray  # [B]
    style_ids: np.ndarray  # [B]
    change: np.ndarray  # [B, 5] see ``paths.Moving``
    middle: np.ndarray  # [B, 5]
    colours: np.ndarray  # [B, 3] of the object, in [0, 1]
    place: np.ndarray  # [B, 5] of the background: shift x and y, scale, drift x and y over the clip
    tint: np.ndarray  # [B, 3] factors of the background's colours
    grain: np.ndarray  # [B, C, C] in [0, 1]: blades, stars, flakes, grains
    noise: np.ndarray  # [B] standard deviation of the pixel noise


def sample_looks(
    object_ids: np.ndarray,
    motion_ids: np.ndarray,
    colour_ids: np.ndarray,
    scene_ids: np.ndarray,
    style_ids: np.ndarray,
    generator: np.random.Generator,
) -> Looks:
    """Draw the looks of B scenes.

    Args:
        object_ids: int [B], as all ids.
        colour_ids: ANY where the object has a usual colour or, by chance, another.
        generator: the source of everything random.
    """
    count = len(object_ids)
    uniform = partial(uniform_draws, generator, count)
    change, middle = sample_paths(motion_ids, generator)
    middle[:, 3] *= LARGER
    drawn = np.stack([generator.integers(len(names), size=count) for names in (COLOURS, TEXTURES)], axis=1)
    looks = np.where(generator.random((count, 2)) < USUAL_RATE, _USUAL[object_ids], drawn)
    colour_ids = np.where(colour_ids == ANY, looks[:, 0], colour_ids)
    return Looks(
        object_ids=np.asarray(object_ids, dtype=np.int64),
        motion_ids=np.asarray(motion_ids, dtype=np.int64),
        colour_ids=colour_ids,
        texture_ids=looks[:, 1],
        scene_ids=np.asarray(scene_ids, dtype=np.int64),
        style_ids=np.asarray(style_ids, dtype=np.int64),
        change=change,
        middle=middle,
        colours=np.clip(_RGB[colour_ids] * uniform(0.85, 1.05, 1) + uniform(-0.05, 0.05, 3), 0, 1),
        place=np.concatenate([uniform(0, 8, 2), uniform(0.8, 1.3, 1), uniform(-0.3, 0.3, 2)], axis=1),
        tint=uniform(0.75, 1.15, 1) * uniform(0.92, 1.08, 3),
        grain=uniform(0, 1, GRAIN_CELLS, GRAIN_CELLS),
        noise=uniform(0.0, 0.04),
    )
