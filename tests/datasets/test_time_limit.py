"""The time limit: a call that hangs is given up, in this process and in a loader's worker, and the process ends."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from datasets.decode.pyav_reader import PyAVReader
from datasets.decode.readers import UnreadableVideo
from datasets.decode.time_limit import within

# A source that waits for ever to open video 1, a pipe without a writer; the others are read as usual.
SCRIPT = """
import sys
from functools import partial
from pathlib import Path
import numpy as np
from torch.utils.data import DataLoader
from datasets.lists.records import VideoList
from datasets.clips.sampling import eval_indices
from datasets.clips.presets import MOTE
from datasets.clips.video import EvalVideos, VideoSource, collate

class Stuck(VideoSource):
    def open(self, index):
        if index == 1:
            open(Path(self.videos.root, "pipe.mp4"), "rb")
        return super().open(index)

videos = VideoList(sys.argv[1], np.array([b"good.mp4"] * 4), np.zeros(4, dtype=np.int64), None)
dataset = EvalVideos(Stuck(videos, timeout_s=0.5), partial(eval_indices, num_segments=4),
                     partial(MOTE.eval_views, input_size=32, num_crops=1))
for batch in DataLoader(dataset, batch_size=4, collate_fn=collate, num_workers=int(sys.argv[2])):
    print(batch.indices.tolist(), [failure.reason for failure in batch.failures])
"""


def test_results_and_errors_come_through():
    assert within(5, divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        within(5, divmod, 7, 0)
    assert within(5, divmod, 7, 2) == (3, 1)


def test_one_thread_serves_many_calls_and_none_without_a_limit():
    used = {within(5, threading.get_ident) for _ in range(10)}
    assert len(used) == 1
    assert used != {threading.get_ident()}
    assert within(0, threading.get_ident) == threading.get_ident()


def test_a_call_that_hangs_is_given_up_and_the_next_one_works():
    release = threading.Event()
    with pytest.raises(UnreadableVideo, match=r"took longer than 0\.1 s"):
        within(0.1, release.wait)
    assert within(5, len, "abc") == 3
    release.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_a_thread_of_its_own():
    within(5, len, "")
    child = os.fork()
    if child == 0:
        os._exit(within(5, len, "abc"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stuck_reader_fails_alone_and_the_process_ends(odd_videos, repo_root, workers):
    start = time.monotonic()
    command = [sys.executable, "-c", SCRIPT, str(odd_videos), str(workers)]
    result = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.strip() == "[0, 2, 3] ['took longer than 0.5 s']", result.stderr[-500:]
    assert result.returncode == 0
    assert time.monotonic() - start < 50


def test_a_process_that_has_read_a_video_in_its_helper_can_be_forked(tmp_path, write_video):
    """As when one video was read here, and the next ones by data workers."""
    reader = PyAVReader(write_video(tmp_path / "a.mp4"))
    within(60, reader.read, np.array([0, 20]))
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join(30)
    code = child.exitcode
    child.kill()
    assert code == 0
