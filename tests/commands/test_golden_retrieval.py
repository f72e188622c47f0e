"""The published TVTSv2 retrieval and multiple choice, end to end: annotations, lists, videos, figures."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import extract_features
from datasets.prepare.__main__ import main as prepare
from datasets.prepare.texts import TEXT_SETS
from engine.protocols.retrieval import figures_of_embeddings

WEIGHTS = {"b32": "tiny_b32_pretraining.pth", "b16": "tiny_b16.pth", "h14": "tiny_h14.pth"}
SIZES = {"b32": 48, "b16": 48, "h14": 56}
KEYS = ("r1", "r5", "r10", "r50", "median_rank", "mean_rank")
# Names of a list's videos -> number of the golden clip, as its description has them.
CLIP_OF = {
    "msrvtt": lambda path: (int(re.search(r"video(\d+)", path)[1]) - 7010) // 3,
    "didemo": lambda path: int(re.search(r"_(\d+)\.mp4", path)[1]),
    "lsmdc": lambda path: int(re.search(r"_00\.(\d\d)\.51\.926-", path)[1]) - 10,
    "ssv2_mc": lambda path: int(re.search(r"clip_(\d+)", path)[1]),
}
PUBLISHED_NAMES = {"msrvtt": "MSRVTT", "didemo": "DiDeMo", "lsmdc": "LSMDC"}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def lists(tvtsv2_golden, golden, tmp_path_factory) -> Path:
    """A folder a data set with its videos and the list that ``datasets.prepare`` writes."""
    folder = tmp_path_factory.mktemp("texts")
    with np.load(tvtsv2_golden / "retrieval_b32.npz") as saved:
        paths = {name: saved[f"{key}/paths"].tolist() for name, key in PUBLISHED_NAMES.items()}
    paths["ssv2_mc"] = [f"clip_{clip:02d}.mp4" for clip in range(18) if clip not in (1, 7, 13)]
    for name, names in paths.items():
        for path in names:
            place = folder / name / "videos" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(golden / "videos" / f"clip_{CLIP_OF[name](path):02d}.mp4")
        annotations = tvtsv2_golden / "annotations" / ("ssv2" if name == "ssv2_mc" else name)
        where = ["--videos", folder / name / "videos", "--annotations", annotations, "--out", folder / name]
        prepare([name, *map(str, where)])
    return folder


@pytest.fixture
def run(decord, tvtsv2_golden, repo_root, lists, retrieval, tmp_path) -> Callable[..., tuple[dict, dict]]:
    """Run the command on a data set; returns results and saved arrays."""

    def run(model: str, name: str, *arguments: str) -> tuple[dict, dict]:
        weights = tvtsv2_golden / WEIGHTS[model]
        tree = {
            "base": str(repo_root / "configs" / "systems" / f"tvtsv2_{model}.yaml"),
            "data": {
                "dataset": name, "batch_size": 4, "workers": 0, "decoder": "decord", "input_size": SIZES[model],
                "val_root": str(lists / name / "videos"), "val_list": str(lists / name / TEXT_SETS[name].list_name),
            },
            "network": {"arch": str(weights)},
            "eval": {"tie_rule": "published"},
        }  # fmt: skip
        config, saved = tmp_path / "config.yaml", tmp_path / "saved.npz"
        config.write_text(yaml.safe_dump(tree))
        places = ["--config", config, "--weights", weights, "--save_logits", saved, "--output", tmp_path]
        results = retrieval([*map(str, places), "--precision", "fp32", *arguments])
        with np.load(saved) as arrays:
            return results, dict(arrays)

    return run


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
@pytest.mark.parametrize("model", WEIGHTS)
def test_retrieval_is_the_published_one(tvtsv2_golden, run, relative_error, model, name):
    with np.load(tvtsv2_golden / f"retrieval_{model}.npz") as arrays:
        key = f"{PUBLISHED_NAMES[name]}/"
        expected = {each.removeprefix(key): value for each, value in arrays.items() if each.startswith(key)}
    results, saved = run(model, name)
    assert saved["paths"].tolist() == expected["paths"].tolist()
    assert [text.split() for text in saved["captions"]] == [text.split() for text in expected["captions"]]
    for table in ("text_embeddings", "video_embeddings", "similarity"):
        assert relative_error(saved[table], expected[table]) < TOLERANCE, table
    for direction in ("t2v", "v2t"):
        assert [results[direction][key] for key in KEYS] == pytest.approx(expected[f"{direction}_metrics"], rel=1e-9)
    assert (results["tie_rule"], results["failed_videos"], results["cut_texts"]) == ("published", [], 0)


@pytest.mark.parametrize("model", WEIGHTS)
def test_multiple_choice_is_the_published_one(tvtsv2_golden, run, relative_error, model):
    expected = np.load(tvtsv2_golden / f"recognition_{model}.npz")
    results, saved = run(model, "ssv2_mc", "--choices")
    assert relative_error(saved["scores"], expected["mc/logits"]) < TOLERANCE
    assert saved["labels"].tolist() == expected["mc/labels"].tolist()
    figures = [float(expected[name]) for name in ("mc/top1", "mc/top5")]
    assert [results["top1"], results["top5"]] == pytest.approx(figures, abs=1e-2)


def test_cached_features_have_the_figures_of_videos(tvtsv2_golden, run, lists, tmp_path, relative_error):
    results, saved = run("b16", "msrvtt")
    config, weights = tmp_path / "config.yaml", tvtsv2_golden / WEIGHTS["b16"]
    where = ["--config", config, "--weights", weights, "--out", tmp_path / "cache", "--precision", "fp32"]
    extract_features.main([*map(str, where)])
    cached = ["data.modality=features", f"data.val_root={tmp_path / 'cache' / 'val'}", "network.fix_video=True"]
    found, of_cache = run("b16", "msrvtt", *cached)
    assert relative_error(of_cache["video_embeddings"], saved["video_embeddings"]) < 1e-3  # the cache is fp16
    assert found["list_fingerprint"] == results["list_fingerprint"]
    assert found["num_videos"] == 12


def test_blocks_find_the_places_of_published_vectors(tvtsv2_golden):
    for model in WEIGHTS:
        with np.load(tvtsv2_golden / f"retrieval_{model}.npz") as arrays:
            for name in PUBLISHED_NAMES.values():
                vectors = arrays[f"{name}/text_embeddings"], arrays[f"{name}/video_embeddings"]
                found = figures_of_embeddings(*vectors, tie_rule="published", tile=40)
                for direction in ("t2v", "v2t"):
                    expected = arrays[f"{name}/{direction}_metrics"]
                    assert [found[direction][key] for key in KEYS] == pytest.approx(expected, rel=1e-9)
