"""What is opened as a video: real containers, by any name; nothing that leads to other files; broken storage."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.clips.video import EvalVideos, VideoSource
from datasets.decode import readers
from datasets.decode.decoders import DECODERS, installed_decoders
from datasets.decode.probe import diagnosed, probe
from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import FrameFolderReader, Reader, UnreadableVideo
from datasets.lists.records import VideoList
from utils.config import MAX_PIXELS


@pytest.fixture(params=list(DECODERS))
def reader_of(request) -> Callable[..., Reader]:
    if request.param not in installed_decoders():
        pytest.skip(f"{request.param} does not work here")
    return DECODERS[request.param]


# --- containers

CONTAINERS = {
    "a.mp4": ("mp4", "libx264"),
    "a.mov": ("mov", "libx264"),
    "a.3gp": ("3gp", "mpeg4"),
    "a.mkv": ("matroska", "ffv1"),
    "a.webm": ("webm", "libvpx"),
    "a.avi": ("avi", "mpeg4"),
    "a.ogv": ("ogg", "libvpx"),
    "a.ts": ("mpegts", "libx264"),
    "a.mpg": ("mpeg", "mpeg1video"),
    "a.vob": ("vob", "mpeg2video"),
    "a.flv": ("flv", "flv"),
    "a.wmv": ("asf", "wmv2"),
    "a.gif": ("gif", "gif"),
    "a.h264": ("h264", "libx264"),
    "a.m4v": ("m4v", "mpeg4"),
    "a.mjpeg": ("mjpeg", "mjpeg"),
    "a.m2v": ("mpeg2video", "mpeg2video"),
    "a.y4m": ("yuv4mpegpipe", "wrapped_avframe"),
    "a.ivf": ("ivf", "libvpx"),
    "a.nut": ("nut", "mpeg4"),
    "a.mxf": ("mxf", "mpeg2video"),
}
PIXELS = {"gif": "rgb8", "mjpeg": "yuvj420p"}


def write_as(path: Path, container_format: str, codec: str, num_frames: int = 6) -> Path:
    """Six grey frames, each brighter than the one before."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, PIXELS.get(codec, "yuv420p")
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 30 + 30 * number, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_are_known_by_what_they_hold(tmp_path, name):
    path = write_as(tmp_path / name, *CONTAINERS[name])
    bare = path.rename(tmp_path / "bare")  # without what a suffix tells
    reader = PyAVReader(bare)
    levels = reader.read(np.arange(6)).float().mean(dim=(1, 2, 3))
    assert reader.num_frames == 6
    assert (levels - torch.arange(30, 181, 30)).abs().max() < 20


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "concat of one": "ffconcat version 1.0\nfile '{other}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>{other}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "cpl": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
    "<Id>urn:uuid:0</Id></CompositionPlaylist>",
    "reference": "[Reference]\nRef1=file://{other}\n",
    "rtsp redirect": "RTSPtextRTSP://127.0.0.1/x",
    "metadata": ";FFMETADATA1\ntitle=x\n",
    "sub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n",
}


@pytest.mark.parametrize("name", ["x.mp4", "x.m3u8", "x.ffconcat", "x.ts", "x.sdp", "x.mpd", "x.idx"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_leads_to_other_files_is_refused(tmp_path, reader_of, kind, name):
    other = write_as(tmp_path / "private.ts", "mpegts", "mpeg2video")
    path = tmp_path / name
    path.write_text(PLAYLISTS[kind].format(other=other, name=other.name))
    with pytest.raises(UnreadableVideo):
        reader_of(path)
    with pytest.raises(UnreadableVideo):
        probe(path, MAX_PIXELS)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.mp4", "x%01d.png"])
@pytest.mark.parametrize("picture", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_picture_is_no_video(tmp_path, picture, name):
    Image.new("RGB", (128, 96)).save(tmp_path / name, format=picture)
    Image.new("RGB", (128, 96)).save(tmp_path / "x1.png")
    with pytest.raises(UnreadableVideo):
        PyAVReader(tmp_path / name)


def test_the_cover_of_a_sound_file_is_no_video(tmp_path, reader_of):
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 128, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        grey = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 90, dtype=np.uint8), format="rgb24")
        container.mux(cover.encode(grey.reformat(format="yuvj420p")))
        container.mux(cover.encode())
    with pytest.raises(UnreadableVideo, match="cover picture"):
        reader_of(tmp_path / "a.m4a")


NAMES = [
    "12:30 clip.mp4", "http:/x.mp4", "concat:a.mp4", "file:a.mp4", "subfile,,start,0,end,0,,:a.mp4", "fd:", "pipe:0",
    "-x.mp4", "a%03d.mp4", "a%03d.png", "*.mp4", "{}.mp4", "a b?c#d&e.mp4", "tee:x|y.mp4", "\udcff.mp4", "x.m3u8",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_path_whatever_it_looks_like(tmp_path, monkeypatch, reader_of, name):
    monkeypatch.chdir(tmp_path)
    good = write_as(tmp_path / "good", "mp4", "libx264")
    Path(name).parent.mkdir(exist_ok=True)
    os.rename(good, name)
    assert reader_of(name).read(np.array([0, 5])).shape == (2, 3, 96, 128)
    source = VideoSource(VideoList.of_pairs("", [(name, -1)]), timeout_s=20)
    sample = EvalVideos(source, lambda num_frames: np.arange(num_frames)[None], lambda frames: frames[None])[0]
    assert not sample.failures
    assert sample.seconds.shape == (1, 6)


# --- storage

LONG = "x" * 300 + ".mp4"
UNREACHABLE = {
    LONG: "File name too long",
    "good.mp4/x.mp4": "Not a directory",
    "loop.mp4": "symbolic links",
    "a\0b": "null",
}


@pytest.fixture
def storage(tmp_path) -> Path:
    """A folder with one good video, one frame, and a link to itself."""
    write_as(tmp_path / "good.mp4", "mp4", "libx264")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    Image.new("RGB", (128, 96)).save(tmp_path / "1.png")
    return tmp_path


def eval_sample(root: Path, name: str, num_frames: int | None = None):
    """One video's sample, as a test reads it."""
    counts = None if num_frames is None else np.array([num_frames])
    listed = VideoList(str(root), np.array([name.encode()], dtype=object), np.array([0]), counts)
    source = VideoSource(listed, image_tmpl="{}.png", timeout_s=20)
    return EvalVideos(source, lambda num_frames: np.zeros((1, 2), int), lambda frames: frames[None])[0]


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_path_that_the_system_refuses_is_one_unreadable_video(storage, reader_of, name):
    for read in (
        lambda: reader_of(storage / name),
        lambda: FrameFolderReader(storage / name, 1, "{}.png", 1).read([0]),
    ):
        with pytest.raises(UnreadableVideo, match=UNREACHABLE[name]):
            read()
    assert eval_sample(storage, name).failures
    assert eval_sample(storage, name, num_frames=3).failures


@pytest.mark.parametrize("call", ["stat", "open"])
@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENXIO, errno.ETIMEDOUT, errno.ENOENT])
def test_broken_storage_is_one_unreadable_video(storage, monkeypatch, reader_of, call, code):
    def broken(path, *args, **kwargs):
        if str(path).startswith(str(storage)):
            raise OSError(code, os.strerror(code), path)
        return genuine(path, *args, **kwargs)

    genuine = getattr(os, call)
    monkeypatch.setattr(readers.os, call, broken)
    reason = "no such file" if code == errno.ENOENT else os.strerror(code)
    with pytest.raises(UnreadableVideo, match=reason):
        reader_of(storage / "good.mp4")
    assert [failure.reason for failure in eval_sample(storage, "good.mp4").failures] == [reason]
    assert reason in eval_sample(storage, "", num_frames=3).failures[0].reason


# --- reasons


def test_a_reason_is_added_to_never_replaced(odd_videos):
    for name, remark in {"header.mp4": "truncated in the header", "text.mp4": "text", "zero.mp4": "empty file",
                         "picture.mp4": "PNG picture"}.items():  # fmt: skip
        reason = diagnosed(odd_videos / name, UnreadableVideo("what the decoder said"), 20)
        assert remark in reason
        assert reason.endswith("(what the decoder said)")
    for name in ("good.mp4", "half.mp4", "turned.mp4", "missing.mp4"):
        assert diagnosed(odd_videos / name, UnreadableVideo("what the decoder said"), 20) == "what the decoder said"


def test_an_encrypted_video_is_called_so(tmp_path, write_video, reader_of):
    plain = write_video(tmp_path / "plain.mp4", g=12)
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with av.open(str(plain)) as source, av.open(str(tmp_path / "drm.mp4"), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(UnreadableVideo) as error:
        reader_of(tmp_path / "drm.mp4").read(np.arange(8))
    assert diagnosed(tmp_path / "drm.mp4", error.value, 20) == f"encrypted ({error.value})"
