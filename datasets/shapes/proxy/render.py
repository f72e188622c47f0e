"""The renderer of the second world: looks at given instants, to frames in the style of each."""

import numpy as np

from datasets.shapes.drawing import Shots, coverage, draw_ghosts, per_row, sample_distance, shots_of, to_frames
from datasets.shapes.paths import poses
from datasets.shapes.proxy.backgrounds import draw_backgrounds
from datasets.shapes.proxy.looks import Looks
from datasets.shapes.proxy.outlines import distance_table
from datasets.shapes.proxy.world import STYLES, TEXTURES

EDGE_WIDTH = 0.09  # of the dark line inside an outline, in object radii
MOSAIC_TILES = 14  # along the shorter side
LIGHTNESS = np.array([0.3, 0.59, 0.11], dtype=np.float32)


def render(
    looks: Looks,
    instants: np.ndarray,
    ghost_opacity: np.ndarray,
    size: tuple[int, int],
    generator: np.random.Generator,
) -> np.ndarray:
    """Draw B scenes at T instants each, as ``datasets.shapes.render.render`` does those of the demo's world.

    Args:
        instants: float32 [B, T] in [-0.5, 0.5].
        ghost_opacity: float32 [B, T] in [0, 1].
        size: height and width in pixels.
        generator: the source of the pixel noise.

    Returns:
        uint8 [B, T, H, W, 3], RGB.
    """
    shots = shots_of(looks, distance_table(), instants, size)
    canvas = draw_backgrounds(shots)  # [N, 3, H, W]
    _draw_objects(canvas, shots)
    draw_ghosts(canvas, shots, ghost_opacity.reshape(-1), ink=np.ones(len(looks.style_ids), dtype=np.float32))
    styles = looks.style_ids[shots.rows]
    for style, draw in _DRAWN_AS.items():
        (chosen,) = np.nonzero(styles == STYLES.index(style))
        if len(chosen):
            canvas[chosen] = draw(np.clip(canvas[chosen], 0, 1))
    canvas += generator.standard_normal(canvas.shape, dtype=np.float32) * per_row(looks.noise, shots.rows)
    return to_frames(canvas).reshape(*instants.shape, *size, 3)


def _draw_objects(canvas: np.ndarray, shots: Shots) -> None:
    looks, rows = shots.scenes, shots.rows
    pose = poses(looks, rows, shots.instants)
    distance, local_x, local_y = sample_distance(pose, shots)
    tone = 1 - 0.6 * _texture(looks.texture_ids[rows], local_x, local_y)
    tone *= 1 - 0.18 * np.clip(0.5 + 4 * local_y, 0, 1)  # so that even a round object shows how it is turned
    is_edge = coverage(-distance - EDGE_WIDTH, pose, shots)  # 1 from the edge line on outwards
    tone *= 1 - 0.85 * is_edge
    colours = per_row(looks.colours, rows) * tone[:, None]
    canvas += (colours - canvas) * coverage(distance, pose, shots)[:, None]


def _texture(texture_ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How dark the texture is, [N, H, W] in [0, 1], at places in the object's own frame, in radii."""
    dark = np.zeros_like(x)
    for name, draw in _TEXTURED_AS.items():
        (chosen,) = np.nonzero(texture_ids == TEXTURES.index(name))
        dark[chosen] = draw(x[chosen], y[chosen])
    return dark


def _soft(level: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 2 * level, 0, 1)


_TEXTURED_AS = {
    "striped": lambda x, y: _soft(np.sin(9 * y)),
    "dotted": lambda x, y: _soft(2 * (np.cos(8.5 * x) * np.cos(8.5 * y) - 0.45)),
    "checked": lambda x, y: _soft(3 * np.sin(6 * x) * np.sin(6 * y)),
}


def _steepness(canvas: np.ndarray) -> np.ndarray:
    """How much neighbouring pixels differ in lightness, [N, H, W]."""
    light = np.einsum("nchw,c->nhw", canvas, LIGHTNESS)
    down = np.diff(light, axis=1, append=light[:, -1:])
    right = np.diff(light, axis=2, append=light[:, :, -1:])
    return np.hypot(down, right)


def _sketch(canvas: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(0.96 - 2.2 * _steepness(canvas), 0, 1)[:, None], 3, axis=1)


def _neon(canvas: np.ndarray) -> np.ndarray:
    """Lines that shine in the colour of what they bound, on black."""
    pure = canvas / np.maximum(canvas.max(axis=1, keepdims=True), 0.05)
    return np.clip(0.12 * canvas + np.clip(3.5 * _steepness(canvas), 0, 1)[:, None] * pure, 0, 1)


def _mosaic(canvas: np.ndarray) -> np.ndarray:
    """Tiles of one colour each, that of the pixels below them."""
    for axis in (2, 3):
        length, short = canvas.shape[axis], min(canvas.shape[2:])
        starts = np.unique(np.arange(0, length * MOSAIC_TILES // short + 1) * short // MOSAIC_TILES)
        starts = starts[starts < length]
        sizes = np.diff(starts, append=length)
        shape = [-1 if a == axis else 1 for a in range(4)]
        means = np.add.reduceat(canvas, starts, axis=axis) / sizes.reshape(shape)
        canvas = np.repeat(means, sizes, axis=axis)
    return canvas


_DRAWN_AS = {"sketch": _sketch, "neon sign": _neon, "negative": lambda canvas: 1 - canvas, "mosaic": _mosaic}
