"""Decoders: the choice among them, the same frames from all, exact frame numbers from PyAV, flat memory."""

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.decode import decoders, pyav_reader
from datasets.decode.decoders import AUTO, DECODERS, installed_decoders, resolve_decoder
from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import UnreadableVideo

SOAK_DECODES, SOAK_MIB = 2000, 16


def in_order(path: Path) -> torch.Tensor:
    """All frames in the order in which FFmpeg shows them, uint8 [F, 3, H, W]."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


# --- the choice


@pytest.fixture
def fresh():
    """No remembered trials, before and after."""
    for cached in (resolve_decoder, decoders._problem):
        cached.cache_clear()
    yield
    for cached in (resolve_decoder, decoders._problem):
        cached.cache_clear()


def broken_decoder(path):
    raise ImportError("no such library")


def test_auto_is_pyav_and_says_so_once(fresh, caplog):
    with caplog.at_level("INFO"):
        assert [resolve_decoder(AUTO), resolve_decoder(AUTO)] == ["pyav", "pyav"]
    assert caplog.text.count("are decoded by pyav") == 1


def test_a_decoder_that_gives_garbage_is_passed_over(fresh, monkeypatch):
    class Garbage:
        def __init__(self, path):
            pass

        def read(self, indices):
            return torch.zeros(len(indices), 4, 96, 128)

    monkeypatch.setitem(DECODERS, "decord", Garbage)
    assert "decord" not in installed_decoders()


def test_a_decoder_asked_for_by_name_must_work(fresh, monkeypatch):
    monkeypatch.setitem(DECODERS, "torchcodec", broken_decoder)
    with pytest.raises(ValueError, match=r"data\.decoder is torchcodec.*no such library.*decoders\.md"):
        resolve_decoder("torchcodec")


@pytest.mark.parametrize(("decoder", "library"), [("decord", "decord"), ("torchcodec", "torchcodec.decoders")])
def test_a_library_that_is_not_installed_is_one_line(fresh, monkeypatch, decoder, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"data\.decoder is {decoder}, but .* does not work here .*decoders\.md"):
        resolve_decoder(decoder)


def test_auto_takes_no_other_decoder_in_silence(fresh, monkeypatch):
    monkeypatch.setitem(DECODERS, "pyav", broken_decoder)
    with pytest.raises(ValueError, match=r"pyav does not work here \(no such library\)"):
        resolve_decoder(AUTO)


# --- the same frames


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_all_decoders_show_the_same_frames(tmp_path, write_video, name):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = write_video(tmp_path / name, codec=codec, g=12)
    shown = [DECODERS[decoder](path).read(np.array([39, 0, 25])) for decoder in installed_decoders()]
    assert all(torch.equal(frames, shown[0]) for frames in shown)


@pytest.mark.parametrize("name", ["turned.mp4", "variable.mp4", "one.mp4"])
def test_all_decoders_turn_and_count_alike(odd_videos, name):
    readers = [DECODERS[decoder](odd_videos / name) for decoder in installed_decoders()]
    assert len({reader.num_frames for reader in readers}) == 1
    shown = [reader.read(np.arange(reader.num_frames)) for reader in readers]
    assert all(torch.equal(frames, shown[0]) for frames in shown)


def test_a_turned_video_stands_upright(odd_videos):
    lying = in_order(odd_videos / "good.mp4")
    assert torch.equal(PyAVReader(odd_videos / "turned.mp4").read(np.arange(40)), lying.rot90(-1, (2, 3)))


def test_ten_bits_become_eight_in_every_decoder(odd_videos):
    expected = in_order(odd_videos / "good.mp4").float()  # the same mosaics
    for decoder in installed_decoders():
        frames = DECODERS[decoder](odd_videos / "ten bits.mp4").read(np.arange(40))
        assert (frames.float() - expected).abs().mean() < 12  # sharp coloured edges; other frames differ by 80


# --- PyAV's frame numbers


PICKED = np.array([33, 1, 20, 20, 7, 39, 0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b frames.avi", {"bf": 2, "g": 12}),
        ("no b frames.avi", {"bf": 0, "g": 12}),
        ("mpeg4.avi", {"codec": "mpeg4", "bf": 2, "g": 12}),
        ("a.ts", {"bf": 2, "g": 12}),
        ("a.mpg", {"codec": "mpeg2video", "bf": 2, "g": 12}),
        ("one keyframe.mp4", {"g": 250}),
        ("open.mp4", {"bf": 3, "g": 12, "x264-params": "open-gop=1"}),
        ("variable.mkv", {"gaps": (1, 3, 2), "g": 5}),
    ],
)
def test_pyav_finds_the_nth_frame(tmp_path, write_video, name, options):
    path = write_video(tmp_path / name, **options)
    reader, expected = PyAVReader(path), in_order(path)
    assert reader.num_frames == 40 == len(expected)
    assert torch.equal(reader.read(PICKED), expected[PICKED])
    assert torch.equal(reader.read(np.arange(40)), expected)


def test_pyav_leaves_out_frames_that_an_edit_list_hides(cut_videos):
    reader = PyAVReader(cut_videos / "cut.mp4")
    assert reader.num_frames == 35
    assert torch.equal(reader.read(np.arange(35)), in_order(cut_videos / "whole.mp4")[5:])


def test_pyav_counts_the_frames_that_are_there_whatever_the_header_says(tmp_path, write_video):
    path = write_video(tmp_path / "a.avi", codec="mpeg4")
    content = path.read_bytes()
    place = content.index(b"avih") + 8 + 16  # number of frames in the main header
    stream_place = content.index(b"strh") + 8 + 32  # length of the stream
    lying = bytearray(content)
    lying[place : place + 4] = lying[stream_place : stream_place + 4] = (9999).to_bytes(4, "little")
    path.write_bytes(lying)
    assert PyAVReader(path).num_frames == 40


def test_pyav_reads_the_part_of_a_stream_that_is_there(odd_videos):
    reader = PyAVReader(odd_videos / "half.mkv")
    assert 5 < reader.num_frames < 35
    assert len(reader.read(np.arange(reader.num_frames))) == reader.num_frames


def test_pyav_seeks_instead_of_decoding_everything(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / "a.mp4", num_frames=60, g=10)
    reader, expected = PyAVReader(path), in_order(path)
    monkeypatch.setattr(reader, "_by_counting", None)  # what would decode from the start
    indices = np.array([0, 15, 59])
    assert torch.equal(reader.read(indices), expected[indices])


# --- what is no video


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_a_pipe_or_folder_is_unreadable_at_once(odd_videos, decoder):
    if decoder not in installed_decoders():
        pytest.skip(f"{decoder} does not work here")
    for name in ("pipe.mp4", "folder.mp4"):
        with pytest.raises(UnreadableVideo, match="not a regular file"):
            DECODERS[decoder](odd_videos / name)


# --- memory


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("decoder", list(DECODERS))
def test_thousands_of_videos_leave_memory_flat(tmp_path, write_video, decoder):
    if decoder not in installed_decoders():
        pytest.skip(f"{decoder} does not work here")
    path = write_video(tmp_path / "a.mp4", num_frames=8)
    files = len(os.listdir("/proc/self/fd"))
    for number in range(SOAK_DECODES):
        DECODERS[decoder](path).read(np.array([0, 7]))
        if number == SOAK_DECODES // 10:
            before = resident_mib()
    assert resident_mib() - before < SOAK_MIB
    assert len(os.listdir("/proc/self/fd")) <= files + 1


def test_pyav_does_not_decode_what_nobody_asked_for(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / "a.mp4", num_frames=60, g=60, bf=3)
    expected = in_order(path)
    decoded = []
    decode = pyav_reader._decode
    monkeypatch.setattr(
        pyav_reader, "_decode", lambda *args: (decoded.append(frame.pts) or frame for frame in decode(*args))
    )
    found = PyAVReader(path).read(np.arange(60))
    assert torch.equal(found, expected)
    assert len(decoded) == 60
    decoded.clear()
    wanted = np.array([13, 30, 59])
    assert torch.equal(PyAVReader(path).read(wanted), expected[wanted])
    assert len(decoded) < 45


PNG_AFTER_DECORD = """
import io
from datasets.decode.other_readers import import_decord
import_decord()
import numpy as np, torch
from torchvision.io import decode_image
png = bytes.fromhex(sys.argv[1])
assert decode_image(torch.frombuffer(bytearray(png), dtype=torch.uint8)).shape == (3, 4, 4)
from PIL import Image
Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(io.BytesIO(), "PNG")
"""


def test_decord_leaves_other_libraries_their_zlib(repo_root):
    pytest.importorskip("decord")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, "PNG")
    command = [sys.executable, "-c", "import sys\n" + PNG_AFTER_DECORD, buffer.getvalue().hex()]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
