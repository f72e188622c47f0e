"""Videos shorter than a clip, with a preset that pads: the same features in every command, and training goes on."""

import json

import numpy as np
import pytest
import torch

import extract_features
import train
from commands.classifier import VideoClassifier
from datasets.build import build_eval_loader
from datasets.read import read_data
from datasets.shapes.videos import encode_video
from modules.build import load_config
from tools.make_debug_data import CLASS_NAMES

FP32 = ["--precision", "fp32"]
LENGTHS = {"0.mp4": 9, "1.mp4": 30, "2.mp4": 5, "3.mp4": 12}
SETTINGS = ["data.transforms=tvts", "data.num_segments=12", "network.sim_header=None", "network.templates=single"]


@pytest.fixture(scope="module")
def short_config(debug_config, tmp_path_factory) -> list[str]:
    """Overrides of the debug configuration that put videos of few frames in the place of its own."""
    folder = tmp_path_factory.mktemp("short videos")
    rng = np.random.default_rng(0)
    for name, num_frames in LENGTHS.items():
        mosaic = rng.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
        encode_video(mosaic.repeat(8, axis=1).repeat(8, axis=2), folder / name)
    (folder / "list.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(LENGTHS)))
    lists = [f"data.{part}_list={folder / 'list.txt'}" for part in ("train", "val")]
    return [*SETTINGS, *lists, *(f"data.{part}_root={folder}" for part in ("train", "val"))]


@pytest.fixture(scope="module")
def expected(debug_config, short_config) -> torch.Tensor:
    """Frame features [N, T, D] of the four videos, the padding of each encoded as a picture of zeros."""
    config = load_config(debug_config, short_config)
    classifier = VideoClassifier.load("clip", debug_config, precision="fp32", overrides=short_config)
    towers, rows = classifier.model.towers, []
    loader = build_eval_loader(config.data, read_data(config.data, ("val",)).parts["val"], 0, 1)
    for batch in loader:
        for (clip,) in batch.clips:
            images = (clip.float() - towers.pixel_mean) / towers.pixel_std
            images[LENGTHS[f"{len(rows)}.mp4"] :] = 0
            with torch.no_grad():
                rows.append(towers.encode_image(images))
    return torch.stack(rows)


def test_cached_features_know_the_padding(debug_config, short_config, expected, tmp_path):
    extract_features.main(["--config", str(debug_config), "--out", str(tmp_path), *FP32, *short_config])
    for part in ("train", "val"):
        found = torch.from_numpy(np.load(tmp_path / part / "features.npy")).float()
        torch.testing.assert_close(found[:, 0], expected, atol=2e-3, rtol=1e-3)  # stored in half precision


def test_predictions_know_the_padding_and_do_not_show_it(debug_config, short_config, expected):
    classifier = VideoClassifier.load("clip", debug_config, precision="fp32", overrides=short_config)
    config = load_config(debug_config, short_config)
    paths = [f"{config.data.val_root}/{name}" for name in LENGTHS]
    for found, frames, length in zip(
        classifier.predict(paths, CLASS_NAMES, num_clips=1), expected, LENGTHS.values(), strict=True
    ):
        vector = frames.mean(dim=0)
        torch.testing.assert_close(torch.from_numpy(found.embedding), vector / vector.norm(), atol=1e-5, rtol=1e-4)
        num_shown = min(length, 12)
        assert len(found.frames) == len(found.seconds) == len(found.frame_scores) == num_shown
        assert np.isfinite(found.seconds).all()
        assert found.frames.reshape(num_shown, -1).any(axis=1).all()


def test_a_test_and_its_cache_agree_on_short_videos(close_set, debug_config, short_config, tmp_path):
    arguments = ["--config", str(debug_config), "--weights", "clip", *FP32]
    extract_features.main([*arguments[:2], "--out", str(tmp_path), "--part", "val", *FP32, *short_config])
    cached = [*short_config, "data.modality=features", "network.fix_video=True", f"data.val_root={tmp_path / 'val'}"]
    tables = []
    for name, overrides in {"videos": short_config, "features": cached}.items():
        file = tmp_path / f"{name}.npz"
        close_set([*arguments, "--output", str(tmp_path / name), "--save_logits", str(file), *overrides])
        tables.append(np.load(file)["view_logits"])
    np.testing.assert_allclose(*tables, atol=2e-3)


@pytest.mark.parametrize("mixed", [[], ["solver.mixup=0.8"]])
def test_training_takes_short_videos(debug_config, short_config, mixed, tmp_path):
    epochs = ["solver.epochs=1", f"data.output_path={tmp_path}", "data.batch_size=4"]
    system = ["network.system=clip", *epochs, *mixed]
    train.main(["--config", str(debug_config), "--log_time", "run", *FP32, *short_config, *system])
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses
    assert np.isfinite(losses).all()
