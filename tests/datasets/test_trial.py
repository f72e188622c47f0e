"""Lists are tried before training: a list of which nothing can be read stops it, some unreadable videos are named."""

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from datasets.clips import trial
from datasets.clips.trial import problem_of
from datasets.clips.video import VideoSource
from datasets.decode.pyav_reader import PyAVReader
from datasets.lists.records import VideoList


def source_of(root: Path, names: list[str], **settings) -> VideoSource:
    return VideoSource(VideoList.of_pairs(str(root), [(name, 0) for name in names]), **settings)


def test_a_readable_list_is_described(odd_videos, caplog):
    with caplog.at_level(logging.INFO):
        assert problem_of(source_of(odd_videos, ["good.mp4", "one.mp4"] * 20), "data.val_list") == ""
    assert "data.val_list: tried 8 h264, of 1 to 40 frames" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_list_of_which_nothing_can_be_read_is_a_problem_with_reasons(odd_videos):
    problem = problem_of(source_of(odd_videos, ["zero.mp4", "missing.mp4", "text.mp4"]), "data.train_list")
    assert problem.startswith("none of the 3 videos tried of data.train_list can be read with data.decoder=pyav: ")
    for reason in ("'zero.mp4': empty file", "'missing.mp4': no such file", "'text.mp4': text, not a video"):
        assert reason in problem


def test_some_unreadable_videos_are_a_warning(odd_videos, caplog):
    with caplog.at_level(logging.WARNING):
        assert problem_of(source_of(odd_videos, ["zero.mp4", "good.mp4"]), "data.val_list") == ""
    assert "data.val_list: 1 of 2 videos tried: 'zero.mp4': empty file" in caplog.text


def test_a_codec_that_a_decoder_lacks_is_named_with_the_remedy(tmp_path, write_video):
    pytest.importorskip("decord")
    write_video(tmp_path / "a.mp4", num_frames=3, codec="libsvtav1", preset=12)
    problem = problem_of(source_of(tmp_path, ["a.mp4"], decoder="decord"), "data.val_list")
    assert "codec av1; data.decoder=pyav may read it" in problem
    assert problem_of(source_of(tmp_path, ["a.mp4"]), "data.val_list") == ""


def test_storage_that_hangs_is_waited_for_once(odd_videos, monkeypatch):
    forever = threading.Event()
    monkeypatch.setattr(trial, "open_video", lambda *args: forever.wait())
    problem = problem_of(source_of(odd_videos, ["good.mp4"] * 5, timeout_s=0.2), "data.val_list")
    forever.set()
    assert problem.startswith("none of the 5 videos tried")
    assert "took too long" in problem


def test_a_mistake_of_ours_is_not_taken_for_a_video(odd_videos, monkeypatch):
    monkeypatch.setattr(PyAVReader, "read", None)
    with pytest.raises(TypeError):
        problem_of(source_of(odd_videos, ["good.mp4"]), "data.val_list")


def test_folders_of_frames_are_tried_too(tmp_path):
    folders = VideoList(str(tmp_path), np.array([b"a", b"b"]), np.array([0, 0]), np.array([4, 4]))
    problem = problem_of(VideoSource(folders), "data.train_list")
    assert problem.startswith("none of the 2 videos tried of data.train_list can be read: 'a': img_00001.jpg: no such")
