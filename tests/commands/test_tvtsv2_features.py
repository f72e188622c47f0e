"""Vectors of single videos from TVTSv2's towers: the published ones, written by predict.py, cached, searched."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import extract_features
import predict
import probe
from datasets.features.embeddings import read_embeddings
from tools import search

FP32 = ["--precision", "fp32"]
AS_FEATURES = ["data.transforms=tvts_feature", "data.workers=0"]
FILES = {"b32": "tiny_b32_pretraining.pth", "b16": "tiny_b16.pth", "h14": "tiny_h14.pth"}
NAMES = ("clip_00", "clip_03", "clip_05", "clip_06")
NOT_IN_TENSORS = {"h14": ["network.head_width=80", "network.activation=gelu"]}


@pytest.fixture
def videos(golden) -> list[str]:
    return [str(golden / "videos" / f"{name}.mp4") for name in NAMES]


def published(tvtsv2_golden: Path, model: str) -> np.ndarray:
    """Vectors of the videos, [4, D]."""
    with np.load(tvtsv2_golden / f"features_{model}.npz") as found:
        return np.concatenate([found[f"{name}/embedding"] for name in NAMES])


def config_of(golden: Path, tvtsv2_golden: Path, folder: Path, transforms: str) -> str:
    """A file that tests and trains on ``list.txt`` in ``folder``."""
    data = {
        "dataset": "clips", "num_segments": 12, "input_size": 48, "batch_size": 4, "workers": 0, "decoder": "decord",
        "transforms": transforms, "label_list": str(golden / "labels.csv"),
        **{f"{part}_root": str(golden / "videos") for part in ("train", "val")},
        **{f"{part}_list": str(folder / "list.txt") for part in ("train", "val")},
    }  # fmt: skip
    tower = {"arch": str(tvtsv2_golden / FILES["b16"]), "tower": "divided", "sim_header": "None", "templates": "person"}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"data": data, "network": {"system": "tvtsv2", **tower}}))
    return str(path)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("model", FILES)
def test_unit_vectors_times_norms_are_the_published_vectors(tvtsv2_golden, videos, model, decoder, request, tmp_path):
    if decoder == "decord":
        request.getfixturevalue("decord")
    weights, expected = str(tvtsv2_golden / FILES[model]), published(tvtsv2_golden, model)
    options = [*FP32, *AS_FEATURES, *NOT_IN_TENSORS.get(model, []), f"data.decoder={decoder}"]
    found = predict.main([*videos, "--weights", weights, "--embed", str(tmp_path / "e.npz"), *options])
    assert [prediction.scores for prediction in found] == [{}] * 4  # no class was asked for
    embeddings = read_embeddings(tmp_path / "e.npz")
    assert embeddings.paths == videos
    assert embeddings.metadata["num_clips"] == 1
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, rtol=1e-5)
    vectors = embeddings.vectors * embeddings.norms[:, None]
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_vectors_that_a_probe_keeps_have_the_published_logits(decord, golden, tvtsv2_golden, tmp_path):
    """Of fifteen videos, two of which end in padding."""
    narrow = ("clip_01", "clip_07", "clip_13")  # which the published code cannot read
    lines = (golden / "list.txt").read_text().splitlines(keepends=True)
    (tmp_path / "list.txt").write_text("".join(line for line in lines if not line.startswith(narrow)))
    arguments = ["--config", config_of(golden, tvtsv2_golden, tmp_path, "tvts"), "--output", str(tmp_path / "probe")]
    probe.main([*arguments, "--weights", str(tvtsv2_golden / FILES["b16"]), *FP32, "probe.values=[1]"])
    (file,) = (tmp_path / "probe/vectors").iterdir()  # both lists are one
    vectors, reference = np.load(file)["vectors"], np.load(tvtsv2_golden / "recognition_b16.npz")
    logits = 100 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ reference["class_features"].T
    expected = reference["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_stored_vectors_are_searched(tvtsv2_golden, videos, tmp_path):
    weights = ["--weights", str(tvtsv2_golden / FILES["b16"]), *FP32, *AS_FEATURES]
    predict.main([*videos, *weights, "--embed", str(tmp_path / "e.npz")])
    stored = search.main(["a person juggling", str(tmp_path / "e.npz"), *weights])
    assert sorted(path for path, _ in stored) == videos
    (anew,) = search.main(["a person juggling", videos[0], *weights])
    assert anew[1] == pytest.approx(dict(stored)[videos[0]], abs=1e-6)


def test_a_cache_has_one_vector_a_clip(decord, golden, tvtsv2_golden, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{name}.mp4 0\n" for name in NAMES))
    options = ["--weights", str(tvtsv2_golden / FILES["b16"]), "--part", "val", "--out", str(tmp_path / "cache"), *FP32]
    config = config_of(golden, tvtsv2_golden, tmp_path, "tvts_feature")
    extract_features.main(["--config", config, *options])
    found, expected = np.load(tmp_path / "cache/val/features.npy"), published(tvtsv2_golden, "b16")
    assert found.shape == (4, 1, 1, 64)
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=0, atol=1e-3 * np.abs(expected).max())  # float16
