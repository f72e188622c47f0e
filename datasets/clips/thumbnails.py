"""A video as a small picture: a few of its frames side by side."""

import logging

import numpy as np
import torch
from torchvision.io import encode_jpeg
from torchvision.transforms.v2 import functional as F

from datasets.clips.video import VideoSource
from datasets.decode.readers import UnreadableVideo

logger = logging.getLogger(__name__)

NUM_FRAMES, HEIGHT, GAP = 4, 96, 2  # frames, pixels, pixels
MAX_WIDTH = 2 * HEIGHT  # of a frame; wider ones are lower


def film_strip(source: VideoSource, index: int) -> bytes | None:
    """JPEG of the frames in the middle of each quarter of a video; None, and a warning, if it cannot be read."""
    try:
        frames = source.read(index, _middles).pixels  # [n, 3, H, W]
    except UnreadableVideo as error:
        logger.warning("no picture of %s (%s)", source.videos.path(index), error)
        return None
    height, width = frames.shape[-2:]
    scale = min(HEIGHT / height, MAX_WIDTH / width)
    frames = F.resize(frames, [max(round(scale * height), 1), max(round(scale * width), 1)], antialias=True)
    gap = torch.full((3, frames.shape[2], GAP), 255, dtype=torch.uint8)
    pieces = [piece for frame in frames for piece in (gap, frame)]
    return encode_jpeg(torch.cat(pieces[1:], dim=2), quality=85).numpy().tobytes()


def _middles(num_frames: int) -> np.ndarray:
    return ((np.arange(NUM_FRAMES) + 0.5) * num_frames / NUM_FRAMES).astype(np.int64)
