"""A few videos of a list, read before the work begins: what cannot work at all is known at once."""

import logging
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np

from datasets.clips.video import VideoSource
from datasets.decode.pyav_reader import open_video
from datasets.decode.readers import UnreadableVideo
from datasets.decode.time_limit import all_within

logger = logging.getLogger(__name__)

MOST = 8  # videos tried of a list, spread over it
LIMIT_S = 60.0  # of all of them together, where reading has no limit of its own


def problem_of(source: VideoSource, name: str) -> str:
    """Why a list cannot be used, or "": none of the videos tried shows its first frame.

    If only some cannot be read, that is a warning. All are tried at the same time, so that a disk that hangs takes no
    longer than one video may.

    Args:
        name: of the list, as the configuration calls it.
    """
    indices = np.unique(np.linspace(0, len(source.videos) - 1, MOST).astype(int)).tolist()
    trials = all_within(source.timeout_s or LIMIT_S, partial(_try, replace(source, timeout_s=0)), indices)
    errors = {index: trial for index, trial in zip(indices, trials, strict=True) if isinstance(trial, UnreadableVideo)}
    failed = [f"{source.videos.path(index)!r}: {error}" for index, error in errors.items()]
    found = [trial for trial in trials if not isinstance(trial, UnreadableVideo)]
    decoder = f" with data.decoder={source.decoder}" if source.has_files else ""
    if not found:
        shown = "; ".join(failed[:3])
        return f"none of the {len(trials)} videos tried of {name} can be read{decoder}: {shown}"
    if failed:
        logger.warning("%s: %d of %d videos tried: %s", name, len(failed), len(trials), "; ".join(failed))
    frames, codecs = zip(*found, strict=True)
    shown = ", ".join(f"{count} {codec}" for codec, count in Counter(codecs).items())
    logger.info("%s: tried %s, of %d to %d frames%s", name, shown, min(frames), max(frames), decoder)
    return ""


def _try(source: VideoSource, index: int) -> tuple[int, str]:
    """Number of frames and codec of one video, of which the first frame is read."""
    frames = source.read(index, lambda num_frames: np.zeros(1, dtype=np.int64))
    codec = "packed" if source.pack else "folders of frames"
    if source.has_files:
        with open_video(source.place(index), source.max_pixels) as (_, stream):
            codec = stream.codec_context.codec.canonical_name
    return frames.reader.num_frames, codec
