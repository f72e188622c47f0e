"""Packing: what is written, that a killed run ends with the same bytes, and what is wrong input."""

import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from test_readers import decode_one_by_one

from datasets.clips.sampling import eval_indices
from datasets.pack import __main__ as pack
from datasets.pack import writer as pack_shards
from datasets.pack.frames import kept_frames

ROOT = Path(__file__).resolve().parents[2]
# The same stem in two folders, spaces, other scripts, dots, a name longer than a tar header holds.
NAMES = (
    "a/clip.mp4", "b/clip.mp4", "riding a bike/v 1.mp4", "tr\u00e4ume/\u6f22\u5b57.mp4", "v.1.2.mp4",
    "long/" + "x" * 240 + ".mp4",
)  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Folder of small videos of smooth pictures with ``list.txt``. Read only."""
    folder = tmp_path_factory.mktemp("some videos")
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(exist_ok=True)
        write_smooth_video(folder / name, 10 + 3 * number, rng)
    (folder / "list.txt").write_text("".join(f"{name} {number % 4}\n" for number, name in enumerate(NAMES)))
    return folder


def write_smooth_video(path: Path, num_frames: int, rng: np.random.Generator, width: int = 160) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, 120, "yuv420p"
        corners = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        picture = np.asarray(corners.resize((width + num_frames, 120), Image.Resampling.BICUBIC))
        for start in range(num_frames):
            frame = np.ascontiguousarray(picture[:, start : start + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def run_pack(videos: Path, out: Path, *options: str, listed: str = "list.txt", workers: int = 0) -> Path:
    command = [str(videos / listed), "--root", str(videos), "--out", str(out), "--workers", str(workers), *options]
    pack.main(command)
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def shards(videos, tmp_path_factory) -> Path:
    """A pack of ``videos``, every frame, in one shard. Read only."""
    return run_pack(videos, tmp_path_factory.mktemp("packs") / "shards")


def small_shards(monkeypatch: pytest.MonkeyPatch, per_shard: int = 2) -> None:
    monkeypatch.setattr(pack_shards, "_videos_per_shard", lambda *_: per_shard)


# --- what is written


def test_shards_are_webdatasets(videos, shards):
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shards / "shard-000000.tar") as tar:
        for member in tar:
            key, suffix = member.name.split(".", 1)  # WebDataset's rule
            samples.setdefault(key, {})[suffix] = tar.extractfile(member).read()
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
    assert len(samples) == len(NAMES)
    for number, (name, sample) in enumerate(zip(NAMES, samples.values(), strict=True)):
        about = json.loads(sample.pop("json"))
        assert about == {"path": name, "label": number % 4, "num_frames": 10 + 3 * number, "fps": 25.0}
        assert sorted(sample) == [f"{frame:06d}.jpg" for frame in range(10 + 3 * number)]
        expected = decode_one_by_one(videos / name).permute(0, 2, 3, 1).numpy()
        for picture, frame in zip(sample.values(), expected, strict=True):
            assert np.abs(np.asarray(Image.open(BytesIO(picture)), dtype=int) - frame).mean() < 3


def test_the_written_list_is_that_of_the_videos(videos, shards):
    assert (shards / "list.txt").read_text() == (videos / "list.txt").read_text()
    assert not (shards / "failed.txt").exists()
    assert sorted(path.name for path in shards.iterdir()) == ["index", "list.txt", "settings.json", "shard-000000.tar"]


def test_frames_can_be_thinned_out_and_made_smaller_but_not_larger(videos, tmp_path):
    out = run_pack(videos, tmp_path / "out", "--frames", "8", "--short_side", "500")
    with tarfile.open(out / "shard-000000.tar") as tar:
        pictures = [tar.extractfile(member).read() for member in tar if member.name.startswith("000000005.0")]
    expected = decode_one_by_one(videos / NAMES[5])[[int(25 / 8 * i) for i in range(8)]]
    found = np.stack([np.asarray(Image.open(BytesIO(picture)), dtype=int) for picture in pictures])
    assert np.abs(found - expected.permute(0, 2, 3, 1).numpy()).mean() < 3


@pytest.mark.parametrize("num_frames", [64, 65, 250, 299, 300, 1234])
@pytest.mark.parametrize("num_segments", [4, 8, 16, 32, 64])
def test_one_clip_of_a_thinned_video_is_that_of_the_whole_one(num_frames, num_segments):
    kept = kept_frames(num_frames, 64)
    assert np.array_equal(kept[eval_indices(64, num_segments)[0]], eval_indices(num_frames, num_segments)[0])


def test_short_videos_are_kept_whole():
    assert kept_frames(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert kept_frames(8, 0).tolist() == list(range(8))


def test_a_path_listed_twice_is_packed_once_and_stays_in_the_list(videos, tmp_path):
    (tmp_path / "twice.txt").write_text("a/clip.mp4 1\nb/clip.mp4 2\na/clip.mp4 3\n")
    out = run_pack(videos, tmp_path / "out", listed=str(tmp_path / "twice.txt"))
    assert (out / "list.txt").read_text() == "a/clip.mp4 1\nb/clip.mp4 2\na/clip.mp4 3\n"
    with tarfile.open(out / "shard-000000.tar") as tar:
        assert sum(name.endswith(".json") for name in tar.getnames()) == 2


def test_shards_have_about_the_size_asked_for(videos, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_shards, "SAMPLE", 3)
    whole = (shards / "shard-000000.tar").stat().st_size
    listed = pack._read_list(videos / "list.txt", videos)
    made_with = json.loads((shards / "settings.json").read_text())
    settings = pack.Settings(**made_with | {"shard_size_mb": whole / 3e6})
    pack_shards.pack_shards(listed, settings, tmp_path, 0)
    assert len(list(tmp_path.glob("*.tar"))) == 3


# --- interrupted runs


def test_processes_do_not_change_a_byte(videos, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    alone = run_pack(videos, tmp_path / "alone")
    shared = run_pack(videos, tmp_path / "shared", workers=2)
    assert content(shared) == content(alone)


class Killed(BaseException):
    """Ends a run in the middle, as nothing but a signal would."""


def test_a_run_that_goes_on_leaves_finished_shards_alone(videos, tmp_path, monkeypatch):
    small_shards(monkeypatch)

    def killed(*_) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pack_shards, "_write_index", killed)
        with pytest.raises(Killed):
            run_pack(videos, tmp_path / "out")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert len(written) > 1
    run_pack(videos, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")} == written


def test_a_run_that_ends_before_any_file_appears_continues_to_the_same_bytes(videos, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    expected = content(run_pack(videos, tmp_path / "whole"))
    replace, out = os.replace, tmp_path / "parts"
    for survivors in range(100):
        count = iter(range(survivors))

        def killed_replace(source, target, count=count):
            if next(count, None) is None:
                raise Killed
            replace(source, target)

        monkeypatch.setattr("os.replace", killed_replace)
        shutil.rmtree(out, ignore_errors=True)
        try:
            run_pack(videos, out)
        except Killed:
            monkeypatch.setattr("os.replace", replace)
            assert content(run_pack(videos, out)) == expected
        else:
            break
    assert survivors > len(NAMES) / 2


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(12):
        write_smooth_video(tmp_path / f"{number}.mp4", 60, rng, width=320)
    lines = [f"{number}.mp4 0\n" for number in range(12)]
    (tmp_path / "list.txt").write_text("".join(lines))
    options = ["--shard_size_mb", "1", "--quality", "100"]
    expected = content(run_pack(tmp_path, tmp_path / "whole", *options))
    command = [sys.executable, "-m", "datasets.pack", str(tmp_path / "list.txt"), "--root", str(tmp_path)]
    command += ["--out", str(tmp_path / "killed"), "--workers", "2", *options]
    moments, killed = random.Random(1), tmp_path / "killed"
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            before = written_names(killed)
            while written_names(killed) == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    run_pack(tmp_path, killed, *options, workers=2)
    assert content(killed) == expected


def written_names(folder: Path) -> set[str]:
    """Whatever a packer has begun or ended."""
    return {path.name for path in folder.rglob("*") if path.name != "settings.json"}


def test_another_start_after_the_end_changes_nothing(videos, tmp_path):
    out = run_pack(videos, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    run_pack(videos, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "name"),
    [(("--frames", "4"), "frames was 0, is 4"), (("--quality", "80"), "quality was 90, is 80")],
)
def test_other_arguments_in_the_same_folder_are_an_error(videos, shards, options, name):
    before = content(shards)
    with pytest.raises(ValueError, match=name):
        run_pack(videos, shards, *options)
    assert content(shards) == before


def test_another_list_in_the_same_folder_is_an_error(videos, shards, tmp_path):
    (tmp_path / "other.txt").write_text("b/clip.mp4 1\na/clip.mp4 0\n")
    with pytest.raises(ValueError, match="list_fingerprint"):
        run_pack(videos, shards, listed=str(tmp_path / "other.txt"))


# --- what is wrong


@pytest.fixture
def some_broken(videos, tmp_path, write_video) -> Path:
    """Two good videos, one cut in half, one missing, one text."""
    for name in ("a/clip.mp4", "b/clip.mp4"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(videos / name, tmp_path / name)
    whole = write_video(tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "list.txt").write_text("a/clip.mp4 0\ncut.mp4 1\ngone.mp4 2\ntext.mp4 3\nb/clip.mp4 1\n")
    return tmp_path


def test_unreadable_videos_are_listed_and_left_out(some_broken, caplog):
    out = some_broken / "out"
    for _ in range(2):  # the second start says the same
        with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as end:
            run_pack(some_broken, out)
        assert end.value.code == 1
        assert "3 videos cannot be read" in caplog.text
        failed = [line.split("\t") for line in (out / "failed.txt").read_text().splitlines()]
        assert [path for path, _ in failed] == ["cut.mp4", "gone.mp4", "text.mp4"]
        assert failed[1][1] == "no such file"
        assert all(reason for _, reason in failed)
        assert (out / "list.txt").read_text() == "a/clip.mp4 0\nb/clip.mp4 1\n"
        caplog.clear()


def test_a_list_without_a_readable_video_is_an_error(some_broken):
    (some_broken / "list.txt").write_text("text.mp4 3\ngone.mp4 2\n")
    with pytest.raises(ValueError, match=r"'text\.mp4'.*is --root right"):
        run_pack(some_broken, some_broken / "out")


def test_a_full_disk_is_an_error_that_names_the_file_and_packing_goes_on_later(videos, tmp_path):
    expected = content(run_pack(videos, tmp_path / "whole"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OSError, match=r"\.tar"):
            run_pack(videos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(run_pack(videos, tmp_path / "out")) == expected


def test_what_the_disk_gives_back_is_checked(videos, tmp_path, monkeypatch):
    def damage(original: Callable) -> Callable:
        def damaged(path: Path, *rest: object) -> None:
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 2)
                file.write(bytes(300))
                file.truncate()
            original(path, *rest)

        return damaged

    monkeypatch.setattr(pack_shards, "_read_back", damage(pack_shards._read_back))
    with pytest.raises(OSError, match="gave back"):
        run_pack(videos, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_wrong_places_are_errors_before_anything_is_written(videos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        run_pack(videos, tmp_path / "out", listed="none.txt")
    with pytest.raises(ValueError, match="is --root itself"):
        run_pack(videos, videos)
    with pytest.raises(ValueError, match="holds other files"):
        run_pack(videos, videos / "a")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [("--frames", "-1"), ("--quality", "101"), ("--quality", "0")])
def test_arguments_out_of_range_are_named(videos, tmp_path, options, capsys):
    with pytest.raises(SystemExit):
        run_pack(videos, tmp_path / "out", *options)
    assert "--quality" in capsys.readouterr().err or "--frames" in options
