"""The videos of the parts of the shapes set: one object and one motion each."""

import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from datasets.shapes.render import render
from datasets.shapes.scenes import sample_scenes
from datasets.shapes.world import POSTER_PART, VIDEOS_PER_CLASS, classes_of, label_set_of
from utils.files import remove_parts, whole_file
from utils.jobs import run_jobs

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # raise it when the same seed gives other videos or other paths
FRAME_SIZES = ((64, 64), (64, 80), (80, 64))  # height, width
FRAME_COUNTS = (24, 40)
FRAMES_PER_SECOND = 16
# Few frames hint at the motion, and faintly, so that single frames say little about it.
HINT_RATE = 0.25
HINT_OPACITY = (0.1, 0.3)


@dataclass(frozen=True)
class ShapesSpec:
    """What fixes the content of a shapes set. `scale` multiplies the number of videos per class."""

    seed: int = 0
    scale: float = 1.0
    version: int = FORMAT_VERSION


@dataclass(frozen=True)
class VideoSpec:
    """One video of a part: its class, its label and its number within the part."""

    part: str
    index: int
    shape_class: Any  # of a world: it has a ``name``
    label: int

    @property
    def path(self) -> str:
        return f"{self.part}/{self.shape_class.name}/{self.index:04d}.mp4"


def write_videos(root: Path, videos: Sequence[Any], write: Callable[[Any], None], workers: int) -> None:
    """Write those videos below a folder that are not there yet.

    Args:
        videos: each with a ``path`` below ``root``.
        write: writes the file of one of them, whole or not at all.
        workers: processes; the result does not depend on them.
    """
    missing = [video for video in videos if not (root / video.path).exists()]
    logger.info("writing %d of %d videos into %s", len(missing), len(videos), root)
    for folder in {(root / video.path).parent for video in videos}:
        folder.mkdir(parents=True, exist_ok=True)
    # Spawned, not forked: forking a process that runs threads (PyTorch's, an encoder's) may deadlock.
    for _ in run_jobs(write, missing, workers if workers > 1 else 0, start="spawn"):
        pass
    remove_parts(root)


def videos_of(part: str, spec: ShapesSpec) -> list[VideoSpec]:
    """The videos of a part of the demo's world in list order."""
    return list_videos(part, classes_of(label_set_of(part)), VIDEOS_PER_CLASS[part], spec)


def list_videos(part: str, classes: Sequence[Any], per_class: int, spec: ShapesSpec) -> list[VideoSpec]:
    """The videos of a part in list order: so many of each class, times the scale of the set."""
    count = max(1, round(per_class * spec.scale))
    pairs = [(label, shape_class) for label, shape_class in enumerate(classes) for _ in range(count)]
    return [VideoSpec(part, index, shape_class, label) for index, (label, shape_class) in enumerate(pairs)]


def render_video(video: VideoSpec, seed: int) -> np.ndarray:
    """The frames of a video, uint8 [T, H, W, 3], from a generator keyed by seed, part and index."""
    generator = np.random.default_rng([seed, zlib.crc32(video.part.encode()), video.index])
    size = FRAME_SIZES[generator.integers(len(FRAME_SIZES))]
    num_frames = int(generator.integers(FRAME_COUNTS[0], FRAME_COUNTS[1] + 1))
    object_id, motion_id = (np.array([i]) for i in video.shape_class)
    scenes = sample_scenes(object_id, motion_id, np.array([video.part == POSTER_PART]), generator)
    instants = np.linspace(-0.5, 0.5, num_frames, dtype=np.float32)[None]
    return render(scenes, instants, hints(instants.shape, generator), size, generator)[0]


def hints(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """How clearly each frame hints at the motion, float32 in [0, 1], of which most are 0."""
    opacity = generator.uniform(*HINT_OPACITY, shape) * (generator.random(shape) < HINT_RATE)
    return opacity.astype(np.float32)


def encode_video(frames: np.ndarray, path: Path, rate: int = FRAMES_PER_SECOND) -> None:
    """Write uint8 [T, H, W, 3] frames, so many a second, as an H.264 mp4; the file appears only when whole."""
    with whole_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        # The same frames must give the same file: one thread, and without x264's macroblock tree, whose result
        # varies from call to call on pictures this small.
        options = {"preset": "veryfast", "crf": "20", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
