"""The published TVTSv2 implementation's recognition, end to end through the test commands."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from datasets.clips.presets import PRESETS

MODELS = {"b32": "tiny_b32_pretraining.pth", "b16": "tiny_b16.pth", "h14": "tiny_h14.pth"}


@pytest.fixture
def run(decord, tvtsv2_golden, golden, repo_root, tmp_path) -> Callable[..., tuple[dict, dict]]:
    """Run a test command on a published list of videos; returns results and saved logits."""

    def run(main: Callable, model: str, dataset: str, *overrides: str) -> tuple[dict, dict]:
        if "tvts" not in PRESETS:
            pytest.skip("the preset tvts is not here yet")
        prompt = tvtsv2_golden / "annotations" / dataset / "prompt"
        names = list(json.loads((prompt / "label2id.json").read_text()))  # the order of the file counts, not the ids
        (tmp_path / "labels.csv").write_text(
            "id,name\n" + "".join(f"{place},{name}\n" for place, name in enumerate(names))
        )
        first_label = {"hmdb51": 1, "k400": 0}[dataset]
        rows = [line.split("\t") for line in next(prompt.glob("*list*.tsv")).read_text().splitlines()[1:]]
        lines = (f"{Path(path).with_suffix('.mp4').name} {int(label) - first_label}" for path, label in rows)
        (tmp_path / "list.txt").write_text("\n".join(lines))
        weights = str(tvtsv2_golden / MODELS[model])
        tree = {
            "base": str(repo_root / "configs" / "systems" / f"tvtsv2_{model}.yaml"),
            "data": {
                "dataset": "golden", "batch_size": 4, "workers": 0, "decoder": "decord", "input_size": 48,
                "val_root": str(golden / "videos"), "val_list": str(tmp_path / "list.txt"),
                "label_list": str(tmp_path / "labels.csv"),
            },
            "network": {"arch": weights},
        }  # fmt: skip
        tree["data"]["input_size"] = 56 if model == "h14" else 48
        config, logits = tmp_path / "config.yaml", tmp_path / "logits.npz"
        config.write_text(yaml.safe_dump(tree))
        results = main(
            ["--config", str(config), "--weights", weights, "--precision", "fp32", "--save_logits", str(logits),
             "--output", str(tmp_path), *overrides]
        )  # fmt: skip
        with np.load(logits) as saved:
            return results, dict(saved)

    return run


@pytest.mark.parametrize("dataset", ["hmdb51", "k400"])
@pytest.mark.parametrize("model", MODELS)
def test_recognition_gives_the_published_logits(tvtsv2_golden, zero_shot, run, model, dataset):
    golden = np.load(tvtsv2_golden / f"recognition_{model}.npz")
    part = "" if dataset == "hmdb51" else "k400/"
    results, saved = run(zero_shot, model, dataset)
    expected = golden[f"{part}logits"]
    assert saved["labels"].tolist() == golden[f"{part}labels"].tolist()
    assert np.abs(100 * saved["view_logits"][:, 0] - expected).max() <= 1e-5 * np.abs(expected).max()
    report = [float(number) for line in golden[f"{part}report"] for number in re.findall(r"\d+\.\d+", str(line))]
    assert [results["top1"], results["top5"]] == pytest.approx(report[:2], abs=0.01)
