"""The videos of the second world's parts."""

import zlib

import numpy as np

from datasets.shapes.proxy.looks import sample_looks
from datasets.shapes.proxy.render import render
from datasets.shapes.proxy.world import (
    ANY,
    OTHER_STYLES,
    PHOTO,
    SCENES,
    SEEN_SCENES,
    ProxyClass,
    home_scene,
    label_set_of,
)
from datasets.shapes.videos import FRAME_SIZES, VideoSpec, hints
from datasets.shapes.world import MOTIONS

FORMAT_VERSION = 1  # raise it when the same seed gives other videos or other paths
FRAME_COUNTS = (16, 24)
HOME_RATE = 0.7  # of training's videos show an object in its home scene


def render_video(video: VideoSpec, seed: int) -> np.ndarray:
    """The frames of a video, uint8 [T, H, W, 3], from a generator keyed by seed, part and index."""
    generator = np.random.default_rng([seed, zlib.crc32(video.part.encode()), video.index])
    size = FRAME_SIZES[generator.integers(len(FRAME_SIZES))]
    num_frames = int(generator.integers(FRAME_COUNTS[0], FRAME_COUNTS[1] + 1))
    shown, style = complete(video, generator)
    ids = (np.array([i]) for i in (*shown, style))
    looks = sample_looks(*ids, generator)
    instants = np.linspace(-0.5, 0.5, num_frames, dtype=np.float32)[None]
    return render(looks, instants, hints(instants.shape, generator), size, generator)[0]


def complete(video: VideoSpec, generator: np.random.Generator) -> tuple[ProxyClass, int]:
    """What a video shows, all but the colour, which may be left to the looks; and its style."""
    motion = int(generator.integers(len(MOTIONS)))
    scene = int(generator.integers(len(SCENES)))
    style = int(generator.choice(OTHER_STYLES)) if video.part.endswith("_styles") else PHOTO
    if label_set_of(video.part) == "seen":
        is_home = generator.random() < HOME_RATE
        scene = home_scene(video.shape_class.object_id) if is_home else int(generator.choice(SEEN_SCENES))
    drawn = {"motion_id": motion, "scene_id": scene}
    free = {name: value for name, value in drawn.items() if getattr(video.shape_class, name) == ANY}
    return video.shape_class._replace(**free), style
