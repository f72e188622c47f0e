"""Pictures of predictions."""

from pathlib import Path

import numpy as np

SHOWN_FRAMES = 8


def plot_prediction(
    path: Path,
    title: str,
    frames: np.ndarray,
    seconds: np.ndarray,
    scores: dict[str, float],
    frame_scores: np.ndarray,
) -> None:
    """Draw frames, the most probable classes and their course over the video into a PNG.

    Args:
        frames: uint8 [T, S, S, 3], in the order of time; at most 8 are shown, evenly spread.
        seconds: [T], when they are shown.
        scores: k classes and their probabilities, the most probable first; none: only frames are drawn.
        frame_scores: [T, k], probabilities of these classes in each frame.
    """
    raise NotImplementedError
