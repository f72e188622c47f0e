"""The resize of OpenCV in its integers."""

import hashlib
import time

import numpy as np
import pytest
import torch

from datasets.clips.resize import resize, resize_short_side
from datasets.decode import DECODERS

# The beginning of SHA-256 of what cv2.resize (5.0.0, INTER_LINEAR) makes of ``pattern``, channels first.
OPENCV = [
    ((240, 320), (256, 341), "35ab78f632106f64"),
    ((360, 640), (256, 455), "9e622357f26cba7a"),
    ((96, 128), (54, 72), "9473306d2bd5d040"),
    ((480, 270), (455, 256), "97b4ab2848154061"),
    ((7, 5), (224, 224), "43f6e9460cf773d6"),
    ((1, 1), (3, 4), "64da015f82e59c8f"),
    ((1, 9), (4, 2), "7a62f5305e9d4a34"),
    ((33, 64), (33, 31), "2e409b56abe949d1"),
    ((33, 64), (11, 64), "4cb1feb711e6835c"),
    ((64, 64), (32, 32), "d09d931276599e7f"),
    ((1080, 1920), (224, 398), "25454e8db2fc4daf"),
    ((50, 1), (256, 5), "6f0d0f076c9ac778"),
]


def pattern(height: int, width: int) -> torch.Tensor:
    """uint8 [3, H, W]"""
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(height), torch.arange(width), indexing="ij")
    return ((y * y * 31 + x * x * 17 + y * x * 7 + c * 101 + y * 13 + x * 59) % 256).to(torch.uint8)


@pytest.mark.parametrize(("source", "target", "sha256"), OPENCV)
def test_pictures_are_those_of_opencv_to_the_last_bit(source, target, sha256):
    found = resize(pattern(*source), target)
    assert found.shape == (3, *target)
    assert hashlib.sha256(found.contiguous().numpy().tobytes()).hexdigest()[:16] == sha256


def frames_of(ost_golden, video: str, indices: np.ndarray) -> torch.Tensor:
    """uint8 [T, 3, H, W], decoded as the published code does."""
    return DECODERS["decord"](ost_golden.parent / "mote" / "videos" / video).read(indices)


@pytest.mark.usefixtures("decord")
def test_test_frames_are_the_published_ones(ost_golden):
    with np.load(ost_golden / "forward_T8.npz") as found:
        for video, indices, expected in zip(found["videos"], found["frame_indices"], found["frames"], strict=True):
            frames = resize_short_side(frames_of(ost_golden, str(video), indices), int(256 / 224 * 48))
            top, left = ((side - 48) // 2 for side in frames.shape[-2:])
            assert np.array_equal(frames[..., top : top + 48, left : left + 48].numpy(), expected)


@pytest.mark.usefixtures("decord")
@pytest.mark.parametrize("row", [0, 4])
def test_three_crops_are_the_published_ones(ost_golden, row):
    video = (ost_golden / "list.txt").read_text().splitlines()[row].split()[0]
    with np.load(ost_golden / "ref_ost_ft_1x3_T8.npz") as found:
        indices, expected = found["frame_indices"][row, 0, :2], found[f"pixels_{row}"][:, 0]
    frames = resize_short_side(frames_of(ost_golden, video, indices), 48)
    free = max(frames.shape[-2:]) - 48
    is_wide = frames.shape[-1] > 48
    for start, crop in zip((0, free // 2 * 2, free // 2), expected, strict=True):
        assert np.array_equal(frames.narrow(-1 if is_wide else -2, start, 48).numpy(), crop)


def test_the_memory_layout_and_leading_sides_do_not_matter():
    clip = torch.stack([pattern(20, 30), pattern(20, 30).flip(0)])
    expected = resize(clip, (13, 41))
    assert torch.equal(resize(clip.contiguous(memory_format=torch.channels_last), (13, 41)), expected)
    assert torch.equal(resize(clip[None], (13, 41)), expected[None])
    assert torch.equal(resize(clip[0, 0], (13, 41)), expected[0, 0])
    assert torch.equal(resize(clip[:0], (13, 41)), expected[:0])


def test_the_same_size_changes_nothing():
    picture = pattern(20, 30)
    assert torch.equal(resize(picture, (20, 30)), picture)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((240, 320), 256, (256, 341)), ((320, 240), 256, (341, 256)), ((99, 128), 54, (54, 70)), ((64, 64), 54, (54, 54))],
)
def test_the_long_side_is_rounded(size, short_side, expected):
    assert resize_short_side(pattern(*size), short_side).shape[-2:] == expected


@pytest.mark.parametrize(
    ("frames", "size"),
    [(torch.zeros(3, 4, 4), (2, 2)), (pattern(4, 4), (0, 2)), (pattern(4, 4)[:, :0], (2, 2))],
)
def test_what_is_no_picture_is_an_error(frames, size):
    with pytest.raises(ValueError, match="resize: expected uint8 pictures and sizes of at least 1 pixel, found"):
        resize(frames, size)


def test_a_clip_is_resized_in_a_fraction_of_a_second():
    clip = torch.randint(256, (32, 3, 240, 320), dtype=torch.uint8)
    resize_short_side(clip, 256)
    start = time.perf_counter()
    resize_short_side(clip, 256)
    assert time.perf_counter() - start < 2.0  # 0.1 on a machine with nothing else to do
