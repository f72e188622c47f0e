"""Fixtures that tests of several rooms use."""

import os
import tempfile
from pathlib import Path

# Threads that wait without spinning: on a busy machine spinning makes small models several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Compiled code is not kept beside the weights of whoever runs the tests.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}"))
os.environ.pop("RANK", None)  # tests run in one process, also under a launcher

import runpy
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from clip.model import CLIP, CLIPConfig
from commands.training.run import Run
from datasets.lists.transcripts import Transcript, write_transcripts
from engine.state import TrainState
from engine.train import Training
from tools.make_debug_data import CLASS_NAMES, write_debug_data
from train import prepare
from utils.config import Config
from utils.precision import Precision
from utils.run_folder import run_folder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def decord() -> None:
    """Skips tests of decord where it is not installed: it has wheels for few platforms."""
    pytest.importorskip("decord", reason="decord is not installed (docs/install.md)")


@pytest.fixture(scope="session")
def close_set() -> Callable[[list[str]], dict]:
    """``test.main``; loaded by path, because Python has a package ``test`` of its own."""
    return runpy.run_path(str(ROOT / "test.py"))["main"]


@pytest.fixture(scope="session")
def zero_shot() -> Callable[[list[str]], dict]:
    """``test_zeroshot.main``"""
    return runpy.run_path(str(ROOT / "test_zeroshot.py"))["main"]


@pytest.fixture(scope="session")
def retrieval() -> Callable[[list[str]], dict]:
    """``test_retrieval.main``"""
    return runpy.run_path(str(ROOT / "test_retrieval.py"))["main"]


def golden_of(system: str) -> Path:
    folder = ROOT.parent / "shared" / "golden" / system
    if not folder.is_dir():
        pytest.skip("../shared/golden is not here; it holds the published code's results")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the published implementation's results."""
    return golden_of("mote")


@pytest.fixture(scope="session")
def text4vis_golden() -> Path:
    """Folder of the published Text4Vis implementation's results."""
    return golden_of("text4vis")


@pytest.fixture(scope="session")
def ost_golden() -> Path:
    """Folder of the published OST and ViFi-CLIP implementations' results."""
    return golden_of("ost")


@pytest.fixture(scope="session")
def tvtsv2_golden() -> Path:
    """Folder of the published TVTSv2 implementation's results."""
    return golden_of("tvtsv2")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder of files as users have them, on which a reader once was wrong or unclear. Read only."""
    return ROOT / "tests" / "data" / "cases"


@pytest.fixture(scope="session")
def debug_data(tmp_path_factory) -> Path:
    """Folder of the debug data set: videos, lists, labels and a tiny CLIP. Read only."""
    folder = tmp_path_factory.mktemp("debug_data")
    write_debug_data(folder)
    return folder


@pytest.fixture(scope="session")
def debug_config(debug_data, tmp_path_factory) -> Path:
    """configs/debug/debug.yaml with the paths of ``debug_data``, no workers, and runs in a temporary folder."""
    tree = yaml.safe_load((ROOT / "configs" / "debug" / "debug.yaml").read_text())
    for key in ("train_root", "train_list", "val_root", "val_list", "label_list"):
        tree["data"][key] = str(debug_data / Path(tree["data"][key]).name)
    tree["data"] |= {"workers": 0, "output_path": str(tmp_path_factory.mktemp("runs"))}
    tree["network"]["arch"] = str(debug_data / "tiny_clip.pt")
    path = tmp_path_factory.mktemp("configs") / "debug.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def debug_descriptors(tmp_path_factory) -> Path:
    """Descriptors of the classes of ``debug_data``: two static, two steps and a sentence of each."""
    classes = {
        name: {
            "static": [f"{name.split()[-1]}ward streaks {number}" for number in range(2)],
            "steps": [f"something goes {name.split()[-1]} {number}" for number in range(2)],
            "sentence": f"a bright bar that wanders {name.split()[-1]}",
        }
        for name in CLASS_NAMES
    }
    path = tmp_path_factory.mktemp("descriptors") / "debug.yaml"
    path.write_text(yaml.safe_dump({"classes": classes}))
    return path


@pytest.fixture(scope="session")
def debug_texts(debug_data, tmp_path_factory) -> tuple[str, ...]:
    """Overrides of ``debug_config`` for training on transcripts and captions in turn, in batches of 2 and 3."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for part in ("train", "val"):
        paths = [line.rsplit(" ", 1)[0] for line in (debug_data / f"{part}.txt").read_text().splitlines()]
        lines = "".join(f"{path}\ta bar that goes {way}\n" for path in paths for way in ("on", "away"))
        (folder / f"{part}.tsv").write_text(lines)
        times = np.arange(0.25, 30, 0.5)
        words = rng.choice(["go", "left", "and", "Right.", ""], (len(paths), len(times)), p=[0.3, 0.2, 0.2, 0.2, 0.1])
        said = [(path, Transcript(30, times, list(row))) for path, row in zip(paths, words.tolist(), strict=True)]
        write_transcripts(folder / part, said[:10], {})
    root = f"root: {debug_data / 'videos'}"
    transcripts = f"{{kind: transcripts, {root}, list: {folder / 'train'}, num_texts: 3, batch_size: 2}}"
    captions = f"{{kind: captions, {root}, list: {folder / 'train.tsv'}, batch_size: 3}}"
    ordered = f"{{kind: transcripts, {root}, list: {folder / 'val'}, num_texts: 3}}"
    return (
        "data.train_root=", "data.train_list=", "data.label_list=", "data.num_classes=0", "network.system=tvtsv2",
        "network.fix_text=false", "network.sim_header=None", "tvtsv2.sorter_places=3", "tvtsv2.sorter_heads=2",
        "tvtsv2.mask_ratio=0.5", f"data.sources=[{transcripts}, {captions}]", f"data.val_list={folder / 'val.tsv'}",
        f"data.val_transcripts={ordered}", "data.num_segments=4", "solver.lr_warmup_step=0",
    )  # fmt: skip


@pytest.fixture(scope="session")
def fp32() -> Precision:
    """Single precision on the CPU."""
    return Precision("fp32", torch.device("cpu"))


@pytest.fixture(scope="session")
def prepare_run() -> Callable[[Config, Precision, str], tuple[TrainState, Training]]:
    """What train.py builds before it trains: configuration, precision, name of the run folder."""

    def prepare_run(config: Config, precision: Precision, name: str) -> tuple[TrainState, Training]:
        folder = run_folder(config.data.output_path, config.data.dataset, config.network.arch, name)
        return prepare(Run(config, precision, folder))

    return prepare_run


@pytest.fixture
def tiny_clip_config() -> CLIPConfig:
    """A CLIP that computes in milliseconds: 32 pixels, patches of 8, two blocks a tower, embeddings of 64."""
    return CLIPConfig(
        embed_dim=64, image_size=32, patch_size=8, vision_width=64, vision_layers=2, vision_heads=1,
        text_width=64, text_layers=2, text_heads=1,
    )  # fmt: skip


@pytest.fixture
def tiny_clip(tiny_clip_config) -> CLIP:
    """The CLIP of ``tiny_clip_config`` with random weights, the same in every test, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIP(tiny_clip_config).eval()


@pytest.fixture
def relative_error():
    """max |found - expected| / max |expected|."""

    def error(found, expected) -> float:
        found, expected = (np.asarray(torch.as_tensor(x).detach(), dtype=np.float64) for x in (found, expected))
        assert found.shape == expected.shape
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    return error


def _write_video(
    path: Path,
    num_frames: int = 40,
    width: int = 128,
    height: int = 96,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gaps: tuple[int, ...] = (1,),
    is_moving: bool = False,
    **options: object,
) -> Path:
    """A file with a different random mosaic in every frame; ``gaps`` between frames repeat, in 1/25 s.

    ``is_moving``: one mosaic instead, along which the picture moves with some noise, so that frames refer to others.
    """
    rng = np.random.default_rng(num_frames)
    faststart = {"movflags": "faststart"} if path.suffix == ".mp4" else {}  # the index first, so that cuts keep it
    with av.open(str(path), "w", options=faststart) as container:
        options = ({"preset": "veryfast"} if codec == "libx264" else {}) | {"threads": 1} | options
        stream = container.add_stream(codec, rate=25, options={key: str(value) for key, value in options.items()})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.max_b_frames = int(options.get("bf", 0 if codec == "mpeg4" else 3))
        time = 0
        for number in range(num_frames):
            if not is_moving or number == 0:
                mosaic = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
            pixels = mosaic.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
            if is_moving:
                pixels = np.roll(pixels, (number, 2 * number), axis=(0, 1)) // 2
                pixels += rng.integers(0, 16, pixels.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            time += gaps[number % len(gaps)]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Writes a video of mosaics: path, num_frames, width, height, codec, pix_fmt, gaps, is_moving, encoder options."""

    def write(*args: Any, **options: Any) -> Path:
        # As root, SVT-AV1 makes the thread that calls it a real-time one, and so all processes that this one starts
        # then: whatever else there is gets no core while they compute. So it gets a thread that ends.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(_write_video, *args, **options).result()

    return write


@pytest.fixture(scope="session")
def cut_videos(tmp_path_factory) -> Path:
    """Folder of ``whole.mp4`` and of ``cut.mp4``, whose first 5 of 40 frames an edit list hides. Read only."""
    folder = tmp_path_factory.mktemp("cut videos")
    whole = _write_video(folder / "whole.mp4")
    with av.open(str(whole)) as source, av.open(str(folder / "cut.mp4"), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        start = sorted(packet.pts for packet in packets)[5]
        copy = target.add_stream_from_template(stream)
        for packet in packets:
            packet.stream, packet.pts, packet.dts = copy, packet.pts - start, packet.dts - start
            target.mux(packet)
    return folder


def _turn(content: bytes) -> bytes:
    """An MP4 with the rotation of a phone held upright in its track header."""
    header = content.index(b"tkhd")
    matrix = header + (44 if content[header + 4] == 0 else 56)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 96 << 16, 0, 1 << 30)
    return content[:matrix] + turned + content[matrix + 36 :]


@pytest.fixture(scope="session")
def odd_videos(tmp_path_factory) -> Path:
    """Folder of videos that are broken (``BROKEN`` below names them) or unusual, beside ``good.mp4``. Read only."""
    folder = tmp_path_factory.mktemp("odd videos")
    good = _write_video(folder / "good.mp4", g=12, bf=2).read_bytes()
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "header.mp4").write_bytes(good[:300])
    (folder / "half.mp4").write_bytes(good[: len(good) // 2])
    (folder / "text.mp4").write_text("not a video\n" * 100)
    Image.new("RGB", (128, 96)).save(folder / "picture.mp4", format="PNG")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    half = _write_video(folder / "half.mkv", g=12).read_bytes()
    (folder / "half.mkv").write_bytes(half[: len(half) // 2])
    (folder / "mp4 as.avi").write_bytes(_write_video(folder / "variable.mp4", gaps=(1, 2, 4), g=12).read_bytes())
    _write_video(folder / "one.mp4", num_frames=1)
    (folder / "turned.mp4").write_bytes(_turn(good))
    _write_video(folder / "ten bits.mp4", pix_fmt="yuv420p10le", g=12)
    _write_video(folder / "b frames.avi", g=12, bf=2)
    return folder


# Of ``odd_videos``: the files that no decoder reads, with a part of what the checker says.
BROKEN = {
    "zero.mp4": "empty file",
    "header.mp4": "truncated in the header",
    "half.mp4": "truncated",
    "text.mp4": "text, not a video",
    "sound.mp4": "no video stream (audio only)",
    "pipe.mp4": "not a regular file",
    "folder.mp4": "not a regular file",
    "missing.mp4": "no such file",
}


@pytest.fixture(scope="session")
def broken_names() -> dict[str, str]:
    """``BROKEN``."""
    return BROKEN
