"""Write a built-in shapes set: small real videos, list files and label CSVs for every part.

    python -m datasets.shapes [--world proxy] --out DIR

`DIR/videos/<part>/<class>/*.mp4`, `DIR/lists/<part>.txt` (lines `path label`, paths relative to `DIR/videos`) and
`DIR/lists/<label set>_labels.csv`. `--world proxy` writes the second world, docs/proxy.md, in the place of the demo's.
With --films also videos of several motions, captions and transcripts, see
`datasets/shapes/films.py`. A second run reuses what a finished one wrote and completes a killed one.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from datasets.shapes.films import write_films
from datasets.shapes.videos import ShapesSpec, VideoSpec, encode_video, write_videos
from datasets.shapes.worlds import WORLDS, World
from utils.cli import run_main
from utils.files import claim_folder, write_text

logger = logging.getLogger(__name__)


def write_shapes(out: Path, spec: ShapesSpec, workers: int = 1, world: World = WORLDS["demo"]) -> Path:
    """Write the set into `out`, or complete what is there; the finished set is marked by `complete.json`.

    Args:
        workers: processes that render and encode; the result does not depend on it.
        world: that the spec is of.

    Raises:
        ValueError: `out` holds a set of another spec.
    """
    marker = out / "complete.json"
    claim_folder(out / "spec.json", asdict(spec))
    if marker.exists():
        logger.info("reusing the shapes set in %s", out)
        return out
    videos = [video for part in world.parts for video in world.videos_of(part, spec)]
    write_videos(out / "videos", videos, partial(_write_video, out / "videos", spec.seed, world.render_video), workers)
    _write_lists(out / "lists", spec, world)
    write_text(marker, json.dumps(asdict(spec)))
    return out


def _write_video(root: Path, seed: int, render: Callable[[VideoSpec, int], np.ndarray], video: VideoSpec) -> None:
    encode_video(render(video, seed), root / video.path)


def _write_lists(root: Path, spec: ShapesSpec, world: World) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part in world.parts:
        lines = [f"{video.path} {video.label}\n" for video in world.videos_of(part, spec)]
        write_text(root / f"{part}.txt", "".join(lines))
    for label_set in world.label_sets:
        rows = [f"{label},{shape_class.name}\n" for label, shape_class in enumerate(world.classes_of(label_set))]
        write_text(root / f"{label_set}_labels.csv", "".join(["id,name\n", *rows]))


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser("python -m datasets.shapes", description="Write a built-in shapes set.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the set")
    parser.add_argument("--world", choices=WORLDS, default="demo", help="(demo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of videos per class")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--films", action="store_true", help="also captions, transcripts and their videos")
    args = parser.parse_args(argv)
    if args.films and args.world != "demo":
        parser.error(f"--films: there are none in the world {args.world}; they are the demo's")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    world = WORLDS[args.world]
    spec = world.spec(seed=args.seed, scale=args.scale)
    write_shapes(args.out, spec, args.workers, world)
    if args.films:
        write_films(args.out, spec, args.workers)
    return args.out


if __name__ == "__main__":
    from datasets.shapes import __main__ as module  # processes that are spawned know no function of a ``-m`` package

    run_main(module.main)
