"""Single pictures of the shapes world, "the web" on which the demo's stand-in for CLIP is pretrained."""

from typing import NamedTuple

import numpy as np

from datasets.shapes.paths import poses
from datasets.shapes.render import render
from datasets.shapes.scenes import sample_scenes
from datasets.shapes.world import MOTIONS, OBJECTS

POSTER_RATE = 0.2
# Whoever takes a picture waits for a telling moment: the trail is clearer than in the frames of a video, and the
# instant is a late one (the latest of so many uniform ones), when what moves left is already on the left.
HINT_RATE = 0.7
HINT_OPACITY = (0.3, 0.7)
LATENESS = 3

PLACES = ("left", "right", "top", "bottom", "middle")
SIZES = ("small", "medium", "large")
SIZE_EDGES = (0.34, 0.6)  # radii in units of half the picture's shorter side
# What a caption can say about a picture: each attribute is an index into one of these.
ATTRIBUTES = (OBJECTS, tuple(motion.name for motion in MOTIONS), PLACES, SIZES)
CHUNK = 64  # pictures drawn at once; more fall out of the processor's cache


class Pictures(NamedTuple):
    """N pictures and what can be said about them."""

    frames: np.ndarray  # uint8 [N, H, W, 3]
    attributes: np.ndarray  # int64 [N, A]: of the demo object, motion, place, size


def draw_pictures(count: int, generator: np.random.Generator, size: tuple[int, int] = (48, 48)) -> Pictures:
    """Pictures of all objects, motions and styles, drawn evenly and independently of any part's classes."""
    chunks = [_draw_chunk(min(CHUNK, count - start), generator, size) for start in range(0, count, CHUNK)]
    return Pictures(*(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _draw_chunk(count: int, generator: np.random.Generator, size: tuple[int, int]) -> Pictures:
    object_ids = generator.integers(len(OBJECTS), size=count)
    motion_ids = generator.integers(len(MOTIONS), size=count)
    scenes = sample_scenes(object_ids, motion_ids, generator.random(count) < POSTER_RATE, generator)
    instants = generator.uniform(-0.5, 0.5, (count, 1, LATENESS)).max(axis=2).astype(np.float32)
    opacity = generator.uniform(*HINT_OPACITY, (count, 1)) * (generator.random((count, 1)) < HINT_RATE)
    frames = render(scenes, instants, opacity.astype(np.float32), size, generator)[:, 0]
    pose = poses(scenes, np.arange(count), instants[:, 0])
    size_ids = np.digitize(pose[:, 3], SIZE_EDGES)
    return Pictures(frames, np.stack([object_ids, motion_ids, place_ids(pose), size_ids], axis=1))


def place_ids(pose: np.ndarray) -> np.ndarray:
    """The part of the picture that an object is in, as indices [N] into PLACES, from its pose [N, 4]."""
    x, y = pose[:, 0], pose[:, 1]
    side = np.where(np.abs(x) > np.abs(y), np.where(x < 0, 0, 1), np.where(y < 0, 2, 3))
    return np.where(np.maximum(np.abs(x), np.abs(y)) < 0.2, PLACES.index("middle"), side)
