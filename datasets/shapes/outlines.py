"""The objects of the shapes set as outlines, and the table of signed distances that the renderer samples."""

from functools import cache

import numpy as np

from datasets.shapes.world import OBJECTS

TABLE_SIZE = 160  # cells per side
TABLE_EXTENT = 1.5  # the table covers [-1.5, 1.5]^2 in units of the object's radius
_CIRCLE = np.linspace(0, 2 * np.pi, 48, endpoint=False)


@cache
def distance_table() -> np.ndarray:
    """Signed distances to the outline of every object of the demo's world, see ``signed_distances``."""
    outlines = outlines_of_demo()
    return signed_distances([outlines[name] for name in OBJECTS])


def signed_distances(outlines: list[list[np.ndarray]]) -> np.ndarray:
    """The table that objects are drawn from, negative inside.

    Args:
        outlines: of O objects, each as closed loops of points [V, 2] (x, y; y down) within about the unit circle.

    Returns:
        float32 [O, TABLE_SIZE, TABLE_SIZE] in units of the object's radius; rows are y, which points down.
    """
    centres = (np.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE * 2 * TABLE_EXTENT - TABLE_EXTENT
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)  # [S*S, 2] as x, y
    tables = [_signed_distance(grid, loops) for loops in outlines]
    return np.stack(tables).reshape(-1, TABLE_SIZE, TABLE_SIZE).astype(np.float32)


def _signed_distance(points: np.ndarray, loops: list[np.ndarray]) -> np.ndarray:
    """Distance [P] of points [P, 2] to closed polygons [V, 2]; inside is where a ray crosses an odd number."""
    nearest = np.full(len(points), np.inf)
    is_inside = np.zeros(len(points), dtype=bool)
    for loop in loops:
        for start, end in zip(loop, np.roll(loop, -1, axis=0), strict=True):
            edge, offset = end - start, points - start
            along = np.clip(offset @ edge / (edge @ edge), 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(offset - along[:, None] * edge, axis=1))
            if start[1] != end[1]:
                spans = (points[:, 1] < start[1]) != (points[:, 1] < end[1])
                crossing_x = start[0] + (points[:, 1] - start[1]) * edge[0] / edge[1]
                is_inside ^= spans & (points[:, 0] < crossing_x)
    return np.where(is_inside, -nearest, nearest)


def outlines_of_demo() -> dict[str, list[np.ndarray]]:
    """Each object as closed loops of points [V, 2] (x, y; y down) within about the unit circle."""
    t = _CIRCLE
    heart_x, heart_y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    leaf_t = np.linspace(-1, 1, 24)
    leaf_edge = 0.5 * (1 - leaf_t**2) * (1 + 0.35 * leaf_t)
    leaf = [*zip(leaf_edge, leaf_t, strict=True), *zip(-leaf_edge[-2:0:-1], leaf_t[-2:0:-1], strict=True)]
    a, b = 0.32, 0.95
    cross = [(a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    return {
        "star": [polar(np.arange(10) * np.pi / 5, np.tile([1.05, 0.45], 5))],
        "square": [points((-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76))],
        "triangle": [points((0, -1), (0.92, 0.7), (-0.92, 0.7))],
        "heart": [np.stack([heart_x / 16.5, -(heart_y + 2) / 15.5], axis=1)],
        "cross": [points(*cross, (-a, -b))],
        "moon": [_moon()],
        "flower": [polar(t, 0.75 + 0.27 * np.cos(6 * t))],
        "house": [points((0, -1), (0.95, -0.2), (0.7, -0.2), (0.7, 0.85), (0.22, 0.85), (0.22, 0.3),
                          (-0.22, 0.3), (-0.22, 0.85), (-0.7, 0.85), (-0.7, -0.2), (-0.95, -0.2))],
        "drop": [np.stack([0.68 * np.sin(t) * np.sin(t / 2) ** 1.2, -np.cos(t)], axis=1)],
        "ring": [polar(t, np.full_like(t, 0.95)), polar(t, np.full_like(t, 0.52))],
        "lightning bolt": [points((0.25, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25))],
        "hourglass": [points((-0.75, -0.95), (0.75, -0.95), (0.12, 0), (0.75, 0.95), (-0.75, 0.95), (-0.12, 0))],
        "arrow": [points((0, -1), (0.8, -0.1), (0.3, -0.1), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.1), (-0.8, -0.1))],
        "diamond": [points((0, -1), (0.6, 0), (0, 1), (-0.6, 0))],
        "leaf": [np.array(leaf)],
        "gear": [polar(np.arange(32) * np.pi / 16 + 0.1, np.tile([1, 1, 0.7, 0.7], 8)),
                 polar(t, np.full_like(t, 0.3))],
    }  # fmt: skip


def points(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, dtype=np.float64)


def polar(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Points [V, 2] at clockwise angles from the top."""
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _moon() -> np.ndarray:
    """A crescent: a circle of radius 0.95 minus a smaller one, shifted to the right, that cuts it."""
    outer = np.linspace(0.3 * np.pi, 1.7 * np.pi, 32)
    tip = 0.95 * np.array([np.cos(outer[-1]), np.sin(outer[-1])])
    centre = np.array([0.42, 0.0])
    half_angle = np.arctan2(tip[1] - centre[1], tip[0] - centre[0])
    inner = np.linspace(half_angle, -2 * np.pi - half_angle, 24)[1:-1]
    radius = np.linalg.norm(tip - centre)
    arcs = [
        0.95 * np.stack([np.cos(outer), np.sin(outer)], axis=1),
        centre + radius * np.stack([np.cos(inner), np.sin(inner)], axis=1),
    ]
    return np.concatenate(arcs) - np.array([-0.15, 0.0])
