"""Pictures of searches."""

import numpy as np
import pytest
from PIL import Image

from reports.search_plot import GAP, RIGHT, Found, beside_each_other, plot_searches

GREEN = np.array([int(RIGHT[place : place + 2], 16) for place in (1, 3, 5)])


def picture_of(path, *searches: Found) -> np.ndarray:
    plot_searches(path, searches)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def search(right: int, num_videos: int = 3) -> Found:
    strips = [np.zeros((4, 8, 8, 3), np.uint8)] * num_videos
    return Found("a star moving left, then $growing$", [0.5] * num_videos, strips, right)


def columns_of(picture: np.ndarray) -> np.ndarray:
    """Where green pixels are, as shares of the width."""
    return np.flatnonzero((np.abs(picture - GREEN).sum(axis=2) < 30).any(axis=0)) / picture.shape[1]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_the_right_video_has_the_green_frame(tmp_path, place):
    green = columns_of(picture_of(tmp_path / "x.png", search(place)))
    assert (place - 1) / 3 <= green.min() < green.max() <= place / 3


def test_a_video_that_is_not_shown_has_no_frame_and_its_place_is_written(tmp_path):
    behind, first = (picture_of(tmp_path / "x.png", search(place)) for place in (7, 1))
    assert not len(columns_of(behind))
    title = np.s_[: behind.shape[0] // 4, behind.shape[1] // 2 :]
    assert (behind[title] < 100).sum() > (first[title] < 100).sum()


def test_every_query_has_a_row_and_may_have_fewer_videos_than_the_next(tmp_path):
    one = picture_of(tmp_path / "x.png", search(1))
    two = picture_of(tmp_path / "x.png", search(1), search(1, num_videos=2))
    assert two.shape[0] == pytest.approx(2 * one.shape[0], abs=2)
    assert two.shape[1] == one.shape[1]


def test_frames_stand_in_the_order_of_time_with_white_between_them():
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 4, 3), np.uint8)
    row = beside_each_other(frames)[0, :, 0]
    assert row.tolist() == [0] * 4 + [255] * GAP + [1] * 4 + [255] * GAP + [2] * 4
