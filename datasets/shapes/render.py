"""The renderer of the shapes set: scenes at given instants, to frames.

Everything works on B scenes at T instants at once, so that a video (B = 1) and a batch of unrelated pictures
(T = 1) come from the same code.
"""

import numpy as np

from datasets.shapes.drawing import Shots, coverage, draw_ghosts, per_row, sample_distance, shots_of, to_frames
from datasets.shapes.outlines import distance_table
from datasets.shapes.paths import poses
from datasets.shapes.scenes import MOSAIC_BLOCKS, NUM_CLUTTER, Scenes

OUTLINE_WIDTH = 0.12  # half the width of a poster's line, in object radii


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
    shots = shots_of(scenes, distance_table(), instants, size)
    rows = shots.rows
    canvas = _draw_background(shots)  # [N, 3, H, W]: planes are much faster to broadcast over than pixels
    _draw_clutter(canvas, shots)
    _draw_object(canvas, shots)
    # White on dark pictures, black on posters.
    draw_ghosts(canvas, shots, ghost_opacity.reshape(-1), ink=1 - scenes.is_outline)
    canvas += generator.standard_normal(canvas.shape, dtype=np.float32) * per_row(scenes.noise, rows)
    return to_frames(canvas).reshape(num_scenes, num_frames, *size, 3)


def _draw_background(shots: Shots) -> np.ndarray:
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
        canvas += level[:, None] * per_row(scenes.wave_colours[:, k], rows)
    return canvas


def _draw_clutter(canvas: np.ndarray, shots: Shots) -> None:
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


def _draw_object(canvas: np.ndarray, shots: Shots) -> None:
    scenes, rows = shots.scenes, shots.rows
    pose = poses(scenes, rows, shots.instants)
    distance, _, local_y = sample_distance(pose, shots)
    is_outline = scenes.is_outline[rows, None, None]
    distance = np.where(is_outline > 0, np.abs(distance) - OUTLINE_WIDTH, distance)
    alpha = coverage(distance, pose, shots)[:, None]
    # Two tones, so that even a round object shows how it is turned.
    shade = np.clip(0.5 + 4 * local_y, 0, 1)[:, None]
    upper, lower = (per_row(scenes.colours[:, half], rows) for half in (0, 1))
    canvas += (upper + (lower - upper) * shade - canvas) * alpha
