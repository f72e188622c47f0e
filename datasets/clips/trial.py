"""A few videos of a list, read before the work begins: what cannot work at all is known at once."""

import logging
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np

from datasets.clips.video import VideoSource
from datasets.decode.pyav_reader import open_video
from datasets.decode.readers import UnreadableVideo

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
    trials = [_Trial(source, index) for index in indices]
    deadline = time.monotonic() + (source.timeout_s or LIMIT_S)
    for trial in trials:
        trial.wait(deadline)
    failed = [f"{source.videos.path(trial.index)!r}: {trial.problem}" for trial in trials if trial.problem]
    found = Counter(trial.codec for trial in trials if not trial.problem)
    decoder = f" with data.decoder={source.decoder}" if source.has_files else ""
    if len(failed) == len(trials):
        shown = "; ".join(failed[:3])
        return f"none of the {len(trials)} videos tried of {name} can be read{decoder}: {shown}"
    if failed:
        logger.warning("%s: %d of %d videos tried: %s", name, len(failed), len(trials), "; ".join(failed))
    shown = ", ".join(f"{count} {codec}" for codec, count in found.items())
    frames = [trial.num_frames for trial in trials if not trial.problem]
    logger.info("%s: tried %s, of %d to %d frames%s", name, shown, min(frames), max(frames), decoder)
    return ""


class _Trial(threading.Thread):
    """Number of frames, codec and first frame of one video, read in a thread that may be left behind."""

    def __init__(self, source: VideoSource, index: int):
        super().__init__(name="trial", daemon=True)
        self.index, self.num_frames, self.codec, self.problem = index, 0, "", ""
        self._source, self._error = replace(source, timeout_s=0), None
        self.start()

    def run(self) -> None:
        try:
            self._read()
        except UnreadableVideo as error:
            self.problem = str(error)
        except Exception as error:  # raised again by ``wait``
            self._error = error

    def wait(self, deadline: float) -> None:
        """Wait for the end, or until ``time.monotonic()`` is ``deadline``."""
        self.join(max(deadline - time.monotonic(), 0))
        if self.is_alive():
            self.problem = "took too long"
        if self._error:
            raise self._error

    def _read(self) -> None:
        self._source.read(self.index, self._first)
        self.codec = "packed" if self._source.pack else "folders of frames"
        if self._source.has_files:
            with open_video(self._source.place(self.index), self._source.max_pixels) as (_, stream):
                self.codec = stream.codec_context.codec.canonical_name

    def _first(self, num_frames: int) -> np.ndarray:
        self.num_frames = num_frames
        return np.zeros(1, dtype=np.int64)
