"""The outlines of the second world's objects: those of the demo's world, and as many others."""

from functools import cache

import numpy as np

from datasets.shapes.outlines import outlines_of_demo, points, polar, signed_distances
from datasets.shapes.proxy.world import OBJECTS


@cache
def distance_table() -> np.ndarray:
    """Signed distances to the outline of every object, see ``signed_distances``."""
    outlines = outlines_of_demo() | _more_outlines()
    return signed_distances([outlines[name] for name in OBJECTS])


def _more_outlines() -> dict[str, list[np.ndarray]]:
    """Closed loops of points [V, 2] (x, y; y down) within about the unit circle; a loop in a loop is a hole."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    pane = [(0.12, 0.12), (0.65, 0.12), (0.65, 0.65), (0.12, 0.65)]
    panes = [points(*((x * a, y * b) for a, b in pane)) for x in (-1, 1) for y in (-1, 1)]
    teeth = [(x + dx, y) for x in (0.95, 0.5, 0.05, -0.4) for dx, y in ((0, 0.75), (-0.22, 0.75), (-0.22, -0.15),
             (-0.45, -0.15))]  # fmt: skip
    return {
        "cup": [points((-0.85, -0.8), (0.4, -0.8), (0.37, -0.5), (0.95, -0.5), (0.95, 0.45), (0.3, 0.45), (0.25, 0.85),
                       (-0.7, 0.85)), points((0.42, -0.22), (0.7, -0.22), (0.7, 0.17), (0.38, 0.17))],
        "fish": [np.concatenate([_arc((-0.25, 0), 0.72, 25, 335, flat=0.75),
                                 points((0.98, -0.62), (0.8, 0), (0.98, 0.62))])],
        "key": [np.concatenate([_arc((0, -0.5), 0.48, 110, 430), points((0.15, 0.3), (0.5, 0.3), (0.5, 0.5),
                (0.15, 0.5), (0.15, 0.68), (0.6, 0.68), (0.6, 0.9), (-0.15, 0.9))]), _arc((0, -0.5), 0.2, 0, 345)],
        "mushroom": [np.concatenate([_arc((0, 0), 0.95, 180, 360, flat=0.95),
                                     points((0.3, 0.08), (0.36, 0.92), (-0.36, 0.92), (-0.3, 0.08))])],
        "hammer": [points((-0.8, -0.9), (0.8, -0.9), (0.8, -0.35), (0.17, -0.35), (0.17, 1), (-0.17, 1),
                          (-0.17, -0.35), (-0.8, -0.35))],
        "boat": [points((0, -1), (0.75, 0.2), (0.1, 0.2), (0.1, 0.38), (1, 0.38), (0.55, 0.9), (-0.55, 0.9),
                        (-1, 0.38), (-0.1, 0.38), (-0.1, -0.8))],
        "rocket": [points((0, -1), (0.36, -0.5), (0.36, 0.3), (0.8, 0.95), (0.2, 0.65), (-0.2, 0.65), (-0.8, 0.95),
                          (-0.36, 0.3), (-0.36, -0.5))],
        "clover": [polar(t, 0.3 + 0.68 * np.abs(np.sin(1.5 * t)))],
        "tree": [points((0, -1), (0.5, -0.4), (0.25, -0.4), (0.7, 0.15), (0.35, 0.15), (0.85, 0.65), (0.17, 0.65),
                        (0.17, 1), (-0.17, 1), (-0.17, 0.65), (-0.85, 0.65), (-0.35, 0.15), (-0.7, 0.15),
                        (-0.25, -0.4), (-0.5, -0.4))],
        "crown": [points((-0.95, -0.6), (-0.45, 0), (0, -0.85), (0.45, 0), (0.95, -0.6), (0.8, 0.7), (-0.8, 0.7))],
        "bottle": [points((-0.17, -1), (0.17, -1), (0.17, -0.45), (0.45, -0.15), (0.45, 1), (-0.45, 1), (-0.45, -0.15),
                          (-0.17, -0.45))],
        "spoon": [np.concatenate([_arc((0, -0.5), 0.5, 105, 435), points((0.13, 1), (-0.13, 1))])],
        "comb": [points((-0.95, -0.65), (0.95, -0.65), *teeth[:-1], (-0.62, 0.75), (-0.95, 0.75))],
        "chair": [points((-0.62, -1), (-0.32, -1), (-0.32, -0.02), (0.62, -0.02), (0.62, 1), (0.34, 1), (0.34, 0.32),
                         (-0.34, 0.32), (-0.34, 1), (-0.62, 1))],
        "window": [points((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)), *panes],
        "fork": [points((-0.55, -1), (-0.33, -1), (-0.33, -0.4), (-0.11, -0.4), (-0.11, -1), (0.11, -1), (0.11, -0.4),
                        (0.33, -0.4), (0.33, -1), (0.55, -1), (0.55, -0.1), (0.14, 0.15), (0.14, 1), (-0.14, 1),
                        (-0.14, 0.15), (-0.55, -0.1))],
    }  # fmt: skip


def _arc(centre: tuple[float, float], radius: float, first: float, last: float, flat: float = 1.0) -> np.ndarray:
    """24 points [24, 2] from one angle to another, clockwise degrees from the right; `flat` scales the height."""
    angles = np.radians(np.linspace(first, last, 24))
    return np.array(centre) + radius * np.stack([np.cos(angles), flat * np.sin(angles)], axis=1)
