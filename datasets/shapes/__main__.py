"""Write the built-in shapes set: small real videos, list files and label CSVs for every part.

    python -m datasets.shapes --out DIR

`DIR/videos/<part>/<class>/*.mp4`, `DIR/lists/<part>.txt` (lines `path label`, paths relative to `DIR/videos`) and
`DIR/lists/<label set>_labels.csv`. A second run reuses what a finished one wrote and completes a killed one.
"""

import argparse
import json
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np

from datasets.shapes.render import render
from datasets.shapes.scenes import sample_scenes
from datasets.shapes.world import LABEL_SETS, PARTS, POSTER_PART, VIDEOS_PER_CLASS, ShapeClass, classes_of, label_set_of
from utils.files import claim_folder, remove_parts, whole_file, write_text
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
    shape_class: ShapeClass
    label: int

    @property
    def path(self) -> str:
        return f"{self.part}/{self.shape_class.name}/{self.index:04d}.mp4"


def write_shapes(out: Path, spec: ShapesSpec, workers: int = 1) -> Path:
    """Write the set into `out`, or complete what is there; the finished set is marked by `complete.json`.

    Args:
        workers: processes that render and encode; the result does not depend on it.

    Raises:
        ValueError: `out` holds a set of another spec.
    """
    marker = out / "complete.json"
    claim_folder(out / "spec.json", asdict(spec))
    if marker.exists():
        logger.info("reusing the shapes set in %s", out)
        return out
    videos = [video for part in PARTS for video in videos_of(part, spec)]
    missing = [video for video in videos if not (out / "videos" / video.path).exists()]
    logger.info("writing %d of %d videos into %s", len(missing), len(videos), out)
    for folder in {Path(video.path).parent for video in videos}:
        (out / "videos" / folder).mkdir(parents=True, exist_ok=True)
    write = partial(_write_video, out / "videos", spec.seed)
    # Spawned, not forked: forking a process that runs threads (PyTorch's, an encoder's) may deadlock.
    for _ in run_jobs(write, missing, workers if workers > 1 else 0, start="spawn"):
        pass
    _write_lists(out / "lists", spec)
    remove_parts(out / "videos")
    write_text(marker, json.dumps(asdict(spec)))
    return out


def videos_of(part: str, spec: ShapesSpec) -> list[VideoSpec]:
    """The videos of a part in list order."""
    per_class = max(1, round(VIDEOS_PER_CLASS[part] * spec.scale))
    labelled = enumerate(classes_of(label_set_of(part)))
    pairs = [(label, shape_class) for label, shape_class in labelled for _ in range(per_class)]
    return [VideoSpec(part, index, shape_class, label) for index, (label, shape_class) in enumerate(pairs)]


def render_video(video: VideoSpec, seed: int) -> np.ndarray:
    """The frames of a video, uint8 [T, H, W, 3], from a generator keyed by seed, part and index."""
    generator = np.random.default_rng([seed, zlib.crc32(video.part.encode()), video.index])
    size = FRAME_SIZES[generator.integers(len(FRAME_SIZES))]
    num_frames = int(generator.integers(FRAME_COUNTS[0], FRAME_COUNTS[1] + 1))
    object_id, motion_id = (np.array([i]) for i in video.shape_class)
    scenes = sample_scenes(object_id, motion_id, np.array([video.part == POSTER_PART]), generator)
    instants = np.linspace(-0.5, 0.5, num_frames, dtype=np.float32)[None]
    opacity = generator.uniform(*HINT_OPACITY, instants.shape) * (generator.random(instants.shape) < HINT_RATE)
    return render(scenes, instants, opacity.astype(np.float32), size, generator)[0]


def encode_video(frames: np.ndarray, path: Path) -> None:
    """Write uint8 [T, H, W, 3] frames as an H.264 mp4; the file appears under its name only when whole."""
    with whole_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        # The same frames must give the same file: one thread, and without x264's macroblock tree, whose result
        # varies from call to call on pictures this small.
        options = {"preset": "veryfast", "crf": "20", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_video(root: Path, seed: int, video: VideoSpec) -> None:
    encode_video(render_video(video, seed), root / video.path)


def _write_lists(root: Path, spec: ShapesSpec) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        lines = [f"{video.path} {video.label}\n" for video in videos_of(part, spec)]
        write_text(root / f"{part}.txt", "".join(lines))
    for label_set in LABEL_SETS:
        rows = [f"{label},{shape_class.name}\n" for label, shape_class in enumerate(classes_of(label_set))]
        write_text(root / f"{label_set}_labels.csv", "".join(["id,name\n", *rows]))


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser("python -m datasets.shapes", description="Write the built-in shapes set.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of videos per class")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return write_shapes(args.out, ShapesSpec(seed=args.seed, scale=args.scale), args.workers)


if __name__ == "__main__":
    from datasets.shapes import __main__ as module  # processes that are spawned know no function of a ``-m`` package

    module.main()
