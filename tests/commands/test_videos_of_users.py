"""Files as users have them, in every command: codecs of browsers, cuts, encryption, odd names, bad storage."""

import json
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import predict
import train
from datasets.check import __main__ as check
from datasets.clips.sampling import eval_indices
from datasets.clips.video import EvalVideos, VideoSource
from datasets.decode.decoders import DECODERS, installed_decoders
from datasets.decode.readers import UnreadableVideo
from datasets.lists.records import VideoList

TOLERANCE = 3  # grey levels, of a mean


@pytest.fixture
def run_test(repo_root, debug_config, tmp_path) -> Callable[..., dict]:
    """Run test.py on a list of lines; returns results.json, also of a test that ends with an error."""

    def run(root: Path, lines: list[str], *changes: str) -> dict:
        main = runpy.run_path(str(repo_root / "test.py"))["main"]
        (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
        data = [f"data.val_root={root}", f"data.val_list={tmp_path / 'list.txt'}"]
        main(["--config", str(debug_config), "--weights", "clip", "--output", str(tmp_path), *data, *changes])
        return json.loads((tmp_path / "results.json").read_text())

    return run


# --- the files of users


@pytest.mark.parametrize("name", ["av1.mp4", "mediarec8.webm", "copycut.mp4"])
@pytest.mark.parametrize("decoder", list(DECODERS))
def test_frames_are_those_of_ffmpeg_or_the_decoder_says_no(cases, name, decoder):
    if decoder not in installed_decoders():
        pytest.skip(f"{decoder} does not work here")
    expected = json.loads((cases / "expected.json").read_text())["videos"][name]
    try:
        reader = DECODERS[decoder](cases / name)
    except UnreadableVideo as error:
        assert decoder != "pyav"
        assert "data.decoder=pyav" in str(error)  # noqa: PT017
        return
    assert reader.num_frames == expected["frames"] or "the file holds 52" in reader.mismatch
    numbers = sorted(map(int, expected["mean_rgb_of_frames"]))
    means = reader.read(np.array(numbers)).float().mean(dim=(2, 3))
    assert np.allclose(means, [expected["mean_rgb_of_frames"][str(n)] for n in numbers], atol=TOLERANCE)


def test_a_cut_video_shows_eight_frames_that_differ(cases):
    chosen = []
    dataset = EvalVideos(
        VideoSource(VideoList.of_pairs(str(cases), [("copycut.mp4", -1)])),
        lambda num_frames: chosen.append(eval_indices(num_frames, 8)) or chosen[0],
        lambda frames: frames[None],
    )
    (clip,) = dataset[0].clips
    assert chosen[0].tolist() == [[0, 6, 13, 19, 26, 32, 39, 45]]
    assert len({frame.numpy().tobytes() for frame in clip}) == 8


def test_the_same_frames_in_sixteen_bits_give_the_same_logits(cases, run_test, tmp_path):
    logits = {}
    for name in ("frames_rgb24", "frames_rgb48", "both"):
        lines = {"both": ["frames_rgb48 8 0", "frames_rgb24 8 0"]}.get(name, [f"{name} 8 0"])
        settings = ["data.modality=RGB", "data.image_tmpl=img_{:05d}.png", "data.batch_size=2"]
        run_test(cases, lines, *settings, "--precision", "fp32", "--save_logits", str(tmp_path / f"{name}.npz"))
        logits[name] = np.load(tmp_path / f"{name}.npz")["view_logits"]
    assert np.abs(logits["frames_rgb48"] - logits["frames_rgb24"]).max() < 1e-2
    assert np.allclose(
        logits["both"][::-1], np.concatenate([logits["frames_rgb24"], logits["frames_rgb48"]]), atol=1e-5
    )


def test_predict_reads_them_whatever_their_names(cases, debug_data, tmp_path, monkeypatch):
    shutil.copy(cases / "colon_name.mp4", tmp_path / "12:30 clip.mp4")
    for name in ("av1.mp4", "mediarec8.webm", "metadata_not_utf8.avi", "drm.mp4"):
        shutil.copy(cases / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = ["12:30 clip.mp4", "av1.mp4", "mediarec8.webm", "metadata_not_utf8.avi", "drm.mp4"]
    arguments = ["--arch", str(debug_data / "tiny_clip.pt"), "--labels", "a bar,a cross", "--json", "out.json"]
    with pytest.raises(SystemExit, match="1 of 5 videos"):
        predict.main([*names, *arguments])
    found = {entry["path"]: entry.get("error") for entry in json.loads(Path("out.json").read_text())["videos"]}
    assert {name: found[name] for name in names[:-1]} == dict.fromkeys(names[:-1])
    assert found["drm.mp4"].startswith("encrypted")


def test_check_reads_them(cases, tmp_path):
    names = ["av1.mp4", "mediarec8.webm", "copycut.mp4", "colon_name.mp4", "metadata_not_utf8.avi", "drm.mp4"]
    (tmp_path / "list.txt").write_text("".join(f"{name} 0\n" for name in names))
    check.main([str(tmp_path / "list.txt"), "--root", str(cases), "--out", str(tmp_path), "--workers", "2"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert {p["path"] for p in report["problems"] if p["kind"] == "unreadable"} == {"drm.mp4"}
    assert report["lists"]["list"]["frames"]["total"] == 50 + 50 + 52 + 50 + 20


@pytest.mark.slow
def test_one_video_of_a_disk_that_fails_or_hangs_does_not_end_a_test(
    repo_root, debug_config, debug_data, cases, tmp_path
):
    """With a library before the system's whose stat() and open() fail or never return."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    library = tmp_path / "bad_stat.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, cases / "bad_stat.c", "-ldl"], check=True)
    bad = {"ESTALE.mp4": "Stale file handle", "EIO_FILE.mp4": "Input/output error", "STALL.mp4": "took longer than",
           "x" * 300 + ".mp4": "File name too long"}  # fmt: skip
    for name in (*list(bad)[:3], "good.mp4"):
        shutil.copyfile(debug_data / "videos" / "val 00.mp4", tmp_path / name)
    (tmp_path / "list.txt").write_text("".join(f"{name} 0\n" for name in ("good.mp4", *bad)))
    data = [f"data.val_root={tmp_path}", f"data.val_list={tmp_path / 'list.txt'}", "data.decode_timeout_s=6"]
    test = [sys.executable, repo_root / "test.py", "--config", debug_config, "--weights", "clip", "--output", tmp_path]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    done = subprocess.run(
        [*test, *data, "data.workers=1"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for name, reason in bad.items():
        assert re.search(rf"unreadable, counted as wrong: {name} \({reason}", done.stderr)
    assert json.loads((tmp_path / "results.json").read_text())["failed_videos"] == sorted(bad)


# --- what a test says of them


def test_results_name_the_decoder(run_test, odd_videos):
    results = run_test(odd_videos, ["good.mp4 0", "zero.mp4 1"])
    assert results["decoder"] == "pyav"
    assert results["failed_videos"] == ["zero.mp4"]
    assert "frame_count_mismatches" not in results


def test_videos_that_decord_counts_otherwise_are_named(run_test, cut_videos, caplog):
    pytest.importorskip("decord")
    with caplog.at_level(logging.WARNING):
        results = run_test(cut_videos, ["whole.mp4 0", "cut.mp4 1"], "data.decoder=decord", "data.workers=2")
    assert results["decoder"] == "decord"
    assert results["frame_count_mismatches"] == ["cut.mp4"]
    assert results["failed_videos"] == []
    assert "cut.mp4 (40 frames are counted, the file holds 35)" in caplog.text


def test_validation_warns_of_them(cut_videos, debug_config, tmp_path, caplog):
    pytest.importorskip("decord")
    (tmp_path / "list.txt").write_text("whole.mp4 0\ncut.mp4 1\n")
    lists = [f"data.{part}_{key}={value}" for part in ("train", "val")
             for key, value in (("root", cut_videos), ("list", tmp_path / "list.txt"))]  # fmt: skip
    settings = ["data.decoder=decord", "solver.epochs=1", "data.batch_size=2", f"data.output_path={tmp_path}"]
    with caplog.at_level(logging.WARNING):
        train.main(["--config", str(debug_config), *lists, *settings])
    assert caplog.text.count("cut.mp4 (40 frames are counted, the file holds 35)") == 2  # in training and after it


def test_a_test_in_which_every_video_fails_is_an_error_after_its_results(run_test, odd_videos, tmp_path):
    with pytest.raises(ValueError, match=r"none of 3 videos could be read; the first: text\.mp4 \(text"):
        run_test(odd_videos, ["zero.mp4 0", "text.mp4 1", "zero.mp4 2"])
    assert json.loads((tmp_path / "results.json").read_text())["failed_videos"] == ["text.mp4", "zero.mp4"]


@pytest.mark.parametrize(
    ("names", "settings"),
    [(["zero.mp4 0", "missing.mp4 1"], []), (["folder.mp4 4 0", "gone 4 1"], ["data.modality=RGB"])],
)
def test_a_list_of_which_nothing_can_be_read_stops_a_run_before_its_first_step(
    debug_config, odd_videos, tmp_path, names, settings
):
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    changes = [f"data.val_root={odd_videos}", f"data.val_list={tmp_path / 'list.txt'}", f"data.output_path={tmp_path}"]
    if settings:
        changes += [f"data.train_root={odd_videos}", f"data.train_list={tmp_path / 'list.txt'}", *settings]
        changes += ["data.batch_size=2"]
    with pytest.raises(ValueError, match=r"none of the 2 videos tried of data\.val_list can be read"):
        train.main(["--config", str(debug_config), *changes])
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_validation_in_which_every_video_fails_is_an_error(debug_config, debug_data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "check_videos", lambda *args: None)  # the files break after they were tried
    (tmp_path / "list.txt").write_text("missing.mp4 0\ngone.mp4 1\n")
    changes = [f"data.val_list={tmp_path / 'list.txt'}", f"data.output_path={tmp_path}", "solver.epochs=1"]
    with pytest.raises(ValueError, match=r"data\.val_list: none of 2 videos could be read; the first: gone\.mp4"):
        train.main(["--config", str(debug_config), *changes])
    assert list(tmp_path.rglob("epoch_*.pt"))  # what was trained is kept
