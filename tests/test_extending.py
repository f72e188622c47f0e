"""The sections "Add a ..." of docs/architecture.md: the code of each runs as it stands there, and a run uses it."""

# ruff: noqa: F401 - some imports are those that the code of the page does not show

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import datasets.prepare.__main__ as prepare
import extract_features
import train
from clip.load import TOWERS
from clip.tokenizer import tokenize
from clip.towers import Towers, TowerSpec
from commands.testing import parse_args, run_test
from datasets.clips.presets import MOTE, PRESETS
from datasets.decode.decoders import DECODERS
from datasets.decode.pyav_reader import PyAVReader
from datasets.lists.label_sets import NO_LABEL
from datasets.lists.records import VideoList
from datasets.lists.video_files import VideoFiles, bare_name
from datasets.prepare.official import OFFICIAL, Official, Wanted
from datasets.sources.kinds import SOURCES, Visit
from engine.protocols.accuracy import accuracy
from engine.protocols.close_set import CloseSet
from engine.protocols.fusion import FUSIONS, Fusion, fusion_of
from modules.build import CLASSES, HEADS, SETTINGS, SYSTEMS, load_config
from modules.classes.base import FixedClasses
from modules.classes.templates import TEMPLATES
from modules.objectives.classify import classification_loss
from modules.scores import cosines
from modules.systems.base import Losses, System
from utils.config import Number, settings

REGISTRIES = (CLASSES, DECODERS, FUSIONS, HEADS, OFFICIAL, PRESETS, SETTINGS, SOURCES, SYSTEMS, TEMPLATES, TOWERS)


@pytest.fixture(scope="module")
def blocks(repo_root) -> dict[str, str]:
    """The code of each section, by what it adds."""
    page = (repo_root / "docs" / "architecture.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### Add (?:an? )?([\w ]+)\n.*?^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


@pytest.fixture
def add(blocks) -> Callable[..., dict]:
    """Runs the code of sections, as if it stood in the repository; registries are as before after the test."""
    before = [dict(registry) for registry in REGISTRIES]

    def add(*parts: str) -> dict:
        names = dict(globals())
        for part in parts:
            exec(compile(blocks[part], f"Add {part}", "exec"), names)
        SETTINGS.update({name: system.Settings for name, system in SYSTEMS.items()})  # made when a file is read
        return names

    yield add
    for registry, content in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(content)


@pytest.fixture
def train_and_test(debug_config, tmp_path) -> Callable[..., dict]:
    """Train an epoch with overrides, then test the checkpoint, which alone says what it is; returns the results."""

    def run(*overrides: str) -> dict:
        arguments = ["--config", str(debug_config), "--precision", "fp32", "--log_time", "run"]
        train.main([*arguments, "solver.epochs=1", f"data.output_path={tmp_path}", *overrides])
        (weights,) = tmp_path.rglob("last_model.pt")
        arguments = ["--weights", str(weights), "--precision", "fp32", "--output", str(tmp_path)]
        return run_test(parse_args("", arguments, many_configs=False), CloseSet.of)

    return run


def checkpoint(folder: Path) -> dict:
    (path,) = folder.rglob("last_model.pt")
    return torch.load(path, weights_only=True)


def test_every_section_is_proved_here(blocks):
    of_model = ["head", "tower", "classes", "objective", "system"]
    assert list(blocks) == [*of_model, "fusion", "protocol", "decoder", "data set", "source", "preset"]


def test_a_head(add, train_and_test, tmp_path):
    add("head")
    assert train_and_test("network.sim_header=recurrent")["num_videos"] == 8
    assert "gru.weight_ih_l0" in checkpoint(tmp_path)["fusion_model_state_dict"]


def test_a_tower(add, train_and_test, tmp_path, debug_config):
    add("tower")
    assert train_and_test("network.arch=thumbnails")["num_videos"] == 8
    assert checkpoint(tmp_path)["towers"]["pixel_mean"] == (0.5, 0.5, 0.5)
    arguments = ["--config", str(debug_config), "--out", str(tmp_path / "cache"), "--part", "val"]
    metadata = extract_features.main([*arguments, "network.arch=thumbnails"])["val"]
    assert metadata["pixel_mean"] == (0.5, 0.5, 0.5)


def test_a_tower_that_nobody_knows_is_an_error_that_lists_the_known(add, train_and_test):
    add("tower")
    with pytest.raises(FileNotFoundError, match=r"network.arch 'postcards': no such file, and none of .*, thumbnails"):
        train_and_test("network.arch=postcards")


def test_classes(add, train_and_test, tmp_path):
    add("classes")
    assert train_and_test("network.classes=axes")["num_videos"] == 8
    assert torch.equal(checkpoint(tmp_path)["fusion_model_state_dict"]["spe_cls_feature"], torch.eye(4, 32))


def test_classes_that_nobody_knows_are_an_error_that_lists_the_known(train_and_test):
    with pytest.raises(ValueError, match=r"network.classes: expected one of templates, .*found 'prototypes'"):
        train_and_test("network.classes=prototypes")


def test_a_template_set(add, train_and_test):
    add("classes")
    assert train_and_test("network.templates=film")["num_videos"] == 8


def test_an_objective(add):
    focal = add("objective")["focal"]
    scores, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    scale = torch.tensor(2.0)
    torch.testing.assert_close(focal(scores, scale, labels, gamma=0.0), classification_loss(scores, scale, labels))
    assert focal(scores, scale, labels, gamma=2.0) < classification_loss(scores, scale, labels)


def test_a_system(add, train_and_test, tmp_path):
    add("objective", "system")
    assert train_and_test("network.system=focal", "focal.gamma=1.5")["num_videos"] == 8
    rows = [json.loads(line) for line in next(tmp_path.rglob("metrics.jsonl")).read_text().splitlines()]
    assert any("train/focal" in row for row in rows)
    config = next(tmp_path.rglob("config.yaml"))
    assert load_config(config).section("focal", SETTINGS["focal"]).gamma == 1.5


def test_a_fusion(add, train_and_test):
    add("fusion")
    assert train_and_test("eval.fusion=best_view")["fusion"] == "largest cosine over views"


def test_a_protocol(add, debug_config, tmp_path):
    main = add("fusion", "protocol")["main"]
    arguments = ["--config", str(debug_config), "--weights", "clip", "--precision", "fp32", "--test_clips", "2"]
    logits = tmp_path / "logits.npz"
    results = main([*arguments, "--output", str(tmp_path), "--save_logits", str(logits)])
    assert results["fusion"] == "largest cosine over views"
    with np.load(logits) as saved:
        np.testing.assert_array_equal(saved["scores"], saved["view_logits"].max(axis=1))


def test_a_decoder(add, train_and_test, debug_data):
    add("decoder")
    assert train_and_test("data.decoder=upside_down")["decoder"] == "upside_down"
    path = debug_data / "videos" / "val 00.mp4"
    upright, turned = (DECODERS[name](path).read(np.array([0, 2])) for name in ("pyav", "upside_down"))
    assert torch.equal(turned, upright.flip(-2))


def test_a_data_set(add, train_and_test, debug_data, tmp_path, monkeypatch):
    add("data set")
    videos, lists, labels = tmp_path / "letters", tmp_path / "lists", tmp_path / "labels" / "letters"
    for label, name in enumerate(("a", "b")):
        (videos / name).mkdir(parents=True)
        for number in range(3):
            source = debug_data / "videos" / f"train {4 * number + label:02d}.mp4"
            (videos / name / f"{name}{number}.mp4").write_bytes(source.read_bytes())
    labels.mkdir(parents=True)
    (labels / "labels.csv").write_text("id,name,folder\n0,letter a,a\n1,letter b,b\n")
    monkeypatch.setattr(prepare, "LISTS", labels.parent)
    report = prepare.main(["letters", "--videos", str(videos), "--out", str(lists)])
    assert set(report["lists"]) == {"train.txt", "val.txt"}
    keys = {"label_list": labels / "labels.csv", "num_classes": 2}
    keys |= {f"{part}_{key}": path for part in ("train", "val") for key, path in
             (("root", videos), ("list", lists / f"{part}.txt"))}  # fmt: skip
    overrides = [f"data.{key}={value}" for key, value in keys.items()]
    assert train_and_test(*overrides, "data.batch_size=2")["num_videos"] == 4


def test_a_source(add, debug_config, debug_texts, debug_data, tmp_path):
    add("source")
    arguments = ["--config", str(debug_config), "--log_time", "run", "--precision", "fp32", *debug_texts]
    own = [f"data.sources=[{{kind: file_names, root: {debug_data / 'videos'}}}]", f"data.output_path={tmp_path}"]
    figures = train.main([*arguments, *own, "data.batch_size=10", "solver.epochs=1"])
    assert 0 <= figures["t2v_r1"] <= 100
    assert "kind: file_names" in next(tmp_path.rglob("config.yaml")).read_text()


def test_a_preset(add, train_and_test):
    add("preset")
    assert train_and_test("data.transforms=wide")["num_videos"] == 8
