"""Videos, frame folders, packs, feature caches and embeddings that are damaged or of another kind."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from tests.bad_inputs.kinds import Bad, Make, Places

ROOT = Path(__file__).resolve().parents[2]


def video(content: Callable[[bytes], bytes], name: str = "v.mp4") -> Make:
    """A file in the place of the test list's only video, made from a good one's bytes."""

    def make(folder: Path, places: Places) -> None:
        path = folder / name
        path.write_bytes(content((places.data / "videos" / "val 00.mp4").read_bytes()))
        (folder / "l.txt").write_text(f"{name} 0\n")

    return make


def place(make_path: Callable[[Path], object], name: str = "v.mp4") -> Make:
    """Something that is no regular file in the place of the video."""

    def make(folder: Path, _: Places) -> None:
        make_path(folder / name)
        (folder / "l.txt").write_text(f"{name} 0\n")

    return make


def _fifo(path: Path) -> None:
    import os

    os.mkfifo(path)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n/etc/hostname\n#EXT-X-ENDLIST\n"
# Videos of which a test's list has no other: that is an error which names one and its reason.
VIDEOS: dict[str, tuple[Make, str]] = {
    "missing": (place(lambda p: None), "no such file"),
    "empty": (video(lambda b: b""), "empty|0 bytes"),
    "the header only": (video(lambda b: b[:100]), ""),
    "the first half": (video(lambda b: b[: len(b) // 2]), ""),
    "text": (video(lambda b: b"not a video\n" * 99), "text"),
    "an error page": (video(lambda b: b"<!DOCTYPE html><html></html>" * 9), ""),
    "zeros": (video(lambda b: bytes(len(b))), ""),
    "random bytes": (video(lambda b: np.random.default_rng(0).bytes(len(b))), ""),
    "a picture": (video(lambda b: b"\x89PNG\r\n\x1a\n" + bytes(200)), "picture|PNG"),
    "a playlist": (video(lambda b: PLAYLIST), ""),
    "a playlist by its name": (video(lambda b: PLAYLIST, "v.m3u8"), ""),
    "a concat script": (video(lambda b: b"ffconcat version 1.0\nfile '/etc/hostname'\n"), ""),
    "a session description": (video(lambda b: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n"), ""),
    "a DASH manifest": (video(lambda b: b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'), ""),
    "a folder": (place(Path.mkdir), "regular file"),
    "a pipe": (place(_fifo), "regular file"),
    "a link to nowhere": (place(lambda p: p.symlink_to("nowhere")), "no such file"),
    "a link to itself": (place(lambda p: p.symlink_to(p.name)), ""),
    "a zip": (video(lambda b: b"PK\x03\x04" + bytes(300)), ""),
}

SETTINGS = {"modality": "video", "decoder": "pyav"}


@lru_cache
def _cache(data: Path, config: Path) -> Path:
    """A feature cache of the debug data's test list, made once."""
    out = config.parent / "cache of the test list"
    _command("extract_features.py", "--config", str(config), "--out", str(out), "--part", "val", "--precision", "fp32")
    return out / "val"


@lru_cache
def _pack(data: Path) -> Path:
    """A pack of the debug data's test list, made once."""
    out = data.parent / "pack of the test list"
    arguments = ("-m", "datasets.pack", str(data / "val.txt"), "--root", str(data / "videos"), "--out", str(out))
    _command(*arguments, "--short_side", "0", "--workers", "0")
    return out


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)


def cache(change: Callable[[Path], object]) -> Make:
    """A feature cache, changed."""

    def make(folder: Path, places: Places) -> None:
        shutil.copytree(_cache(places.data, places.config), folder / "fc")
        change(folder / "fc")

    return make


def pack(change: Callable[[Path], object]) -> Make:
    """A pack, changed."""

    def make(folder: Path, places: Places) -> None:
        shutil.copytree(_pack(places.data), folder / "pk")
        change(folder / "pk")

    return make


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit_json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def edit_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        array = np.array(np.load(folder / name))
        np.save(folder / name, change(array), allow_pickle=True)

    return edit


def edit_index(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        lines = (folder / "index.txt").read_text().splitlines()
        (folder / "index.txt").write_text("".join(f"{line}\n" for line in change(lines)))

    return edit


def first_row(row: str) -> Callable[[Path], None]:
    return edit_index(lambda lines: [f"{row} {lines[0].split(' ', 1)[1]}", *lines[1:]])


CACHES: dict[str, Callable[[Path], object]] = {
    "metadata missing": remove("metadata.json"),
    "metadata that is no JSON": write("metadata.json", "{x"),
    "metadata that is a list": write("metadata.json", "[]"),
    "metadata that is empty": write("metadata.json", "{}"),
    "metadata, deep": write("metadata.json", "[" * 100_000),
    "a shape in words": edit_json("metadata.json", lambda m: m.update(shape="big")),
    "a shape of three": edit_json("metadata.json", lambda m: m.update(shape=[8, 1, 4])),
    "another tower": edit_json("metadata.json", lambda m: m.update({k: "x" for k in m if "tower" in k or "sha" in k})),
    "a negative row": first_row("-3"),
    "row -1": first_row("-1"),
    "a row outside": first_row("999999999"),
    "a row in words": first_row("two"),
    "a row that is a superscript": first_row("\u00b2"),
    "two videos with one row": first_row("1"),
    "an index line without a path": edit_index(lambda lines: ["0", *lines[1:]]),
    "a video missing from the index": edit_index(lambda lines: lines[1:]),
    "no index": remove("index.txt"),
    "no features": remove("features.npy"),
    "features cut": lambda f: (f / "features.npy").write_bytes((f / "features.npy").read_bytes()[:200]),
    "features that are text": write("features.npy", "hello"),
    "features of another shape": edit_array("features.npy", lambda a: a[:, :, :2]),
    "features of fewer videos": edit_array("features.npy", lambda a: a[:3]),
    "features that are integers": edit_array("features.npy", lambda a: a.astype(np.int64)),
    "features that are NaN": edit_array("features.npy", lambda a: np.full_like(a, np.nan)),
    "features that are objects": edit_array("features.npy", lambda a: np.array([None] * 8, dtype=object)),
}

PACKS: dict[str, Callable[[Path], object]] = {
    "no manifest": remove("index/pack.json"),
    "a manifest that is no JSON": write("index/pack.json", "{x"),
    "a manifest that is a list": write("index/pack.json", "[]"),
    "a manifest that is empty": write("index/pack.json", "{}"),
    "a manifest, deep": write("index/pack.json", "[" * 100_000),
    "another version": edit_json("index/pack.json", lambda m: m.update(version=99)),
    "a version in words": edit_json("index/pack.json", lambda m: m.update(version="one")),
    "shards that are a number": edit_json("index/pack.json", lambda m: m.update(shards=5)),
    "no shards": edit_json("index/pack.json", lambda m: m.update(shards=[])),
    "a shard with a path above": edit_json("index/pack.json", lambda m: m.update(shards=[["../x.tar", 5]])),
    "another fingerprint": edit_json("index/pack.json", lambda m: m.update(fingerprint="0" * 16)),
    "no paths": remove("index/paths.npy"),
    "paths that are text": write("index/paths.npy", "hello"),
    "videos cut": lambda f: (f / "index/videos.npy").write_bytes((f / "index/videos.npy").read_bytes()[:130]),
    "frames of another pack": edit_array("index/frames.npy", lambda a: a[:3]),
    "offsets outside": edit_array("index/videos.npy", lambda a: a + 10**12),
    "a shard missing": lambda f: next(f.glob("shard-*.tar")).unlink(),
    "a shard cut": lambda f: [p.write_bytes(p.read_bytes()[:2000]) for p in f.glob("shard-*.tar")],
    "a shard of zeros": lambda f: [p.write_bytes(bytes(p.stat().st_size)) for p in f.glob("shard-*.tar")],
    "a shard that is text": lambda f: [p.write_text("hello") for p in f.glob("shard-*.tar")],
}


def embeddings(make_file: Callable[[Path], object]) -> Make:
    return lambda folder, _: make_file(folder / "e.npz") and None


METADATA = np.array("{}")
EMBEDDINGS: dict[str, Make] = {
    "empty": embeddings(lambda p: p.write_bytes(b"")),
    "text": embeddings(lambda p: p.write_text("hello")),
    "other arrays": embeddings(lambda p: np.savez(p, x=np.zeros(3))),
    "objects": embeddings(
        lambda p: np.savez(p, paths=np.array([None]), embeddings=np.zeros((1, 32), np.float32), metadata=METADATA)
    ),
    "metadata that is a list": embeddings(
        lambda p: np.savez(p, paths=np.array(["a"]), embeddings=np.zeros((1, 32), np.float32), metadata=np.array("[]"))
    ),
    "metadata that is no JSON": embeddings(
        lambda p: np.savez(p, paths=np.array(["a"]), embeddings=np.zeros((1, 32), np.float32), metadata=np.array("{"))
    ),
    "more paths than vectors": embeddings(
        lambda p: np.savez(p, paths=np.array(["a", "b"]), embeddings=np.zeros((1, 32), np.float32), metadata=METADATA)
    ),
    "vectors that are flat": embeddings(
        lambda p: np.savez(p, paths=np.array(["a"]), embeddings=np.zeros(32, np.float32), metadata=METADATA)
    ),
    "another model": embeddings(
        lambda p: np.savez(p, paths=np.array(["a"]), embeddings=np.zeros((1, 32), np.float32),
                           metadata=np.array('{"model": "x"}'))
    ),
}  # fmt: skip

TEST = ["--config", "{config}", "--weights", "{weights}", "--output", "{w}/out", "--precision", "fp32"]
TRAIN = ["--config", "{config}", "--log_time", "x", "--precision", "fp32", "data.output_path={w}/runs",
         "data.batch_size=1", "data.train_root={w}", "data.train_list={w}/l.txt"]  # fmt: skip
STORE_KINDS = (
    [Bad(f"{command}: a video that is {kind}", command, arguments, rf"(?=.*v\.m).*({says})", make, (1, 2))
     for kind, (make, says) in VIDEOS.items()
     for command, arguments in (("test", [*TEST, "data.val_root={w}", "data.val_list={w}/l.txt"]), ("train", TRAIN))]
    + [Bad(f"predict: a video that is {kind}", "predict",
           ["{w}/v.mp4", "--labels", "a, b", "--arch", "{data}/tiny_clip.pt"],
           rf"(?=.*v\.m).*({says}|no video found)", make, (1, 2))
       for kind, (make, says) in VIDEOS.items() if "by its name" not in kind]
    + [Bad(f"feature cache: {kind}", "test",
           [*TEST, "data.modality=features", "network.fix_video=True", "data.val_root={w}/fc"], "fc",
           cache(change)) for kind, change in CACHES.items()]
    + [Bad(f"pack: {kind}", "test", [*TEST, "data.modality=shards", "data.val_root={w}/pk"], "pk", pack(change))
       for kind, change in PACKS.items()]
    + [Bad(f"embeddings: {kind}", "tools.search", ["a", "{w}/e.npz", "--arch", "{data}/tiny_clip.pt"], r"e\.npz", make)
       for kind, make in EMBEDDINGS.items()]
)  # fmt: skip
