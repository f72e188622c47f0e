"""The checker: every kind of odd file is named, crashes are survived, lists are cleaned, originals untouched."""

import faulthandler
import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from PIL import Image

from datasets.check import __main__ as check
from datasets.check.summary import Problem
from datasets.decode.decoders import DECODERS, installed_decoders
from datasets.lists.records import read_video_list

NOTES = {
    "half.mkv": "truncated mid-stream",
    "mp4 as.avi": "wrong extension: .avi, but the content is mov,mp4",
    "variable.mp4": "variable frame rate",
    "turned.mp4": "rotated by metadata (270 degrees)",
    "ten bits.mp4": "10 bits a channel (yuv420p10le)",
}


def run_check(folder: Path, *arguments: str) -> tuple[int, dict]:
    status = check.main([*arguments, "--out", str(folder / "out"), "--workers", "2"])
    return status, json.loads((folder / "out" / "report.json").read_text())


def problems_of(report: dict, kind: str) -> dict[str, str]:
    problems = [Problem(**problem) for problem in report["problems"]]
    return {problem.path: problem.detail for problem in problems if problem.kind == kind}


@pytest.fixture
def odd_list(odd_videos, broken_names, tmp_path) -> Path:
    """A list of all of them, and of one that is missing."""
    names = sorted({*os.listdir(odd_videos), *broken_names})
    path = tmp_path / "odd.txt"
    path.write_text("".join(f"{name} {number % 3}\n" for number, name in enumerate(names)))
    return path


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("frames", ["all", "sample"])
def test_every_odd_file_is_named(odd_videos, odd_list, broken_names, tmp_path, capsys, decoder, frames):
    if decoder not in installed_decoders():
        pytest.skip(f"{decoder} does not work here")
    before = odd_list.read_bytes()
    arguments = [str(odd_list), "--root", str(odd_videos), "--decoder", decoder, "--frames", frames]
    status, report = run_check(tmp_path, *arguments)
    unreadable = problems_of(report, "unreadable")
    if decoder == "torchcodec":
        unreadable.pop("b frames.avi", None)  # it cannot
    assert status == 1
    assert unreadable.keys() == {*broken_names, "picture.mp4"}
    assert {name: reason for name, reason in broken_names.items() if reason not in unreadable[name]} == {}
    assert "PNG picture" in unreadable["picture.mp4"]
    notes = problems_of(report, "note")
    assert {name: note for name, note in NOTES.items() if note not in notes.get(name, "")} == {}
    assert "good.mp4" not in notes
    assert problems_of(report, "too short") == {"one.mp4": "frames: 1, needed: 8"}
    assert problems_of(report, "same content").keys() == {"variable.mp4"}
    assert odd_list.read_bytes() == before
    cleaned = read_video_list(tmp_path / "out" / "list_clean.txt", odd_videos, "video", 3, "val")
    assert not {cleaned.path(index) for index in range(len(cleaned))} & unreadable.keys()
    assert report["lists"]["list"]["num_unreadable"] == len(problems_of(report, "unreadable"))
    assert "zero.mp4: empty file" in capsys.readouterr().out


def test_frames_that_decord_misses_are_noted(decord, odd_videos, tmp_path):
    (tmp_path / "a.txt").write_text("b frames.avi 0\ngood.mp4 0\n")
    status, report = run_check(tmp_path, str(tmp_path / "a.txt"), "--root", str(odd_videos), "--decoder", "decord")
    assert status == 0
    assert problems_of(report, "note").keys() == {"b frames.avi"}
    assert "pyav is exact" in problems_of(report, "note")["b frames.avi"]


def test_a_configuration_checks_both_lists_and_what_they_share(debug_config, debug_data, tmp_path, capsys):
    tree = yaml.safe_load(debug_config.read_text())
    tree["data"] |= {"train_list": str(tmp_path / "train.txt"), "val_list": str(tmp_path / "val.txt")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "train.txt").write_text("train 00.mp4 0\ntrain 01.mp4 1\ntrain 00.mp4 2\n")
    (tmp_path / "val.txt").write_text("val 00.mp4 0\ntrain 01.mp4 1\n")
    status, report = run_check(tmp_path, str(tmp_path / "config.yaml"))
    assert status == 0
    assert problems_of(report, "twice in the list") == {"train 00.mp4": "labels 0 and 2"}
    assert problems_of(report, "in both lists") == {"train 01.mp4": "also in train"}
    entry = report["lists"]["train"]
    expected = read_video_list(tmp_path / "train.txt", debug_data / "videos", "video", 4, "train")
    assert entry["fingerprint"] == expected.fingerprint()
    assert entry["classes"]["a bar moving left"] == [1, 0]
    assert entry["resolutions"] == [["64x48", 3]]
    assert entry["frames"]["min"] >= 6
    assert entry["bytes"]["total"] > 0
    assert "a bar moving down | 0 | 0" in capsys.readouterr().out
    assert (tmp_path / "out" / "val_clean.txt").read_text() == (tmp_path / "val.txt").read_text()


def test_the_same_bytes_in_train_and_val_are_found(debug_config, debug_data, tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / f"{part}.mp4").write_bytes((debug_data / "videos" / "val 00.mp4").read_bytes())
        (tmp_path / f"{part}.txt").write_text(f"{part}.mp4 0\n")
    tree = yaml.safe_load(debug_config.read_text())
    for part in ("train", "val"):
        tree["data"] |= {f"{part}_root": str(tmp_path / part), f"{part}_list": str(tmp_path / f"{part}.txt")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    _, report = run_check(tmp_path, str(tmp_path / "config.yaml"))
    assert problems_of(report, "in both lists") == {"val.mp4": "same bytes as train.mp4 in train, labels 0 and 0"}


def test_a_crashing_decoder_loses_one_file(odd_videos, tmp_path, monkeypatch):
    read = DECODERS["pyav"].read

    def crash_on_one_frame(reader, indices):
        if reader.num_frames == 1:
            faulthandler.disable()  # pytest would print a traceback
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(reader, indices)

    monkeypatch.setattr(DECODERS["pyav"], "read", crash_on_one_frame)
    (tmp_path / "a.txt").write_text("good.mp4 0\none.mp4 0\nvariable.mp4 0\n")
    status, report = run_check(tmp_path, str(tmp_path / "a.txt"), "--root", str(odd_videos), "--decoder", "pyav")
    assert status == 1
    assert problems_of(report, "unreadable") == {"one.mp4": "crashed the decoder (SIGSEGV)"}
    assert (tmp_path / "out" / "list_clean.txt").read_text() == "good.mp4 0\nvariable.mp4 0\n"


def test_folders_of_frames_are_checked_too(debug_config, tmp_path):
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
        for number in range(1, 9):
            Image.new("RGB", (40, 32)).save(tmp_path / folder / f"img_{number:05d}.jpg")
    tree = yaml.safe_load(debug_config.read_text())
    for part in ("train", "val"):
        tree["data"] |= {f"{part}_root": str(tmp_path), f"{part}_list": str(tmp_path / f"{part}.txt")}
    tree["data"] |= {"modality": "RGB"}
    (tmp_path / "train.txt").write_text("whole 8 0\n")
    (tmp_path / "val.txt").write_text("cut 9 0\nwhole 8 1\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    status, report = run_check(tmp_path, str(tmp_path / "config.yaml"))
    assert status == 1
    assert problems_of(report, "unreadable").keys() == {"cut"}
    assert "img_00009.jpg" in problems_of(report, "unreadable")["cut"]
    assert report["lists"]["train"]["resolutions"] == [["40x32", 1]]
    assert (tmp_path / "out" / "val_clean.txt").read_text() == "whole 8 1\n"


@pytest.mark.parametrize(("frames", "expected"), [("all", {"a"}), ("sample", set())])
def test_a_frame_between_those_of_a_sample_is_only_found_by_decoding_all(debug_config, tmp_path, frames, expected):
    (tmp_path / "a").mkdir()
    for number in range(1, 101):
        Image.new("RGB", (40, 32)).save(tmp_path / "a" / f"img_{number:05d}.jpg")
    (tmp_path / "a" / "img_00003.jpg").write_bytes(b"no picture")
    tree = yaml.safe_load(debug_config.read_text())
    tree["data"] |= {"modality": "RGB", "train_list": "", "val_root": str(tmp_path), "val_list": f"{tmp_path}/a.txt"}
    (tmp_path / "a.txt").write_text("a 100 0\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    status, report = run_check(tmp_path, str(tmp_path / "config.yaml"), "--frames", frames)
    assert status == len(expected)
    assert problems_of(report, "unreadable").keys() == expected


def test_a_root_does_not_go_with_a_configuration(debug_config, tmp_path):
    with pytest.raises(ValueError, match="--root"):
        check.main([str(debug_config), "--root", str(tmp_path)])
