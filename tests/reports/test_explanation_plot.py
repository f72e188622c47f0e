"""Pictures of which text takes which frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.explanation_plot import BOTTOM, HEADING, LEFT, ROW, STRIP, TOP, WIDTH, plot_explanations

DPI = 110
LONG = "a long text of many words that goes on and on with $dollars$ until nobody wants to read the rest of it " * 3


def drawn(path: Path, num_frames: int, texts: list[str], shares: np.ndarray | None = None) -> np.ndarray:
    """The picture of two sets alike, grey [H, W]."""
    frames = np.zeros((num_frames, 8, 8, 3), np.uint8)
    shares = np.random.default_rng(0).random((num_frames, len(texts))) if shares is None else shares
    sets = {"static": (texts, shares), "steps": (texts, shares)}
    plot_explanations(path, LONG, frames, np.arange(num_frames) / 4, sets)
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("num_frames", [1, 5, 8, 96])
def test_maps_lie_below_the_frames_at_any_number_of_frames(tmp_path, num_frames):
    picture = drawn(tmp_path / "x.png", num_frames, ["a", "b", "c"])
    expected = TOP + STRIP + 2 * (HEADING + 3 * ROW) + BOTTOM
    assert picture.shape[0] == pytest.approx(expected * DPI, abs=2)
    top, left, right = int((TOP + STRIP) * DPI), int(LEFT * DPI), int((LEFT + WIDTH) * DPI)
    black = (picture[:top, left:right] < 20).any(axis=0)  # of the frames, each over the middle of its columns
    assert black[len(black) // 2 - 60 : len(black) // 2 + 60].mean() > 0.3
    gap = picture[top + 2 : top + 10, left:right]
    assert (gap == 255).all()


def test_long_texts_are_shortened_and_stay_beside_their_map(tmp_path):
    few, picture = (drawn(tmp_path / "x.png", 8, [text] * 3) for text in ("a", LONG))
    assert (picture[int((TOP + STRIP) * DPI) :, :4] == 255).all()  # nothing is cut at the edge
    inside = np.s_[int((TOP + STRIP + HEADING) * DPI) :, int(LEFT * DPI) + 4 : int((LEFT + WIDTH) * DPI)]
    np.testing.assert_array_equal(few[inside], picture[inside])


def test_what_takes_more_of_a_frame_is_darker(tmp_path):
    shares = np.tile([0.1, 0.9], (8, 1))
    picture = drawn(tmp_path / "x.png", 8, ["little", "much"], shares)
    rows = [int((TOP + STRIP + HEADING + (number + 0.25) * ROW) * DPI) for number in range(2)]
    little, much = (picture[row, int((LEFT + 0.1) * DPI)] for row in rows)
    assert much < little - 100
