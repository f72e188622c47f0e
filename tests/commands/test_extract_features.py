"""extract_features.py: a cache holds what the image tower yields, and heads train and test from it as from videos."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import extract_features
import train as train_command
from clip.model import PIXEL_MEAN, PIXEL_STD
from commands.testing import ListToTest, build_tested_model
from commands.weights import Weights
from datasets.build import build_eval_loader, build_train_loader
from datasets.read import read_lists
from engine.train import train
from modules.build import PLAIN_CLIP, load_config
from modules.build import plain as plain_clip
from modules.formats.ours import read_checkpoint
from modules.systems.base import Batch, Draws
from tests.engine.interruptions import assert_same, train_interrupted
from tools.make_debug_data import CLASS_NAMES
from utils.config import Config

FP32 = ["--precision", "fp32"]
FP16_ROUNDING = {"rtol": 2**-10, "atol": 1e-5}


@pytest.fixture(scope="module")
def run_test(repo_root):
    """``test.main``; loaded by path, because Python has a package ``test`` of its own."""
    return runpy.run_path(str(repo_root / "test.py"))["main"]


@pytest.fixture(scope="module")
def broken_list(debug_data, tmp_path_factory) -> Path:
    """The validation list with two videos that do not exist."""
    path = tmp_path_factory.mktemp("lists") / "broken.txt"
    lines = (debug_data / "val.txt").read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "gone.mp4 1", *lines[3:], "also gone.mp4 2"]) + "\n")
    return path


@pytest.fixture(scope="module")
def plain(debug_config, tmp_path_factory) -> Path:
    """One evaluation view of both parts."""
    out = tmp_path_factory.mktemp("plain")
    extract_features.main(["--config", str(debug_config), "--out", str(out), *FP32])
    return out


@pytest.fixture(scope="module")
def augmented(debug_config, tmp_path_factory) -> Path:
    """Three augmented views of the training part."""
    out = tmp_path_factory.mktemp("augmented")
    arguments = ["--part", "train", "--augmented_views", "3", "seed=5"]
    extract_features.main(["--config", str(debug_config), "--out", str(out), *arguments, *FP32])
    return out


@pytest.fixture(scope="module")
def six_views(debug_config, broken_list, tmp_path_factory) -> Path:
    """2 clips x 3 crops of the list with unreadable videos."""
    out = tmp_path_factory.mktemp("six")
    arguments = ["--part", "val", "--test_clips", "2", "--test_crops", "3", f"data.val_list={broken_list}"]
    with pytest.raises(SystemExit, match=r"2 videos could not be read and are not in the cache") as stop:
        extract_features.main(["--config", str(debug_config), "--out", str(out), *arguments, *FP32])
    assert isinstance(stop.value.code, str)  # which Python turns into exit status 1
    return out


def from_cache(out: Path, val: Path | None = None) -> list[str]:
    """Overrides that train and test on a cache."""
    roots = [f"data.train_root={out / 'train'}", f"data.val_root={(val or out) / 'val'}"]
    return ["data.modality=features", "network.fix_video=True", *roots]


@pytest.fixture(scope="module")
def weights(debug_config, plain, tmp_path_factory) -> Path:
    """Checkpoint of a head trained on cached features, by the command."""
    runs = tmp_path_factory.mktemp("runs")
    overrides = [*from_cache(plain), f"data.output_path={runs}", "solver.lr=0.01", "solver.epochs=3"]
    train_command.main(["--config", str(debug_config), "--log_time", "head", *FP32, *overrides])
    return runs / "debug" / "tiny_clip" / "head" / "last_model.pt"


def image_features(config: Config, batches, fp32) -> torch.Tensor:
    """What CLIP's image tower makes of batches of pictures, [N, V, T, D]."""
    config = plain_clip(config)
    videos = read_lists(config.data, "val", 4)
    model, _ = build_tested_model(Weights(PLAIN_CLIP), {"": ListToTest(config, videos, list(CLASS_NAMES))}, fp32)
    model.eval()
    with torch.no_grad():
        features = [model.encode(b.clips.flatten(0, 1)).frames.unflatten(0, b.clips.shape[:2]) for b in batches]
    return torch.cat(features)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is in a cache


def test_a_cache_holds_the_image_tower_s_features(debug_config, plain, fp32):
    config = load_config(debug_config)
    loader = build_eval_loader(config.data, read_lists(config.data, "val", 4), 0, 1)
    expected = image_features(config, loader, fp32)
    np.testing.assert_allclose(np.load(plain / "val" / "features.npy"), expected, **FP16_ROUNDING)
    assert np.load(plain / "val" / "labels.npy")[:, 0].tolist() == [0, 1, 2, 3] * 2
    assert np.linalg.norm(np.load(plain / "val" / "class_features.npy"), axis=1) == pytest.approx([1.0] * 4)


def test_augmented_view_v_is_what_training_sees_in_epoch_v_with_its_label(debug_config, augmented, fp32):
    config = load_config(debug_config)
    loader = build_train_loader(config.data, read_lists(config.data, "train", 4), list(CLASS_NAMES), 5, 0, 1)
    features = np.load(augmented / "train" / "features.npy").astype(np.float32)
    labels = np.load(augmented / "train" / "labels.npy")
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        batches = list(loader)
        order = torch.cat([batch.indices for batch in batches]).numpy()
        expected = image_features(config, batches, fp32)[:, 0]
        np.testing.assert_allclose(features[order, epoch], expected, **FP16_ROUNDING)
        assert labels[order, epoch].tolist() == torch.cat([batch.labels for batch in batches]).tolist()
    changed = labels != np.array([0, 1, 2, 3] * 3)[:, None]
    assert changed.any()  # a mirrored bar moves the other way
    assert not changed[2::4].any()


def test_what_cannot_be_read_is_named_and_not_in_the_index(six_views):
    failed = (six_views / "val" / "failed.txt").read_text()
    assert failed == "also gone.mp4\tno such file\ngone.mp4\tno such file\n"
    assert "gone" not in (six_views / "val" / "index.txt").read_text()
    assert not np.load(six_views / "val" / "features.npy")[[3, 9]].any()


# --- training and testing from a cache


def test_a_test_on_a_cache_gives_the_logits_of_the_videos(
    run_test, debug_config, six_views, weights, broken_list, tmp_path
):
    arguments = ["--config", str(debug_config), "--weights", str(weights), "--test_clips", "2", "--test_crops", "3"]
    arguments += [*FP32, f"data.val_list={broken_list}"]
    results, logits = {}, {}
    for name, overrides in (("videos", []), ("features", from_cache(six_views))):
        output = ["--output", str(tmp_path / name), "--save_logits", str(tmp_path / f"{name}.npz")]
        results[name] = run_test([*arguments, *output, *overrides])
        logits[name] = np.load(tmp_path / f"{name}.npz")["view_logits"]
    assert results["features"] == results["videos"]
    assert results["features"]["failed_videos"] == ["also gone.mp4", "gone.mp4"]
    assert results["features"]["num_videos"] == 10
    assert np.isnan(logits["features"]).any(axis=(1, 2)).tolist() == [i in (3, 9) for i in range(10)]
    np.testing.assert_allclose(logits["features"], logits["videos"], atol=1e-3)
    assert np.nanstd(logits["videos"]) > 0.02


def test_a_head_trained_on_a_cache_learns_and_keeps_the_image_tower(debug_data, weights):
    checkpoint = read_checkpoint(weights)
    pretrained = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    visual = [name for name in pretrained if name.startswith("visual.")]
    assert all(torch.equal(checkpoint["model_state_dict"][name], pretrained[name].float()) for name in visual)
    assert set(checkpoint["model_state_dict"]) == {*visual, "logit_scale"}


def test_the_loss_on_cached_features_is_that_on_the_pictures(debug_config, plain, tmp_path, fp32, prepare_run):
    config = load_config(debug_config, [*from_cache(plain), f"data.output_path={tmp_path}"])
    state, _ = prepare_run(config, fp32, "run")
    pictures = load_config(debug_config)
    loader = build_eval_loader(pictures.data, read_lists(pictures.data, "train", 4), 0, 1)
    batch = next(iter(loader))
    features = torch.from_numpy(np.load(plain / "train" / "features.npy")[batch.indices.numpy(), 0])
    losses = []
    for video in ({"clips": batch.clips[:, 0]}, {"features": features}):
        draws = Draws(torch.Generator().manual_seed(0))
        losses.append(state.model(Batch(**video, labels=batch.labels), draws).total.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_run_on_a_cache_continues_to_the_same_weights(
    debug_config, augmented, plain, tmp_path, fp32, prepare_run, workers
):
    overrides = [*from_cache(augmented, val=plain), f"data.output_path={tmp_path}", f"data.workers={workers}"]
    overrides += ["logging.print_freq=1", "logging.save_minutes=0"]

    def build(name: str):
        return prepare_run(load_config(debug_config, [*overrides, "resume=auto"]), fp32, name)

    state, run = build("whole")
    train(state, run)
    expected = run.folder / "last_model.pt"
    train_interrupted(*build("parts"), steps=4)
    state, run = build("parts")
    assert (state.epoch, state.step) == (1, 1)
    train(state, run)
    assert_same(run.folder / "last_model.pt", expected)


def test_a_part_of_the_list_trains_on_the_same_cache(debug_config, debug_data, plain, tmp_path):
    lines = (debug_data / "train.txt").read_text().splitlines()
    (tmp_path / "few.txt").write_text("\n".join(lines[1:9:2]))
    overrides = [*from_cache(plain), f"data.train_list={tmp_path / 'few.txt'}", f"data.output_path={tmp_path}"]
    arguments = ["--config", str(debug_config), *FP32, "--log_time", "few", *overrides, "solver.epochs=1"]
    assert train_command.main(arguments)["top1"] >= 0


# --- what does not fit is an error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.num_segments=2"], "num_segments was 4, is 2"),
        (["data.input_size=16"], "input_size was 32, is 16"),
        (["data.dense=True"], "dense was False, is True"),
        (["network.activation=gelu"], "activation was 'quick_gelu', is 'gelu'"),
        (["network.fix_video=False"], r"data\.modality features .* set network\.fix_video to True"),
        (["network.drop_out=0.1"], r"network\.drop_out and network\.emb_dropout act in the image tower"),
        (["data.train_root=/"], r"data\.train_root '/': expected the folder of a feature cache"),
    ],
)
def test_a_configuration_that_the_cache_was_not_made_for_is_an_error(
    debug_config, plain, tmp_path, fp32, prepare_run, overrides, message
):
    config = load_config(debug_config, [*from_cache(plain), f"data.output_path={tmp_path}", *overrides])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare_run(config, fp32, "run")
    assert list(tmp_path.iterdir()) == []


def test_another_image_tower_is_an_error(
    debug_config, debug_data, plain, weights, tmp_path, run_test, fp32, prepare_run
):
    other = torch.load(debug_data / "tiny_clip.pt", weights_only=True)
    other["visual.proj"] = other["visual.proj"] * 1.01
    (tmp_path / "a").mkdir()
    torch.save(other, tmp_path / "a" / "tiny_clip.pt")
    torch.save(other, tmp_path / "other_clip.pt")
    options = [*from_cache(plain), f"data.output_path={tmp_path / 'runs'}"]
    for path, message in (
        ("a/tiny_clip.pt", "image_tower_sha256 was '[0-9a-f]{64}', is"),
        ("other_clip.pt", "arch was 'tiny_c"),
    ):
        config = load_config(debug_config, [*options, f"network.arch={tmp_path / path}"])
        with pytest.raises(ValueError, match=message):
            prepare_run(config, fp32, "run")
    content = torch.load(weights, weights_only=True)
    content["model_state_dict"]["visual.proj"] *= 1.01
    torch.save(content, tmp_path / "tuned.pt")
    arguments = ["--config", str(debug_config), "--weights", str(tmp_path / "tuned.pt"), *FP32, *from_cache(plain)]
    with pytest.raises(ValueError, match="image_tower_sha256"):
        run_test(arguments)


@pytest.mark.parametrize("part", ["train", "val"])
def test_training_looks_at_the_image_tower_of_both_caches(debug_config, plain, tmp_path, fp32, prepare_run, part):
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    path = tmp_path / part / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_tower_sha256": "0" * 64}))
    with pytest.raises(ValueError, match=rf"{part} was made with other settings: image_tower_sha256 was '0{{64}}', is"):
        prepare_run(load_config(debug_config, from_cache(tmp_path)), fp32, "run")


# What caches did not record at first.
ADDED = ("pixel_mean", "pixel_std", "interpolation", "context_length")


def test_a_cache_records_what_pictures_and_texts_are_like(plain):
    found = json.loads((plain / "val" / "metadata.json").read_text())
    assert (found["pixel_mean"], found["pixel_std"]) == (list(PIXEL_MEAN), list(PIXEL_STD))
    assert (found["interpolation"], found["context_length"], found["input_size"]) == ("bicubic", 77, 32)


@pytest.mark.parametrize("value", [None, [0.5, 0.5, 0.5]])
def test_a_cache_from_before_that_was_recorded_is_of_openai_s_pixels(
    debug_config, plain, tmp_path, fp32, prepare_run, value
):
    for part in ("train", "val"):
        shutil.copytree(plain / part, tmp_path / part)
        path = tmp_path / part / "metadata.json"
        found = {name: each for name, each in json.loads(path.read_text()).items() if name not in ADDED}
        path.write_text(json.dumps(found | ({} if value is None else {"pixel_mean": value})))
    config = load_config(debug_config, [*from_cache(tmp_path), f"data.output_path={tmp_path}"])
    if value is None:
        prepare_run(config, fp32, "run")
        arguments = ["--config", str(debug_config), "--out", str(tmp_path), "--part", "val", *FP32]
        extract_features.main(arguments)  # finds that nothing is left to do
        return
    with pytest.raises(ValueError, match=r"pixel_mean was \[0.5, 0.5, 0.5\], is \[0.48.*\]"):
        prepare_run(config, fp32, "run")


def test_the_cache_of_a_checkpoint_s_tower_fits_its_test_with_the_same_average(
    debug_config, weights, tmp_path, run_test
):
    content = torch.load(weights, weights_only=True)
    content["model_state_dict"]["visual.proj"] *= 1.5
    torch.save(content, tmp_path / "tuned.pt")
    common = ["--config", str(debug_config), "--weights", str(tmp_path / "tuned.pt"), *FP32]
    metadata = extract_features.main([*common, "--out", str(tmp_path / "out"), "--part", "val"])["val"]
    assert metadata["weight_average"] == 0.99
    options = [*from_cache(tmp_path / "out"), "--output", str(tmp_path)]
    assert run_test([*common, *options])["num_videos"] == 8
    with pytest.raises(ValueError, match="image_tower_sha256"):
        run_test([*common, *options, "eval.weight_average=0.5"])


def test_views_that_are_not_the_cached_ones_are_an_error(
    debug_config, plain, augmented, weights, run_test, tmp_path, fp32, prepare_run
):
    common = ["--config", str(debug_config), "--weights", str(weights), *FP32, *from_cache(plain)]
    with pytest.raises(ValueError, match="num_clips was 1, is 4; num_crops was 1, is 3"):
        run_test([*common, "--test_clips", "4", "--test_crops", "3"])
    train_list = load_config(debug_config).data.train_list
    with pytest.raises(ValueError, match="augmented was True, is False"):
        run_test([*common, f"data.val_root={augmented / 'train'}", f"data.val_list={train_list}"])
    config = load_config(debug_config, [*from_cache(augmented, val=plain), "data.crop_area=[0.5,1.0]"])
    with pytest.raises(ValueError, match=r"crop_area was \[0\.08, 1\.0\], is \[0\.5, 1\.0\]"):
        prepare_run(config, fp32, "run")


def test_mirrored_crops_are_not_trained_on_under_the_wrong_label(debug_config, plain, tmp_path, fp32, prepare_run):
    extract_features.main(
        ["--config", str(debug_config), "--out", str(tmp_path), "--part", "train", "--test_crops", "10", *FP32]
    )
    with pytest.raises(ValueError, match="10 crops hold mirror images"):
        prepare_run(load_config(debug_config, from_cache(tmp_path, val=plain)), fp32, "run")


def test_a_finished_cache_of_other_settings_is_not_overwritten(debug_config, plain):
    before = content(plain)
    with pytest.raises(ValueError, match="num_clips was 1, is 2"):
        extract_features.main(["--config", str(debug_config), "--out", str(plain), "--test_clips", "2", *FP32])
    extract_features.main(["--config", str(debug_config), "--out", str(plain), *FP32])
    assert content(plain) == before


def test_features_are_not_made_from_features(debug_config, plain, tmp_path):
    with pytest.raises(ValueError, match=r"data\.modality: expected video or RGB"):
        extract_features.main(["--config", str(debug_config), "--out", str(tmp_path), *from_cache(plain)])


# --- stopped, started again, shared out


@pytest.fixture(scope="module")
def long_run(debug_config, debug_data, tmp_path_factory):
    """A command that extracts 300 rows in chunks of two, and what it writes undisturbed."""
    folder = tmp_path_factory.mktemp("long")
    lines = (debug_data / "val.txt").read_text().splitlines()
    (folder / "list.txt").write_text("\n".join([*lines, "gone.mp4 0"] * 34))
    arguments = ["--config", str(debug_config), "--part", "val", *FP32, f"data.val_list={folder / 'list.txt'}"]
    arguments += ["data.batch_size=2"]
    with pytest.raises(SystemExit):
        extract_features.main([*arguments, "--out", str(folder / "whole")])

    def start(out: Path, *launcher: str) -> subprocess.Popen:
        command = [sys.executable, *launcher, extract_features.__file__, *arguments, "--out", str(out)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return start, content(folder / "whole")


def wait_for_chunks(process: subprocess.Popen, out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("val/chunks/*.json"))) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_a_killed_extraction_continues_to_the_same_bytes(long_run, tmp_path):
    start, expected = long_run
    for chunks in (1, 60):
        process = start(tmp_path)
        wait_for_chunks(process, tmp_path, chunks)
        process.kill()
        process.wait()
        assert not (tmp_path / "val" / "metadata.json").exists()
    assert start(tmp_path).wait() == 1  # an unreadable video
    assert content(tmp_path) == expected


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(long_run, tmp_path):
    start, expected = long_run
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert start(tmp_path, *launcher).wait() != 0
    assert json.loads((tmp_path / "val" / "metadata.json").read_text())["shape"][0] == 306
    assert content(tmp_path) == expected
