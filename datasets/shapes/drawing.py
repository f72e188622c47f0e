"""What the renderers of all worlds share: an object's distances at a pose, its coverage, and its trail."""

from dataclasses import dataclass, replace

import numpy as np

from datasets.shapes.outlines import TABLE_EXTENT, TABLE_SIZE
from datasets.shapes.paths import Moving, poses

NUM_GHOSTS = 3
GHOST_SPACING = 0.13  # of the clip between two ghosts of a trail
GHOST_WIDTH = 0.05


@dataclass(frozen=True)
class Shots:
    """N pictures to draw: of which scene, at which instant, on which grid."""

    scenes: Moving
    table: np.ndarray  # float32 [O, S, S], the outlines of its objects, see ``outlines.signed_distances``
    rows: np.ndarray  # int [N] into the scenes
    instants: np.ndarray  # float32 [N]
    y: np.ndarray  # float32 [H]
    x: np.ndarray  # float32 [W]


def shots_of(scenes: Moving, table: np.ndarray, instants: np.ndarray, size: tuple[int, int]) -> Shots:
    """B scenes at T instants each, float32 [B, T], as the N = B * T pictures to draw; size is height and width."""
    y, x = ((2 * np.arange(n, dtype=np.float32) + 1 - n) / min(size) for n in size)
    rows = np.repeat(np.arange(len(instants)), instants.shape[1])
    return Shots(scenes, table, rows, instants.reshape(-1).astype(np.float32), y, x)


def to_frames(canvas: np.ndarray) -> np.ndarray:
    """float32 [N, 3, H, W], 1 is white; overwritten -> uint8 [N, H, W, 3]."""
    np.clip(canvas, 0, 1, out=canvas)
    canvas *= 255
    return np.ascontiguousarray(np.rint(canvas, out=canvas).astype(np.uint8).transpose(0, 2, 3, 1))


def per_row(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """values[rows], [N] or [N, 3], with axes of size 1 up to the canvas's [N, 3, H, W]."""
    picked = values[rows]
    return picked.reshape(len(rows), *picked.shape[1:], *[1] * (4 - picked.ndim))


def draw_ghosts(canvas: np.ndarray, shots: Shots, opacity: np.ndarray, ink: np.ndarray) -> None:
    """A trail of thin outlines where the object was, fainter the longer ago, where opacity [N] is above 0.

    Args:
        canvas: float32 [N, 3, H, W], changed in place.
        ink: float32 [B], how light the lines of each scene are.
    """
    shown = np.flatnonzero(opacity > 0)
    hinted = replace(shots, rows=shots.rows[shown], instants=shots.instants[shown])
    clear = np.ones((len(shown), len(shots.y), len(shots.x)), dtype=np.float32)
    for k in range(1, NUM_GHOSTS + 1):
        pose = poses(shots.scenes, hinted.rows, hinted.instants - np.float32(k * GHOST_SPACING))
        distance, _, _ = sample_distance(pose, hinted)
        line = coverage(np.abs(distance) - GHOST_WIDTH, pose, hinted)
        clear *= 1 - line * (opacity[shown] * (1 - (k - 1) / NUM_GHOSTS))[:, None, None]
    canvas[shown] += (per_row(ink, hinted.rows) - canvas[shown]) * (1 - clear)[:, None]


def sample_distance(pose: np.ndarray, shots: Shots) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance, and x and y in the object's own frame, in radii: three float32 [N, H, W]."""
    cos, sin = np.cos(pose[:, 2:3]) / pose[:, 3:], np.sin(pose[:, 2:3]) / pose[:, 3:]
    dx, dy = shots.x - pose[:, :1], shots.y - pose[:, 1:2]  # [N, W], [N, H]
    local_x = (cos * dx)[:, None] + (sin * dy)[:, :, None]
    local_y = (cos * dy)[:, :, None] - (sin * dx)[:, None]
    cells, last = np.float32(TABLE_SIZE / (2 * TABLE_EXTENT)), TABLE_SIZE - 1
    column = np.clip((local_x + TABLE_EXTENT) * cells, 0, last).astype(np.int32)
    row = np.clip((local_y + TABLE_EXTENT) * cells, 0, last).astype(np.int32)
    first = (shots.scenes.object_ids[shots.rows] * TABLE_SIZE**2).astype(np.int32)
    index = first[:, None, None] + row * TABLE_SIZE + column
    return shots.table.reshape(-1)[index], local_x, local_y


def coverage(distance: np.ndarray, pose: np.ndarray, shots: Shots) -> np.ndarray:
    """Opacity [N, H, W] with an edge one pixel wide from distances [N, H, W] in radii."""
    radius_pixels = pose[:, 3] * min(len(shots.y), len(shots.x)) / 2
    return np.clip(0.5 - distance * radius_pixels[:, None, None], 0, 1)
