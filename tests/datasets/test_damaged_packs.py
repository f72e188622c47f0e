"""Packs whose index is damaged: one line that names the pack, never frames of another video."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from datasets.decode.readers import UnreadableVideo
from datasets.pack.shards import BLOCK, Settings, ShardPack, ShardReader, fingerprint

PATHS = np.array([b"a.mp4", b"b b.mp4"])
VIDEOS = np.array([[0, 0, 0, 1], [1, BLOCK, 1, 2]])
FRAMES = np.array([[10, 1], [10, 2], [10, 3]], dtype=np.uint32)
SETTINGS = Settings(1, "0" * 16, "/videos", short_side=0, frames=0, quality=90, shard_size_mb=1)
SHARDS = [["shard-000000.tar", 4 * BLOCK], ["shard-000001.tar", 8 * BLOCK]]


def write_pack(folder: Path, paths=PATHS, videos=VIDEOS, frames=FRAMES, **manifest: object) -> Path:
    """An index whose fingerprint fits its tables, so that a table itself must tell that it cannot be."""
    (folder / "index").mkdir(parents=True, exist_ok=True)
    for name, values in (("paths", paths), ("videos", videos), ("frames", frames)):
        np.save(folder / "index" / f"{name}.npy", values)
    told = {"version": 1, "settings": asdict(SETTINGS), "num_frames": len(frames), "shards": SHARDS}
    told |= {"fingerprint": fingerprint(paths, videos)} | manifest
    (folder / "index" / "pack.json").write_text(json.dumps(told))
    return folder


def table(row: int, *values: int) -> np.ndarray:
    videos = VIDEOS.copy()
    videos[row] = values
    return videos


# Entries of pack.json and tables that cannot be -> what the error says.
TOLD = {
    "no settings": ({"settings": None}, "settings"),
    "settings of a list": ({"settings": []}, "settings"),
    "no fingerprint": ({"fingerprint": None}, "fingerprint"),
    "frames of text": ({"num_frames": "3"}, "num_frames"),
    "a version that is none": ({"version": "x"}, "version x"),
    "a version of a list": ({"version": []}, "version []"),
    "no shards": ({"shards": None}, "shards"),
    "shards by name": ({"shards": {"a": 1}}, "shards"),
    "shards without sizes": ({"shards": [["a.tar"]]}, "shards"),
    "shards of texts": ({"shards": ["ab"]}, "shards"),
    "a size below 0": ({"shards": [["a.tar", -1]]}, "shards"),
    "a size of text": ({"shards": [["a.tar", "8"]]}, "shards"),
    "a shard elsewhere": ({"shards": [["../a.tar", 8]]}, "shards"),
    "a shard at the root": ({"shards": [["/etc/a.tar", 8]]}, "shards"),
    "a shard without a name": ({"shards": [["", 8]]}, "shards"),
    "a shard too few": ({"shards": SHARDS[:1]}, "row 1"),
    "no shard at all": ({"shards": []}, "row 0"),
    "more frames": ({"num_frames": 4}, "belong to different packs"),
    "other videos": ({"videos": table(1, 1, 0, 1, 2), "fingerprint": fingerprint(PATHS, VIDEOS)}, "different packs"),
    "a shard below 0": ({"videos": table(1, -1, 0, 1, 2)}, "row 1 (shard, offset, first frame, frames: [-1, 0, 1, 2])"),
    "an offset below 0": ({"videos": table(0, 0, -BLOCK, 0, 1)}, "row 0"),
    "an offset within a block": ({"videos": table(0, 0, 3, 0, 1)}, "row 0"),
    "an offset beyond the shard": ({"videos": table(0, 0, 100 * BLOCK, 0, 1)}, "row 0"),
    "an absurd offset": ({"videos": table(0, 0, 2**62, 0, 1)}, "row 0"),
    "frames beyond": ({"videos": table(1, 1, BLOCK, 2, 2)}, "row 1"),
    "frames below 0": ({"videos": table(1, 1, BLOCK, 1, -2)}, "row 1"),
    "absurd frames": ({"videos": table(1, 1, BLOCK, 2**62, 2**62)}, "row 1"),
    "shared frames": ({"videos": table(1, 1, BLOCK, 0, 2)}, "row 1"),
    "paths in another order": ({"paths": PATHS[::-1].copy()}, "paths.npy"),
    "a path twice": ({"paths": PATHS[[0, 0]]}, "paths.npy"),
    "fewer paths": ({"paths": PATHS[:1]}, "1 paths, but 2 videos"),
    "paths of letters": ({"paths": PATHS.astype(str)}, "paths.npy"),
    "paths of numbers": ({"paths": np.arange(2)}, "paths.npy"),
    "videos of fewer columns": ({"videos": VIDEOS[:, :3].copy()}, "videos.npy"),
    "videos in fp64": ({"videos": VIDEOS.astype(float)}, "videos.npy"),
    "videos in 32 bits": ({"videos": VIDEOS.astype(np.int32)}, "videos.npy"),
    "frames in 64 bits": ({"frames": FRAMES.astype(np.int64)}, "frames.npy"),
    "frames of one column": ({"frames": FRAMES[:, :1].copy()}, "frames.npy"),
    "flat frames": ({"frames": FRAMES.ravel(), "num_frames": 6}, "frames.npy"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_an_index_that_cannot_be_is_named(case, tmp_path):
    changes, message = TOLD[case]
    write_pack(tmp_path / "pack", **changes)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        ShardPack.open(tmp_path / "pack")
    assert str(tmp_path / "pack") in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def swap(folder: Path) -> None:
    paths, videos = folder / "paths.npy", folder / "videos.npy"
    content = paths.read_bytes()
    paths.write_bytes(videos.read_bytes())
    videos.write_bytes(content)


def cut(index: Path) -> None:
    (index / "videos.npy").write_bytes((index / "videos.npy").read_bytes()[:-8])


def manifest(content: str) -> Callable[[Path], object]:
    return lambda index: (index / "pack.json").write_text(content)


FILES = {
    "[]": (manifest("[]"), "pack.json"),
    "{}": (manifest("{}"), "pack.json"),
    "null": (manifest("null"), "pack.json"),
    "{x": (manifest("{x"), "pack.json"),
    "many levels": (manifest("[" * 100_000), "pack.json"),
    "arrays swapped": (swap, "paths.npy"),
    "pickled frames": (
        lambda index: np.save(index / "frames.npy", np.array([{}], object), allow_pickle=True), "frames.npy",
    ),
    "cut short": (cut, "videos.npy"),
    "missing": (lambda index: (index / "videos.npy").unlink(), "videos.npy"),
    "empty": (lambda index: (index / "paths.npy").write_bytes(b""), "paths.npy"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_the_index_that_is_something_else_is_named(case, tmp_path):
    damage, name = FILES[case]
    damage(write_pack(tmp_path / "pack") / "index")
    with pytest.raises(ValueError, match=rf"damaged index: .*{name}") as error:
        ShardPack.open(tmp_path / "pack")
    assert "\n" not in str(error.value)


def test_a_whole_index_is_read(tmp_path):
    pack = ShardPack.open(write_pack(tmp_path / "pack"))
    assert pack.open_video(b"b b.mp4").num_frames == 2


def test_frames_that_a_shard_is_too_small_for_take_no_memory(tmp_path):
    (tmp_path / "x.tar").write_bytes(bytes(4 * BLOCK))
    reader = ShardReader(tmp_path / "x.tar", 0, np.array([[2**32 - 1, 0]] * 1000, dtype=np.uint32))
    with pytest.raises(UnreadableVideo, match=r"x\.tar: ends within the video"):
        reader.read(np.arange(1000))
