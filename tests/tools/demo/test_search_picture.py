"""The picture of the demo's searches."""

import numpy as np
import pytest
from PIL import Image

from datasets.shapes.videos import encode_video
from tools.demo.search_picture import NUM_FRAMES, found, main


@pytest.fixture
def videos(tmp_path):
    """Three videos that are brighter the later they are in the list."""
    for name, level in zip("abc", (0, 100, 200), strict=True):
        encode_video(np.full((9, 64, 64, 3), level, np.uint8), tmp_path / f"{name}.mp4")
    return tmp_path


SIMILARITY = np.array([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4]], np.float32)
CAPTIONS, PATHS, OWNERS = np.array(["a first", "a second"]), np.array(["a.mp4", "b.mp4", "c.mp4"]), np.array([2, 0])


def test_videos_come_best_first_and_the_right_one_is_told(videos):
    first, second = (found(text, SIMILARITY, CAPTIONS, PATHS, OWNERS, videos, 2) for text in (0, 1))
    assert first.query == "a first"
    assert first.scores == pytest.approx([0.9, 0.5])
    assert first.right == 2
    assert second.right == 3  # behind the two that are shown
    assert [round(float(strip.mean()), -2) for strip in first.strips] == [100, 200]
    assert all(len(strip) == NUM_FRAMES for strip in first.strips)


def test_the_command_draws_what_a_test_has_saved(videos):
    np.savez(videos / "s.npz", similarity=SIMILARITY, captions=CAPTIONS, paths=PATHS, video_of_text=OWNERS)
    main([
        "--search", str(videos / "s.npz"), "--videos", str(videos), "--out", str(videos / "x.png"),
        "--queries", "2", "--found", "3",
    ])  # fmt: skip
    assert np.asarray(Image.open(videos / "x.png").convert("L")).min() < 50
