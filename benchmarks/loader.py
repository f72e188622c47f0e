"""Training clips from a 300-frame H.264 video of 340 x 256: decode, augment, hand over."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import baseline, harness, models
from benchmarks.harness import Benchmark, Measurement
from datasets.clips.presets import MOTE
from datasets.clips.sampling import train_indices
from datasets.clips.video import TrainVideos, VideoSource
from datasets.decode.decoders import installed_decoders
from datasets.features.cache import FeatureCache, TrainFeatureVideos
from datasets.features.writer import FeatureWriter
from datasets.lists.records import VideoList
from datasets.pack import __main__ as pack
from datasets.pack.shards import ShardPack
from datasets.shapes.videos import encode_video

CLIPS = 8
VIDEO = Path(tempfile.gettempdir()) / "mote_benchmark_300.mp4"


def write_video() -> None:
    """A moving texture with noise, which costs a decoder about as much as a camera's picture."""
    if VIDEO.exists():
        return
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    noise = rng.integers(0, 24, (8, 256, 340, 3), dtype=np.uint8)
    frames = [texture[i // 3 : i // 3 + 256, i : i + 340] // 2 + noise[i % 8] for i in range(300)]
    encode_video(np.stack(frames), VIDEO)


def of_files(decoder: str, copies: int = 1) -> TrainVideos:
    """Clips of the video, listed so often."""
    write_video()
    videos = VideoList("", np.array([str(VIDEO).encode()] * copies), np.zeros(copies, dtype=np.int64), None)
    return _train_clips(VideoSource(videos, decoder=decoder, timeout_s=60))


def of_shards(copies: int = 1) -> TrainVideos:
    """The same from a pack with every frame, at its own size."""
    write_video()
    folder = VIDEO.with_name("mote_benchmark_shards")
    folder.mkdir(exist_ok=True)
    (folder / "list.txt").write_text(f"{VIDEO.name} 0\n")
    root, out = str(VIDEO.parent), str(folder / "pack")
    pack.main([str(folder / "list.txt"), "--root", root, "--out", out, "--workers", "0"])
    videos = VideoList(out, np.array([VIDEO.name.encode()] * copies), np.zeros(copies, dtype=np.int64), None)
    return _train_clips(VideoSource(videos, pack=ShardPack.open(out)))


def _train_clips(source: VideoSource) -> TrainVideos:
    indices_of = partial(_indices, num_segments=models.NUM_FRAMES)
    return TrainVideos(source, indices_of, MOTE.train_transform(224, [0]), seed=0)


def clips_of(dataset: TrainVideos) -> Callable[[], object]:
    """Some clips, one after the other."""
    return lambda: [dataset[epoch, 0] for epoch in range(CLIPS)]


def _indices(num_frames: int, rng: np.random.Generator, num_segments: int) -> np.ndarray:
    return train_indices(num_frames, num_segments, rng)


def published() -> Callable[[], object]:
    write_video()
    return lambda: [baseline.train_sample(str(VIDEO), models.NUM_FRAMES, 224) for _ in range(CLIPS)]


def of_features() -> TrainFeatureVideos:
    """Clips from a feature cache of ViT-B/16: 2000 random ones."""
    folder = Path(tempfile.gettempdir()) / "mote_benchmark_features"
    shape = [2000, 1, models.NUM_FRAMES, 512]
    paths = np.array([f"{row}.mp4".encode() for row in range(shape[0])])
    videos = VideoList(str(folder), paths, np.zeros(shape[0], dtype=np.int64), None)
    facts = {"shape": shape, "augmented": False, "modality": "video", "decoder": "pyav", "transforms": "mote"}
    facts["num_crops"] = 1
    writer = FeatureWriter(folder, videos, facts, chunk_size=shape[0])
    for number in writer.begin():
        rows = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
        writer.write(number, rows, videos.labels[:, None], failures={})
    writer.finish(np.zeros((1, 512)))
    return TrainFeatureVideos(FeatureCache.open(folder, "train_root"), videos, seed=0)


def features() -> Callable[[], object]:
    """As many clips of them, at random."""
    dataset = of_features()
    order = np.random.default_rng(0).permutation(len(dataset))[:CLIPS].tolist()
    return lambda: dataset.__getitems__([(0, index) for index in order])


def main(argv: list[str] | None = None) -> list[Measurement]:
    contenders = {harness.BASELINE: published}
    contenders |= {
        f"ours, {decoder}": lambda decoder=decoder: clips_of(of_files(decoder)) for decoder in installed_decoders()
    }
    contenders |= {"ours, shards": lambda: clips_of(of_shards()), "ours, features": features}
    return harness.run(Benchmark("loader, one process", "benchmarks.loader", "clips", CLIPS, contenders), argv)


if __name__ == "__main__":
    main()
