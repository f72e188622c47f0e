"""Some frames of a video through PyAV: those of a full decode bit for bit, and no more decoded than they need."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.decode import pyav_reader
from datasets.decode.pyav_reader import PyAVReader

# Frames that refer to others, and as many B-frames as asked for wherever they may be.
MOVING = {"is_moving": True, "b_strategy": 0, "sc_threshold": 0}
PYRAMID = {"bf": 7, "b-pyramid": "normal", "g": 20}
KINDS = {
    "no b.mp4": {"bf": 0, "g": 12},
    "b.mp4": {"bf": 3, "g": 12},
    "b.mkv": {"bf": 3, "g": 12},
    "b.ts": {"bf": 3, "g": 12},
    "b.flv": {"bf": 2, "g": 12},
    "every frame a key.mp4": {"g": 1},
    "one key.mp4": {"bf": 3, "g": 250},
    "pyramid.mp4": PYRAMID,
    "pyramid.ts": PYRAMID,
    "strict pyramid.mkv": PYRAMID | {"b-pyramid": "strict"},
    "open.mp4": {"bf": 3, "g": 12, "x264-params": "open-gop=1"},
    "open pyramid.mkv": PYRAMID | {"x264-params": "open-gop=1"},
    "many references.mp4": {"bf": 5, "g": 30, "refs": 8, "preset": "slow"},
    "no cabac.mp4": {"profile": "baseline", "g": 12, "bf": 0},
    "intra refresh.mp4": {"g": 12, "x264-params": "intra-refresh=1"},
    "interlaced.mp4": {"bf": 2, "g": 12, "x264-params": "tff=1"},
    "interlaced.ts": {"bf": 2, "g": 12, "x264-params": "bff=1"},
    "variable.mp4": {"gaps": (1, 4, 2), "bf": 3, "g": 12},
    "variable pyramid.mkv": PYRAMID | {"gaps": (3, 1, 1, 7)},
    "hevc.mp4": {"codec": "libx265", "g": 12, "x265-params": "log-level=error:bframes=4:b-pyramid=1:open-gop=1"},
    "vp9.webm": {"codec": "libvpx-vp9", "g": 12, "auto-alt-ref": 1, "lag-in-frames": 16},
    "vp8.webm": {"codec": "libvpx", "g": 12},
    "av1.mp4": {"codec": "libsvtav1", "g": 12, "preset": 12},
    "mpeg4.mp4": {"codec": "mpeg4", "bf": 2, "g": 12},
    "mpeg4.avi": {"codec": "mpeg4", "bf": 2, "g": 12},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": 2, "g": 12},
    "mpeg2.ts": {"codec": "mpeg2video", "bf": 2, "g": 12},
    "fields.mkv": {"codec": "mpeg2video", "bf": 2, "g": 12, "flags": "+ildct+ilme"},
}


def in_order(path: Path) -> Tensor:
    """All frames in the order in which FFmpeg shows them, uint8 [F, 3, H, W]."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def check_picks(path: Path, expected: Tensor) -> None:
    """Few and many frames, at random, and neighbours."""
    reader, rng = PyAVReader(path), np.random.default_rng(0)
    assert reader.num_frames == len(expected)
    picks = [rng.choice(len(expected), size, replace=False) for size in (1, 2, 4, 8)]
    for pick in [*picks, np.arange(len(expected)), np.array([0]), np.array([len(expected) - 1])]:
        assert torch.equal(reader.read(pick), expected[pick]), sorted(pick.tolist())


@pytest.mark.parametrize("name", KINDS)
def test_picked_frames_are_those_of_a_full_decode(tmp_path, write_video, name):
    options = MOVING | KINDS[name]
    if options.get("codec", "libx264") not in av.codec.codecs_available:
        pytest.skip(f"this FFmpeg does not write {options['codec']}")
    path = write_video(tmp_path / name, **options)
    check_picks(path, in_order(path))


def test_frames_beside_what_an_edit_list_hides(cut_videos):
    check_picks(cut_videos / "cut.mp4", in_order(cut_videos / "whole.mp4")[5:])


@pytest.mark.parametrize("name", ["b.mkv", "b.avi", "b.ts"])
def test_frames_of_a_truncated_file(tmp_path, write_video, name):
    path = write_video(tmp_path / name, bf=2 * (name != "b.avi"), g=12, **MOVING)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    expected = in_order(path)
    reader, pick = PyAVReader(path), np.array([3, 9, 14, 20])
    assert 20 < reader.num_frames <= 30
    assert torch.equal(reader.read(pick), expected[pick])


# --- no more than they need


@pytest.fixture
def packets_read(tmp_path, write_video) -> Callable[[int, bool], int]:
    """How many packets are read for the n-th frame of a video whose groups of 12 frames have 3 B-frames in a row."""
    path = write_video(tmp_path / "a.mp4", num_frames=48, bf=3, g=12, **MOVING)
    index = PyAVReader(path)._index

    def count(number: int, is_cut_short: bool) -> int:
        ((keyframe, wanted),) = index.groups(np.array([number]))
        with pyav_reader.open_video(path) as (container, stream):
            order = [packet.dts for packet in container.demux(stream) if packet.size]
            container.seek(keyframe, stream=stream)
            start = order.index(next(container.demux(stream)).dts)
            container.seek(keyframe, stream=stream)
            (frame,) = pyav_reader._decode(container, stream, wanted, is_cut_short)
            assert {frame.pts} == wanted
            following = next(container.demux(stream)).dts
            return (order.index(following) if following is not None else len(order)) - start

    return count


def test_nothing_after_the_last_wanted_packet_is_read(packets_read):
    assert packets_read(12, True) == 1  # a key frame
    assert packets_read(16, True) == 2  # a P-frame of the next three B-frames, which come after it
    assert packets_read(12, False) > 2


def test_fields_of_pictures_are_not_cut_short(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / "a.mp4", bf=2, g=12, **{"x264-params": "tff=1"})
    ways, decode = [], pyav_reader._decode
    monkeypatch.setattr(pyav_reader, "_decode", lambda *args: ways.append(args[-1]) or decode(*args))
    PyAVReader(path).read(np.array([3, 30]))
    assert ways == [True, False, False]


def test_what_is_missing_when_cut_short_is_looked_for_in_full(tmp_path, write_video, monkeypatch):
    path, decode = write_video(tmp_path / "a.mp4", bf=2, g=12), pyav_reader._decode
    monkeypatch.setattr(pyav_reader, "_decode", lambda *args: iter(()) if args[-1] else decode(*args))
    monkeypatch.setattr(PyAVReader, "_by_counting", lambda *args: pytest.fail("counted"))
    assert torch.equal(PyAVReader(path).read(np.array([3, 30])), in_order(path)[[3, 30]])


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no such policies")
def test_written_videos_leave_the_process_as_it_was(tmp_path, write_video):
    if "libsvtav1" not in av.codec.codecs_available:
        pytest.skip("this FFmpeg does not write AV1")
    before = os.sched_getscheduler(0)
    write_video(tmp_path / "av1.mp4", num_frames=3, codec="libsvtav1", preset=12)
    assert os.sched_getscheduler(0) == before
