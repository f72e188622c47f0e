"""The renderer of the shapes set: scenes at given instants, to frames.

Everything works on B scenes at T instants at once, so that a video (B = 1) and a batch of unrelated pictures
(T = 1) come from the same code.
"""

from dataclasses import dataclass, replace

import numpy as np

from datasets.shapes.outlines import TABLE_EXTENT, TABLE_SIZE, distance_table
from datasets.shapes.scenes import MOSAIC_BLOCKS, NUM_CLUTTER, Scenes, poses

NUM_GHOSTS = 3
GHOST_SPACING = 0.13  # of the clip between two ghosts of a trail
OUTLINE_WIDTH = 0.12  # half the width of a poster's line, in object radii
GHOST_WIDTH = 0.05


def render(
    scenes: Scenes,
    instants: np.ndarray,
    ghost_opacity: np.ndarray,
    size: tuple[int, int],
    generator: np.random.Generator,
) -> np.ndarray:
    """Draw B scenes at T instants each.

    Args:
        scenes: B scenes.
        instants: float32 [B, T] in [-0.5, 0.5], from the clip's start to its end.
        ghost_opacity: float32 [B, T] in [0, 1], how clearly a trail of past outlines hints at the motion.
        size: height and width in pixels.
        generator: the source of the pixel noise.

    Returns:
        uint8 [B, T, H, W, 3], RGB.
    """
    num_scenes, num_frames = instants.shape
    short = min(size)
    y, x = ((2 * np.arange(n, dtype=np.float32) + 1 - n) / short for n in size)
    rows = np.repeat(np.arange(num_scenes), num_frames)
    shots = _Shots(scenes, rows, instants.reshape(-1).astype(np.float32), y, x)
    canvas = _draw_background(shots)  # [N, 3, H, W]: planes are much faster to broadcast over than pixels
    _draw_clutter(canvas, shots)
    _draw_object(canvas, shots)
    _draw_ghosts(canvas, shots, ghost_opacity.reshape(-1))
    canvas += generator.standard_normal(canvas.shape, dtype=np.float32) * _per_row(scenes.noise, rows)
    np.clip(canvas, 0, 1, out=canvas)
    canvas *= 255
    frames = np.rint(canvas, out=canvas).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(frames).reshape(num_scenes, num_frames, *size, 3)


@dataclass(frozen=True)
class _Shots:
    """N pictures to draw: of which scene, at which instant, on which grid."""

    scenes: Scenes
    rows: np.ndarray  # int [N] into the scenes
    instants: np.ndarray  # float32 [N]
    y: np.ndarray  # float32 [H]
    x: np.ndarray  # float32 [W]


def _per_row(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """values[rows], [N] or [N, 3], with axes of size 1 up to the canvas's [N, 3, H, W]."""
    picked = values[rows]
    return picked.reshape(len(rows), *picked.shape[1:], *[1] * (4 - picked.ndim))


def _draw_background(shots: _Shots) -> np.ndarray:
    """Drifting waves of colour over a mosaic: float32 [N, 3, H, W]."""
    scenes, rows, y, x = shots.scenes, shots.rows, shots.y, shots.x
    block_y, block_x = (np.arange(len(n)) * MOSAIC_BLOCKS // len(n) for n in (y, x))
    still = scenes.base[:, :, None, None] + scenes.mosaic[:, :, block_y][..., block_x]  # [B, 3, H, W]
    canvas = still[rows]
    for k in range(scenes.waves.shape[1]):
        wave = scenes.waves[rows, k]  # [N, 4]
        phase_x = wave[:, :1] * x + wave[:, 2:3] + wave[:, 3:] * shots.instants[:, None]  # [N, W]
        phase_y = wave[:, 1:2] * y  # [N, H]
        # sin(a + b) from one-dimensional sines, which is far cheaper than a sine per pixel.
        level = np.cos(phase_y)[:, :, None] * np.sin(phase_x)[:, None]
        level += np.sin(phase_y)[:, :, None] * np.cos(phase_x)[:, None]
        level = np.clip(level * scenes.wave_sharpness[rows, None, None], -1, 1)
        canvas += level[:, None] * _per_row(scenes.wave_colours[:, k], rows)
    return canvas


def _draw_clutter(canvas: np.ndarray, shots: _Shots) -> None:
    """Small moving boxes and ellipses, painted onto the canvas in place."""
    scenes, rows = shots.scenes, shots.rows
    top_piece = np.full((len(rows), len(shots.y), len(shots.x)), NUM_CLUTTER)  # NUM_CLUTTER: none is there
    for m in range(NUM_CLUTTER):
        piece = scenes.clutter[rows, m]  # [N, 7]
        centre = piece[:, :2] + piece[:, 4:6] * shots.instants[:, None]
        dx = np.abs(shots.x - centre[:, :1]) / piece[:, 2:3]
        dy = np.abs(shots.y - centre[:, 1:]) / piece[:, 3:4]
        # dx^2 + dy^2 < 1 inside an ellipse; in a box each of dx and dy is below 1.
        is_ellipse = piece[:, 6:7] > 0.5
        reach_x, reach_y = (np.where(is_ellipse, d**2, d >= 1).astype(np.float32) for d in (dx, dy))
        top_piece[reach_y[:, :, None] + reach_x[:, None] < 1] = m
    blank = np.zeros((len(scenes.clutter), 1, 4), dtype=np.float32)
    palette = np.concatenate([scenes.clutter_colours, blank], axis=1)[rows].reshape(-1, 4)
    top_piece += np.arange(len(rows))[:, None, None] * (NUM_CLUTTER + 1)
    opacity = palette[:, 3][top_piece]
    for channel in range(3):
        plane = canvas[:, channel]
        plane += (palette[:, channel][top_piece] - plane) * opacity


def _draw_object(canvas: np.ndarray, shots: _Shots) -> None:
    scenes, rows = shots.scenes, shots.rows
    pose = poses(scenes, rows, shots.instants)
    distance, local_y = _sample_distance(pose, shots)
    is_outline = scenes.is_outline[rows, None, None]
    distance = np.where(is_outline > 0, np.abs(distance) - OUTLINE_WIDTH, distance)
    alpha = _coverage(distance, pose, shots)[:, None]
    # Two tones, so that even a round object shows how it is turned.
    shade = np.clip(0.5 + 4 * local_y, 0, 1)[:, None]
    upper, lower = (_per_row(scenes.colours[:, half], rows) for half in (0, 1))
    canvas += (upper + (lower - upper) * shade - canvas) * alpha


def _draw_ghosts(canvas: np.ndarray, shots: _Shots, opacity: np.ndarray) -> None:
    """A trail of thin outlines where the object was, fainter the longer ago, where opacity [N] is above 0."""
    shown = np.flatnonzero(opacity > 0)
    hinted = replace(shots, rows=shots.rows[shown], instants=shots.instants[shown])
    clear = np.ones((len(shown), len(shots.y), len(shots.x)), dtype=np.float32)
    for k in range(1, NUM_GHOSTS + 1):
        pose = poses(shots.scenes, hinted.rows, hinted.instants - np.float32(k * GHOST_SPACING))
        distance, _ = _sample_distance(pose, hinted)
        line = _coverage(np.abs(distance) - GHOST_WIDTH, pose, hinted)
        clear *= 1 - line * (opacity[shown] * (1 - (k - 1) / NUM_GHOSTS))[:, None, None]
    ink = _per_row(1 - shots.scenes.is_outline, hinted.rows)  # white on dark pictures, black on posters
    canvas[shown] += (ink - canvas[shown]) * (1 - clear)[:, None]


def _sample_distance(pose: np.ndarray, shots: _Shots) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance and vertical coordinate in the object's own frame, in radii: two float32 [N, H, W]."""
    cos, sin = np.cos(pose[:, 2:3]) / pose[:, 3:], np.sin(pose[:, 2:3]) / pose[:, 3:]
    dx, dy = shots.x - pose[:, :1], shots.y - pose[:, 1:2]  # [N, W], [N, H]
    local_x = (cos * dx)[:, None] + (sin * dy)[:, :, None]
    local_y = (cos * dy)[:, :, None] - (sin * dx)[:, None]
    cells, last = np.float32(TABLE_SIZE / (2 * TABLE_EXTENT)), TABLE_SIZE - 1
    column = np.clip((local_x + TABLE_EXTENT) * cells, 0, last).astype(np.int32)
    row = np.clip((local_y + TABLE_EXTENT) * cells, 0, last).astype(np.int32)
    first = (shots.scenes.object_ids[shots.rows] * TABLE_SIZE**2).astype(np.int32)
    index = first[:, None, None] + row * TABLE_SIZE + column
    return distance_table().reshape(-1)[index], local_y


def _coverage(distance: np.ndarray, pose: np.ndarray, shots: _Shots) -> np.ndarray:
    """Opacity [N, H, W] with an edge one pixel wide from distances [N, H, W] in radii."""
    radius_pixels = pose[:, 3] * min(len(shots.y), len(shots.x)) / 2
    return np.clip(0.5 - distance * radius_pixels[:, None, None], 0, 1)
