"""Film strips: four frames of a video in a small JPEG."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.clips.thumbnails import film_strip
from datasets.clips.video import VideoSource
from datasets.lists.records import VideoList


@pytest.mark.parametrize(("width", "height", "size"), [(128, 96, (4 * 128 + 6, 96)), (640, 96, (4 * 192 + 6, 29))])
def test_frames_lie_side_by_side_and_keep_their_shape(write_video, tmp_path, width, height, size):
    write_video(tmp_path / "a.mp4", width=width, height=height)
    strip = film_strip(VideoSource(VideoList.of_pairs(str(tmp_path), [("a.mp4", 0)])), 0)
    assert Image.open(io.BytesIO(strip)).size == size


def test_frames_are_from_the_whole_video(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(8):
        Image.new("RGB", (96, 96), (30 * number,) * 3).save(tmp_path / "a" / f"img_{number + 1:05d}.png")
    videos = VideoList(str(tmp_path), np.array([b"a"]), np.array([0]), np.array([8]))
    strip = film_strip(VideoSource(videos, image_tmpl="img_{:05d}.png"), 0)
    row = np.asarray(Image.open(io.BytesIO(strip)))[48, :, 0]
    np.testing.assert_allclose(row[[48, 146, 244, 342]], [30, 90, 150, 210], atol=2)


def test_an_unreadable_video_has_no_strip_and_a_warning(tmp_path, caplog):
    source = VideoSource(VideoList.of_pairs(str(tmp_path), [("gone.mp4", 0)]))
    assert film_strip(source, 0) is None
    assert "no picture of gone.mp4 (no such file)" in caplog.text
