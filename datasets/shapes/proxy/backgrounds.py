"""The eight scenes of the second world, as patterns over a plane that drifts.

A pattern gets coordinates u [N, 1, W] and v [N, H, 1], whose unit is half the picture's shorter side, and `grain`, a
function from cells (arrays of int that broadcast) to fixed random levels in [0, 1]; it gives colours [N, H, W, 3].
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from datasets.shapes.drawing import Shots
from datasets.shapes.proxy.looks import GRAIN_CELLS
from datasets.shapes.proxy.world import SCENES

Grain = Callable[[np.ndarray, np.ndarray], np.ndarray]


def draw_backgrounds(shots: Shots) -> np.ndarray:
    """The scenes of N pictures: float32 [N, 3, H, W]."""
    looks = shots.scenes
    canvas = np.empty((len(shots.rows), 3, len(shots.y), len(shots.x)), dtype=np.float32)
    for scene, draw in enumerate(_PATTERNS[name] for name in SCENES):
        (chosen,) = np.nonzero(looks.scene_ids[shots.rows] == scene)
        if not len(chosen):
            continue
        rows = shots.rows[chosen]
        shift = looks.place[rows, :2] + looks.place[rows, 3:] * shots.instants[chosen, None]  # [N, 2]
        scale = looks.place[rows, 2:3]
        u, v = scale * shots.x + shift[:, :1], scale * shots.y + shift[:, 1:]
        grain = partial(_grain, looks.grain[rows])
        colours = draw(u[:, None, :], v[:, :, None], grain) * looks.tint[rows][:, None, None, :]
        canvas[chosen] = colours.transpose(0, 3, 1, 2)
    return canvas


def _grain(levels: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """levels [N, C, C], repeated without end, at cells of N pictures that broadcast."""
    return levels[np.arange(len(levels))[:, None, None], row % GRAIN_CELLS, column % GRAIN_CELLS]


def _cells(position: np.ndarray, per_unit: float) -> np.ndarray:
    return np.floor(position * per_unit).astype(np.int64)


def _mix(level: np.ndarray, low: tuple[float, float, float], high: tuple[float, float, float]) -> np.ndarray:
    """Colours [N, H, W, 3] between two, at levels [N, H, W] in [0, 1]."""
    first, last = np.float32(low), np.float32(high)
    return first + (last - first) * level[..., None].astype(np.float32)


def _grass(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    return _mix(grain(_cells(u, 14), _cells(v, 3)), (0.05, 0.3, 0.05), (0.35, 0.72, 0.2))


def _sand(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    ripples = 0.5 + 0.5 * np.sin(7 * (u + 0.6 * v))
    return _mix(0.5 * ripples + 0.5 * grain(_cells(u, 16), _cells(v, 16)), (0.7, 0.55, 0.32), (0.95, 0.83, 0.58))


def _bricks(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    row = _cells(v, 3)
    along = 1.6 * u + 0.5 * (row % 2)
    is_joint = ((3 * v) % 1 < 0.2) | (along % 1 < 0.1)
    bricks = _mix(grain(_cells(along, 1), row), (0.5, 0.2, 0.12), (0.75, 0.35, 0.22))
    return np.where(is_joint[..., None], np.float32((0.78, 0.75, 0.7)), bricks)


def _sea(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    waves = 0.5 + 0.5 * np.sin(9 * v + 1.2 * np.sin(4 * u))
    return _mix(waves**3 * (0.6 + 0.4 * grain(_cells(u, 5), _cells(v, 5))), (0.05, 0.25, 0.55), (0.6, 0.85, 0.95))


def _night(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    return _mix(np.clip(18 * grain(_cells(u, 10), _cells(v, 10)) - 17, 0, 1), (0.04, 0.04, 0.15), (1, 1, 0.85))


def _snow(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    return _mix(np.clip(4 * grain(_cells(u, 6), _cells(v, 6)), 0, 1), (0.62, 0.72, 0.85), (0.95, 0.97, 1.0))


def _chessboard(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    dark = (_cells(u, 2.2) + _cells(v, 2.2)) % 2
    return _mix(dark * (0.9 + 0.1 * grain(_cells(u, 9), _cells(v, 9))), (0.88, 0.85, 0.78), (0.15, 0.13, 0.12))


def _carpet(u: np.ndarray, v: np.ndarray, grain: Grain) -> np.ndarray:
    lattice = np.abs((1.8 * u) % 1 - 0.5) + np.abs((1.8 * v) % 1 - 0.5)
    is_line = np.abs(lattice - 0.35) < 0.1
    return _mix(is_line * 0.9 + 0.1 * grain(_cells(u, 12), _cells(v, 12)), (0.42, 0.05, 0.22), (0.85, 0.65, 0.3))


_PATTERNS = {
    "on grass": _grass, "on sand": _sand, "in front of bricks": _bricks, "at sea": _sea, "at night": _night,
    "in the snow": _snow, "on a chessboard": _chessboard, "on a carpet": _carpet,
}  # fmt: skip
