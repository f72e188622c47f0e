"""Readers: the frames asked for, bit for bit, or a reason why not."""

import logging
import struct
import threading
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.decode import readers
from datasets.decode.decoders import DECODERS, installed_decoders
from datasets.decode.other_readers import DecordReader
from datasets.decode.readers import FrameFolderReader, Reader, UnreadableVideo

READ_TIMEOUT_S = 20


def decode_one_by_one(path: Path) -> torch.Tensor:
    """All frames through PyAV, uint8 [F, 3, H, W]."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "with a space.mp4", num_frames=60, g=12, bf=2)


@pytest.fixture(params=list(DECODERS))
def reader_of(request) -> Callable[[Path], Reader]:
    """The reader class of every decoder that is installed."""
    if request.param not in installed_decoders():
        pytest.skip(f"{request.param} does not work here")
    return DECODERS[request.param]


# --- video files


@pytest.mark.parametrize(("width", "height"), [(128, 96), (96, 128), (176, 144), (130, 98), (320, 240), (64, 48)])
def test_a_batch_equals_frame_by_frame_decoding_at_any_size(tmp_path, width, height, write_video, reader_of):
    path = write_video(tmp_path / "a.mp4", width=width, height=height)
    reader = reader_of(path)
    frames = reader.read(np.arange(reader.num_frames))
    assert reader.num_frames == 40
    assert frames.dtype == torch.uint8
    assert frames.shape == (40, 3, height, width)
    assert torch.equal(frames, decode_one_by_one(path))


@pytest.mark.parametrize("b_frames", [0, 2, 4])
@pytest.mark.parametrize("gop", [1, 5, 250])
def test_any_frames_can_be_picked_out_of_any_group_of_pictures(tmp_path, gop, b_frames, write_video, reader_of):
    path = write_video(tmp_path / "a.mp4", g=gop, bf=b_frames)
    indices = np.array([39, 3, 3, 17, 0, 16, 39])
    assert torch.equal(reader_of(path).read(indices), decode_one_by_one(path)[indices])


# No B-frames in AVI, and no H.264: it stores no presentation times, so decord's seeks end at wrong frames there.
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")]
)
def test_containers_decode_alike(tmp_path, name, codec, write_video, reader_of):
    path = write_video(tmp_path / name, codec=codec, g=12)
    indices = np.array([20, 1, 39])
    assert torch.equal(reader_of(str(path)).read(indices), decode_one_by_one(path)[indices])


def test_a_reader_can_be_asked_again(video, reader_of):
    reader = reader_of(video)
    expected = decode_one_by_one(video)
    for indices in ([50, 10], [0], [10, 50, 50]):
        assert torch.equal(reader.read(np.array(indices)), expected[indices])


def test_one_frame_is_a_video(tmp_path, write_video, reader_of):
    path = write_video(tmp_path / "a.mp4", num_frames=1)
    assert reader_of(path).read(np.zeros(8, dtype=np.int64)).shape == (8, 3, 96, 128)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    "write",
    [
        lambda path, video: None,
        lambda path, video: path.mkdir(),
        lambda path, video: path.write_bytes(b""),
        lambda path, video: path.write_text("not a video\n" * 100),
        lambda path, video: path.write_bytes(video[: len(video) // 200]),
        lambda path, video: path.write_bytes(video[len(video) // 2 :]),
        lambda path, video: audio_only(path),
    ],
    ids=["missing", "a folder", "empty", "text", "cut in the header", "without its start", "audio only"],
)
def test_what_is_no_video_is_unreadable_with_a_reason(tmp_path, video, write, reader_of):
    path = tmp_path / "broken.mp4"
    write(path, video.read_bytes())
    with pytest.raises(UnreadableVideo) as error:
        reader_of(path)
    assert str(error.value).strip()
    assert "\n" not in str(error.value)


def test_a_missing_file_says_so(tmp_path, reader_of):
    with pytest.raises(UnreadableVideo, match="no such file"):
        reader_of(tmp_path / "none.mp4")


def read_within_limit(
    reader_of: Callable[[Path], Reader], path: Path, indices: Callable[[int], np.ndarray]
) -> torch.Tensor | str:
    """Frames or the reason; a reader that hangs ends the test."""
    result = []

    def read() -> None:
        try:
            reader = reader_of(path)
            result.append(reader.read(indices(reader.num_frames)))
        except UnreadableVideo as error:
            result.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(READ_TIMEOUT_S)
    assert result, "the reader hangs or raised something else"
    return result[0]


def zeros_in_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(2000) + content[middle + 2000 :]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) * 9 // 10],
        lambda content: content[: len(content) // 2],
        lambda content: content[: len(content) // 10],
        zeros_in_the_middle,
    ],
    ids=["9/10", "half", "1/10", "zeros in the middle"],
)
def test_a_damaged_stream_yields_frames_or_a_reason(tmp_path, suffix, damage, write_video, reader_of):
    path = write_video(tmp_path / f"a{suffix}", num_frames=60, g=12)
    path.write_bytes(damage(path.read_bytes()))
    for indices in (np.arange, lambda num_frames: np.array([0, num_frames // 2, num_frames - 1])):
        result = read_within_limit(reader_of, path, indices)
        if isinstance(result, str):
            assert result.strip()
        else:
            assert result.shape[1:] == (3, 96, 128)


def test_an_mp4_cut_in_half_is_unreadable_not_padded(tmp_path, video, reader_of):
    path = tmp_path / "half.mp4"
    path.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert isinstance(read_within_limit(reader_of, path, np.arange), str)


def test_a_narrow_video_is_read_with_a_warning_that_names_it(decord, tmp_path, caplog, write_video):
    path = write_video(tmp_path / "narrow.mp4", width=72, height=96)
    with caplog.at_level(logging.WARNING):
        frames = DecordReader(path).read(np.array([0, 5, 5, 39]))
    assert frames.shape == (4, 3, 96, 72)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames[1], frames[2])
    assert "narrow.mp4" in caplog.text


def test_a_video_of_usual_width_gives_no_warning(decord, video, caplog):
    with caplog.at_level(logging.WARNING):
        DecordReader(video).read(np.arange(10))
    assert not caplog.records


def test_titles_that_are_not_utf8_do_no_harm(tmp_path):
    """As in the AVI files of HMDB-51."""
    path = tmp_path / "titled.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXXXXXX"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for shade in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 10 * shade, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"XXXXXXXX" in content
    path.write_bytes(content.replace(b"XXXXXXXX", b"\xff\xfe\x8c\xe9XXXX"))
    reader = DECODERS["pyav"](path)
    frames = reader.read(np.arange(20))
    assert reader.num_frames == 20
    assert frames.float().mean(dim=(1, 2, 3)).numpy() == pytest.approx(np.arange(20) * 10, abs=8)


# --- folders of frames


def write_frames(folder: Path, template: str, first: int, num_frames: int = 6) -> np.ndarray:
    """Random pictures, uint8 [F, H, W, 3]."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (num_frames, 4, 5, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    for number, frame in enumerate(pixels, start=first):
        Image.fromarray(frame).save(folder / template.format(number))
    return pixels


@pytest.mark.parametrize("index_bias", [0, 1])
@pytest.mark.parametrize("template", ["img_{:05d}.png", "{:d}.png", "frame {}.png"])
def test_frames_are_found_by_template_and_first_number(tmp_path, template, index_bias):
    pixels = write_frames(tmp_path / "a clip", template, index_bias)
    reader = FrameFolderReader(tmp_path / "a clip", 6, template, index_bias)
    indices = np.array([5, 0, 0, 3])
    frames = reader.read(indices)
    assert reader.num_frames == 6
    assert frames.dtype == torch.uint8
    assert np.array_equal(frames.permute(0, 2, 3, 1).numpy(), pixels[indices])


def test_jpeg_frames_look_like_pils(tmp_path):
    write_frames(tmp_path / "clip", "img_{:05d}.jpg", 1)
    frames = FrameFolderReader(tmp_path / "clip", 6, "img_{:05d}.jpg", 1).read(np.arange(6))
    for number, frame in enumerate(frames, start=1):
        expected = np.asarray(Image.open(tmp_path / "clip" / f"img_{number:05d}.jpg"), dtype=int)
        assert np.abs(frame.permute(1, 2, 0).numpy() - expected).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_frames_of_other_colour_modes_become_rgb(tmp_path, mode):
    picture = Image.new("RGB", (40, 32), (204, 204, 204)).convert(mode)
    picture.save(tmp_path / "1.png")
    frames = FrameFolderReader(tmp_path, 1, "{}.png", 1).read(np.array([0]))
    assert frames.shape == (1, 3, 32, 40)
    assert (frames == 204).all()


def write_deep_png(path: Path, pixels: np.ndarray, pix_fmt: str) -> None:
    """A PNG of 16 bits a channel."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
    path.write_bytes(b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)])))


@pytest.mark.parametrize("pix_fmt", ["rgb48be", "rgba64be", "gray16be", "ya16be"])
def test_sixteen_bits_become_eight_beside_pictures_of_eight(tmp_path, pix_fmt):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 1), dtype=np.uint8).repeat(3, axis=2)
    write_deep_png(tmp_path / "1.png", pixels, pix_fmt)
    Image.fromarray(pixels).save(tmp_path / "2.png")
    frames = FrameFolderReader(tmp_path, 2, "{}.png", 1).read(np.arange(2))
    assert frames.dtype == torch.uint8
    assert (frames[0].int() - frames[1].int()).abs().max() <= 1
    assert (frames[1].permute(1, 2, 0).numpy() == pixels).all()


def test_a_cmyk_jpeg_and_a_grey_one_become_rgb(tmp_path):
    for number, mode in enumerate(("CMYK", "L"), start=1):
        Image.new("RGB", (40, 32), (204, 204, 204)).convert(mode).save(tmp_path / f"{number}.jpg", quality=95)
    frames = FrameFolderReader(tmp_path, 2, "{}.jpg", 1).read(np.arange(2))
    assert (frames.int() - 204).abs().max() <= 2


def test_an_animation_is_not_a_frame(tmp_path):
    black, white = Image.new("L", (40, 32), 0), Image.new("L", (40, 32), 255)
    black.save(tmp_path / "1.gif", save_all=True, append_images=[white])
    with pytest.raises(UnreadableVideo, match=r"1\.gif: an animation"):
        FrameFolderReader(tmp_path, 1, "{}.gif", 1).read(np.array([0]))


# --- large pictures, and sizes that change


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_large_frame_is_refused_by_its_header(tmp_path, suffix, monkeypatch):
    Image.new("RGB", (40, 32)).save(tmp_path / f"1.{suffix}")
    assert FrameFolderReader(tmp_path, 1, "{}." + suffix, 1, max_pixels=1280).read(np.array([0])).shape[2:] == (32, 40)
    monkeypatch.setattr(readers, "decode_image", None)  # never come to
    with pytest.raises(UnreadableVideo, match="40 x 32 pixels, more than"):
        FrameFolderReader(tmp_path, 1, "{}." + suffix, 1, max_pixels=1279).read(np.array([0]))


def test_a_header_that_claims_more_pixels_than_memory_is_refused(tmp_path):
    Image.new("RGB", (40, 32)).save(tmp_path / "1.png")
    content = bytearray((tmp_path / "1.png").read_bytes())
    content[16:24] = struct.pack(">2I", 2**30, 2**30)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(UnreadableVideo, match="pixels"):
        FrameFolderReader(tmp_path, 1, "{}.png", 1).read(np.array([0]))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4")])
def test_a_large_video_is_refused_before_it_is_decoded(tmp_path, write_video, reader_of, name, codec):
    path = write_video(tmp_path / name, codec=codec, num_frames=3)
    assert reader_of(path, 128 * 96).num_frames == 3
    with pytest.raises(UnreadableVideo, match="max_pixels"):
        reader_of(path, 128 * 96 - 1).read(np.array([0]))


@pytest.fixture(scope="module")
def growing(tmp_path_factory, write_video) -> Path:
    """A stream whose pictures are larger from frame 20 on."""
    folder = tmp_path_factory.mktemp("growing")
    small = write_video(folder / "1.ts", num_frames=20, g=5, bf=0)
    large = write_video(folder / "2.ts", num_frames=20, g=5, bf=0, width=160, height=128)
    (folder / "a.ts").write_bytes(small.read_bytes() + large.read_bytes())
    return folder / "a.ts"


def test_pictures_that_change_size_are_right_or_refused(growing, reader_of):
    expected = {0: (96, 128), 30: (128, 160)}
    for indices in ([0, 3], [30, 33], [0, 30]):
        try:
            frames = reader_of(growing).read(np.array(indices))
        except UnreadableVideo as error:
            assert "size" in str(error)  # noqa: PT017
        else:
            assert {tuple(frames.shape[2:])} == {expected[index // 30 * 30] for index in indices}


def test_pictures_that_grow_beyond_the_limit_are_refused(growing, reader_of):
    with pytest.raises(UnreadableVideo):
        reader_of(growing, 128 * 96).read(np.array([30, 33]))


# --- what decord shows beside the frames asked for


def test_a_number_of_frames_that_the_file_does_not_hold_is_told(cut_videos, video):
    pytest.importorskip("decord")
    assert DecordReader(cut_videos / "cut.mp4").mismatch == "40 frames are counted, the file holds 35"
    good = DecordReader(video)
    good.read(np.arange(60))
    assert good.mismatch == ""


def test_a_frame_shown_twice_is_told_unless_the_video_stands_still(tmp_path, video, write_video, monkeypatch):
    pytest.importorskip("decord")
    decode = DecordReader._decode

    def stale(reader, indices):
        frames = decode(reader, indices)
        frames[-1] = frames[-2]
        return frames

    monkeypatch.setattr(DecordReader, "_decode", stale)
    reader = DecordReader(video)
    reader.read(np.array([3, 10, 20]))
    assert reader.mismatch == "frame 20 came out as the one before it"
    monkeypatch.undo()
    with av.open(str(tmp_path / "still.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(10):
            grey = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 90, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(grey))
        container.mux(stream.encode())
    still = DecordReader(tmp_path / "still.mkv")
    still.read(np.arange(10))
    assert still.mismatch == ""


# --- frames of folders that are missing or damaged


def test_a_missing_frame_is_named(tmp_path):
    write_frames(tmp_path / "clip", "img_{:05d}.png", 1)
    (tmp_path / "clip" / "img_00003.png").unlink()
    reader = FrameFolderReader(tmp_path / "clip", 6, "img_{:05d}.png", 1)
    assert len(reader.read(np.array([0, 1, 3]))) == 3
    with pytest.raises(UnreadableVideo, match=r"img_00003\.png"):
        reader.read(np.array([1, 2]))


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: b"text", lambda content: content[: len(content) // 2]]
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_corrupt_frame_is_named(tmp_path, suffix, damage):
    write_frames(tmp_path / "clip", "img_{:05d}." + suffix, 1)
    path = tmp_path / "clip" / f"img_00002.{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    reader = FrameFolderReader(tmp_path / "clip", 6, "img_{:05d}." + suffix, 1)
    with pytest.raises(UnreadableVideo, match=rf"img_00002\.{suffix}"):
        reader.read(np.arange(6))


def test_a_missing_folder_is_unreadable(tmp_path):
    with pytest.raises(UnreadableVideo, match=r"img_00001\.jpg"):
        FrameFolderReader(tmp_path / "none", 6, "img_{:05d}.jpg", 1).read(np.array([0]))


def test_a_folder_without_frames_is_unreadable(tmp_path):
    with pytest.raises(UnreadableVideo, match="no frames"):
        FrameFolderReader(tmp_path, 0, "img_{:05d}.jpg", 1)


def test_frames_of_different_sizes_are_unreadable(tmp_path):
    Image.new("RGB", (40, 32)).save(tmp_path / "1.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "2.png")
    with pytest.raises(UnreadableVideo):
        FrameFolderReader(tmp_path, 2, "{}.png", 1).read(np.arange(2))
