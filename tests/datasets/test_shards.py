"""Packs: every frame where the index says, the same training as from the videos, and damage that is found."""

import errno
import os
import pickle
import runpy
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import encode_jpeg

import train
from datasets.build import build_source, build_train_loader
from datasets.clips.samplers import TrainBatches
from datasets.clips.trial import problem_of
from datasets.decode.other_readers import DecordReader
from datasets.decode.readers import UnreadableVideo
from datasets.lists.labels import read_class_names
from datasets.pack import __main__ as pack
from datasets.pack import writer as pack_shards
from datasets.pack.shards import ShardPack, ShardReader
from datasets.read import read_lists
from modules.formats.ours import read_checkpoint
from utils.config import DataConfig, load_config


@pytest.fixture(scope="module")
def packed(debug_data, tmp_path_factory) -> Path:
    """Folder with packs of the debug data's lists, a few videos a shard. Read only."""
    folder = tmp_path_factory.mktemp("packs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_shards, "_videos_per_shard", lambda *_: 5)
        for part in ("train", "val"):
            arguments = [str(debug_data / f"{part}.txt"), "--root", str(debug_data / "videos")]
            pack.main([*arguments, "--out", str(folder / part), "--workers", "0", "--quality", "100"])
    return folder


@pytest.fixture(scope="module")
def options(packed) -> list[str]:
    """What a command line changes to read the packs."""
    return ["data.modality=shards", f"data.train_root={packed / 'train'}", f"data.val_root={packed / 'val'}"]


@pytest.fixture
def data(debug_config, options) -> DataConfig:
    return load_config(debug_config, options).data


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    """A pack to damage."""
    return shutil.copytree(packed / "train", tmp_path / "pack")


# --- frames


def test_frames_are_those_of_the_videos(decord, data, debug_data):
    videos = read_lists(data, "train", 4)
    source = build_source(data, videos)
    for index in range(len(videos)):
        reader, original = source.open(index), DecordReader(debug_data / "videos" / videos.path(index))
        assert reader.num_frames == original.num_frames
        for indices in (np.arange(reader.num_frames), np.array([5, 0, 0, 3, 2, 4])):
            found, expected = reader.read(indices), original.read(indices)
            assert found.dtype == torch.uint8
            assert found.shape == expected.shape
            assert (found.float() - expected.float()).abs().mean() < 4  # JPEG's coarser colours


def test_videos_are_found_in_any_order_and_subset(data):
    videos = read_lists(data, "train", 4)
    whole, indices = build_source(data, videos), np.array([7, 2, 2, 11])
    some = build_source(data, videos.take(indices))
    for place, index in enumerate(indices):
        frame = np.array([1])
        assert torch.equal(some.open(place).read(frame), whole.open(index).read(frame))


def test_a_pack_travels_to_another_process_as_its_folder(packed):
    opened = ShardPack.open(packed / "train")
    travelled = pickle.dumps(opened)
    assert len(travelled) < 300
    assert np.array_equal(pickle.loads(travelled).videos, opened.videos)


# --- training


def epoch_of(data: DataConfig, rank: int, world_size: int) -> list[tuple[int, torch.Tensor]]:
    loader = build_train_loader(data, read_lists(data, "train", 4), ["a", "b", "c", "d"], 3, rank, world_size)
    assert isinstance(loader.batch_sampler, TrainBatches)
    return [
        (index, frames) for batch in loader for index, frames in zip(batch.indices.tolist(), batch.clips, strict=True)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_holds_every_video_once_whatever_the_processes(data, world_size, workers):
    reference = dict(epoch_of(replace(data, batch_size=4), 0, 1))
    data = replace(data, batch_size=4 // world_size, workers=workers)
    samples = [sample for rank in range(world_size) for sample in epoch_of(data, rank, world_size)]
    assert sorted(index for index, _ in samples) == list(range(12))
    assert all(torch.equal(frames, reference[index]) for index, frames in samples)


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = read_checkpoint(run / "last_model.pt")
    return {**content["model_state_dict"], **content["fusion_model_state_dict"]}


def test_training_resumes_exactly_and_a_test_reads_shards(debug_config, options, tmp_path, repo_root):
    command = ["--config", str(debug_config), "--precision", "fp32"]
    command += [*options, f"data.output_path={tmp_path}", "logging.save_minutes=0", "logging.print_freq=1"]
    train.main([*command, "--log_time", "whole"])
    runs = tmp_path / "debug" / "tiny_clip"
    # What a run that was killed in the middle of the second epoch leaves behind.
    shutil.copytree(runs / "whole", runs / "parts")
    kept = runs / "parts" / "checkpoints"
    shutil.rmtree(kept)
    kept.mkdir()
    (middle,) = (path for path in (runs / "whole" / "checkpoints").iterdir() if "epoch_0001" in path.name)
    shutil.copy(middle, kept / middle.name)
    (runs / "parts" / "last_model.pt").unlink()
    train.main([*command, "--log_time", "parts", "resume=auto"])
    expected, found = weights(runs / "whole"), weights(runs / "parts")
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    close_set = runpy.run_path(str(repo_root / "test.py"))["main"]
    test = ["--config", str(debug_config), "--weights", str(runs / "whole" / "last_model.pt"), "--precision", "fp32"]
    logits = {}
    for name, changes in (("shards", options), ("video", [])):
        output = ["--output", str(tmp_path / name), "--save_logits", str(tmp_path / f"{name}.npz")]
        results = close_set([*test, *output, *changes])
        assert (results["num_videos"], results["failed_videos"]) == (8, [])
        logits[name] = np.load(tmp_path / f"{name}.npz")["view_logits"]
    assert np.abs(logits["shards"] - logits["video"]).max() < 0.05


# --- what is wrong


def check(data: DataConfig, root: Path) -> None:
    read_lists(replace(data, train_root=str(root)), "train", len(read_class_names(data.label_list)))


def test_a_folder_without_an_index_is_an_error(data, debug_data):
    with pytest.raises(FileNotFoundError, match=r"videos: no packed videos here \(index/pack\.json\)"):
        check(data, debug_data / "videos")


def test_paths_that_are_not_packed_are_named(data, packed):
    with pytest.raises(ValueError, match=r"12 of 12 videos of the list are not packed: 'train 00\.mp4', .*\.\.\."):
        check(data, packed / "val")


def test_a_longer_path_is_not_taken_for_one_that_begins_alike(data, tmp_path):
    (tmp_path / "list.txt").write_text("train 00.mp4 0\ntrain 00.mp4.mp4 1\n")
    with pytest.raises(ValueError, match=r"1 of 2 videos of the list are not packed: 'train 00\.mp4\.mp4'"):
        read_lists(replace(data, train_list=str(tmp_path / "list.txt")), "train", 4)


def test_a_missing_shard_is_named(data, copy):
    (copy / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-000001\.tar: this shard is missing"):
        check(data, copy)


def test_a_truncated_shard_is_named_with_both_sizes(data, copy):
    shard = copy / "shard-000002.tar"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[: size // 2])
    with pytest.raises(ValueError, match=rf"shard-000002\.tar: truncated .*{size // 2} bytes, expected {size}"):
        check(data, copy)


def test_a_shard_of_another_pack_of_the_same_size_is_found(data, copy):
    shard = copy / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[2000:2100] = bytes(100)
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-000000\.tar: damaged or another pack's: .*checksum"):
        check(data, copy)


@pytest.mark.parametrize("name", ["paths.npy", "videos.npy", "frames.npy"])
def test_an_index_of_parts_of_two_packs_is_an_error(data, copy, packed, name):
    shutil.copy(packed / "val" / "index" / name, copy / "index" / name)
    with pytest.raises(ValueError, match="belong to different packs"):
        check(data, copy)


def test_the_index_of_another_pack_is_an_error(data, copy, debug_data, tmp_path):
    arguments = [str(debug_data / "train.txt"), "--root", str(debug_data / "videos"), "--workers", "0"]
    pack.main([*arguments, "--out", str(tmp_path / "other"), "--frames", "4"])
    shutil.rmtree(copy / "index")
    shutil.copytree(tmp_path / "other" / "index", copy / "index")
    with pytest.raises(ValueError, match=r"shard-000000\.tar: truncated or another pack's"):
        check(data, copy)


@pytest.mark.parametrize("name", ["pack.json", "videos.npy"])
def test_a_damaged_index_is_an_error(data, copy, name):
    path = copy / "index" / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="damaged index"):
        check(data, copy)


def test_windows_of_frames_need_every_frame(data, debug_data, tmp_path):
    arguments = [str(debug_data / "train.txt"), "--root", str(debug_data / "videos"), "--workers", "0"]
    pack.main([*arguments, "--out", str(tmp_path / "few"), "--frames", "4"])
    check(data, tmp_path / "few")
    with pytest.raises(ValueError, match=r"data\.dense needs every frame.*--frames 4"):
        check(replace(data, dense=True), tmp_path / "few")


def test_a_flipped_byte_makes_its_frame_unreadable_and_no_other(copy):
    opened = ShardPack.open(copy)
    path = opened.paths[3]
    reader = opened.open_video(path)
    shard = copy / opened.shards[opened.videos[3, 0]][0]
    jpegs = reader.read_jpegs(np.arange(reader.num_frames))
    content = bytearray(shard.read_bytes())
    place = content.index(jpegs[2].numpy().tobytes()) + len(jpegs[2]) // 2
    content[place] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UnreadableVideo, match=r"shard-.*frame 2 is not what was packed"):
        reader.read(np.arange(5))
    assert len(reader.read(np.array([0, 1, 3, 4]))) == 4


def test_a_shard_that_vanishes_or_shrinks_later_makes_its_videos_unreadable(copy):
    opened = ShardPack.open(copy)
    reader = opened.open_video(opened.paths[0])
    shard = copy / opened.shards[opened.videos[0, 0]][0]
    shard.write_bytes(b"")
    with pytest.raises(UnreadableVideo, match="ends within the video"):
        reader.read(np.array([0]))
    shard.unlink()
    with pytest.raises(UnreadableVideo, match="No such file"):
        reader.read(np.array([0]))


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_shard_that_the_system_does_not_open_makes_its_videos_unreadable(data, copy, monkeypatch, caplog, code):
    def broken(path, *args, **kwargs):
        if path.name == "shard-000001.tar":
            raise OSError(code, os.strerror(code), str(path))
        return genuine(path, *args, **kwargs)

    genuine = Path.open
    monkeypatch.setattr(Path, "open", broken)
    data = replace(data, train_root=str(copy))
    videos = read_lists(data, "train", 4)
    assert os.strerror(code) in caplog.text
    source, read = build_source(data, videos), []
    for index in range(len(videos)):
        try:
            read.append(source.read(index, lambda num_frames: np.zeros(1, int)).pixels)
        except UnreadableVideo as error:
            assert os.strerror(code) in str(error)  # noqa: PT017
    assert len(videos) - len(read) == 5  # a shard's
    assert problem_of(source, "data.train_list") == ""
    assert "data.train_list: " in caplog.text


def test_frames_of_different_sizes_and_large_ones_are_unreadable(tmp_path):
    jpegs = [encode_jpeg(torch.zeros(3, *size, dtype=torch.uint8)).numpy().tobytes() for size in ((32, 40), (30, 40))]
    (tmp_path / "a.tar").write_bytes(b"".join(pack_shards.tar_member("x.jpg", jpeg) for jpeg in jpegs))
    frames = np.array([(len(jpeg), zlib.crc32(jpeg)) for jpeg in jpegs], dtype=np.uint32)
    assert ShardReader(tmp_path / "a.tar", 0, frames).read(np.array([1])).shape == (1, 3, 30, 40)
    with pytest.raises(UnreadableVideo, match="different sizes"):
        ShardReader(tmp_path / "a.tar", 0, frames).read(np.arange(2))
    with pytest.raises(UnreadableVideo, match=r"40 x 32 pixels, more than data\.max_pixels"):
        ShardReader(tmp_path / "a.tar", 0, frames, 1200).read(np.arange(2))


def test_frames_that_are_no_pictures_are_unreadable(copy):
    """With checksums that fit: a packer's mistake rather than a disk's."""
    import zlib

    from datasets.pack.shards import BLOCK, ShardReader

    content = bytes(BLOCK) + b"no picture".ljust(BLOCK, b"\0")
    (copy / "text.tar").write_bytes(content)
    reader = ShardReader(copy / "text.tar", 0, np.array([(10, zlib.crc32(b"no picture"))], dtype=np.uint32))
    with pytest.raises(UnreadableVideo, match=r"text\.tar"):
        reader.read(np.array([0]))
