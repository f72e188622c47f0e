"""Single pictures of the second world, on which its stand-in for CLIP is pretrained, and what is true of them."""

import numpy as np

from datasets.shapes.paths import poses
from datasets.shapes.pictures import HINT_OPACITY, HINT_RATE, LATENESS, PLACES, SIZE_EDGES, SIZES, Pictures, place_ids
from datasets.shapes.proxy.looks import Looks, sample_looks
from datasets.shapes.proxy.render import render
from datasets.shapes.proxy.world import ANY, COLOURS, OBJECTS, OTHER_STYLES, PHOTO, SCENES, STYLES, TEXTURES
from datasets.shapes.world import MOTIONS

PHOTO_RATE = 0.6
NOT_SHOWN = -1  # what a style hides of a picture
TILTS = ("upright", "tilted to the right", "upside down", "tilted to the left")
# What can be said about a picture: each attribute is an index into one of these.
ATTRIBUTES = (OBJECTS, COLOURS, TEXTURES, SCENES, STYLES, tuple(motion.name for motion in MOTIONS), PLACES, SIZES,
              TILTS)  # fmt: skip
COLOURLESS = np.array([STYLES.index(name) for name in ("sketch", "negative")])
TEXTURELESS = np.array([STYLES.index("mosaic")])
CHUNK = 64  # pictures drawn at once; more fall out of the processor's cache


def draw_pictures(count: int, generator: np.random.Generator, size: tuple[int, int] = (48, 48)) -> Pictures:
    """Pictures of all objects, motions, scenes and styles, drawn independently of any part's classes.

    Their attributes are int64 [N, 9], see ATTRIBUTES, NOT_SHOWN where the style hides them.
    """
    chunks = [_draw_chunk(min(CHUNK, count - start), generator, size) for start in range(0, count, CHUNK)]
    return Pictures(*(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _draw_chunk(count: int, generator: np.random.Generator, size: tuple[int, int]) -> Pictures:
    object_ids, motion_ids, scene_ids = (generator.integers(len(n), size=count) for n in (OBJECTS, MOTIONS, SCENES))
    style_ids = np.where(generator.random(count) < PHOTO_RATE, PHOTO, generator.choice(OTHER_STYLES, count))
    looks = sample_looks(object_ids, motion_ids, np.full(count, ANY), scene_ids, style_ids, generator)
    instants = generator.uniform(-0.5, 0.5, (count, 1, LATENESS)).max(axis=2).astype(np.float32)
    opacity = generator.uniform(*HINT_OPACITY, (count, 1)) * (generator.random((count, 1)) < HINT_RATE)
    frames = render(looks, instants, opacity.astype(np.float32), size, generator)[:, 0]
    return Pictures(frames, attributes_of(looks, poses(looks, np.arange(count), instants[:, 0])))


def attributes_of(looks: Looks, pose: np.ndarray) -> np.ndarray:
    """What is true of N pictures, int64 [N, 9], from their looks and their objects' poses [N, 4]."""
    colour_ids = np.where(np.isin(looks.style_ids, COLOURLESS), NOT_SHOWN, looks.colour_ids)
    texture_ids = np.where(np.isin(looks.style_ids, TEXTURELESS), NOT_SHOWN, looks.texture_ids)
    size_ids = np.digitize(pose[:, 3], SIZE_EDGES)
    columns = [looks.object_ids, colour_ids, texture_ids, looks.scene_ids, looks.style_ids, looks.motion_ids]
    tilt_ids = np.rint(pose[:, 2] * 2 / np.pi).astype(np.int64) % len(TILTS)  # the nearest quarter of a turn
    return np.stack([*columns, place_ids(pose), size_ids, tilt_ids], axis=1)
