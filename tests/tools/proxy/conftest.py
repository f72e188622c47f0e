"""A world of the proxy's layout in the debug data's size."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tools.proxy.evaluate import CLOSE, DONE, ZERO_SHOT
from tools.proxy.rows import HALVES, SETS, Planned

NUM_VIDEOS, NUM_CLASSES = 40, 4


@pytest.fixture
def small_world(debug_config, debug_data, tmp_path, monkeypatch) -> Path:
    """Configurations, lists and a CLIP where the script has them, in an empty folder that is the current one."""
    configs, world = tmp_path / "configs" / "proxy", tmp_path / "exps" / "proxy"
    for folder in (configs / "data", world):
        folder.mkdir(parents=True)
    shutil.copy(debug_data / "tiny_clip.pt", world / "clip_0.pt")
    settings = {"data": {"dataset": "proxy", "output_path": "exps/proxy"}, "solver": {"epochs": 1}}
    (configs / "mote.yaml").write_text(yaml.safe_dump({"base": str(debug_config)} | settings))
    # Not the names of training, beside which modulation would change nothing.
    (configs / "other_labels.csv").write_text("id,name\n0,a cup\n1,a key\n2,a tree\n3,a fish\n")
    for half in HALVES:
        for name in SETS:
            lists = {"val_list": str(debug_data / "val.txt"), "label_list": str(configs / "other_labels.csv")}
            part = {"data": {"dataset": f"proxy_{name}"} | lists}
            (configs / "data" / f"{half}_{name}.yaml").write_text(yaml.safe_dump(part))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_tests() -> Callable[[Planned, float], None]:
    """Write the tests of a planned run, as of random scores of which this share is right."""

    def write(planned: Planned, share: float, **facts: object) -> None:
        for number, form in enumerate(planned.row.forms):
            rng = np.random.default_rng(planned.seed + 100 * number)
            results = {name: _write_list(planned.results / form, name, share, rng, facts) for name in (CLOSE, *SETS)}
            (planned.results / form / CLOSE / "results.json").write_text(json.dumps(results.pop(CLOSE)))
            summary = next(iter(results.values())) | {"splits": results}
            (planned.results / form / ZERO_SHOT / "results.json").write_text(json.dumps(summary))
        (planned.results / DONE).touch()

    return write


def _write_list(folder: Path, name: str, share: float, rng: np.random.Generator, facts: dict) -> dict:
    """Scores of one list; returns its results."""
    labels = np.arange(NUM_VIDEOS) % NUM_CLASSES
    right = rng.random(NUM_VIDEOS) < share
    scores = np.eye(NUM_CLASSES)[np.where(right, labels, labels - 1)]
    path = folder / CLOSE / "scores.npz" if name == CLOSE else folder / ZERO_SHOT / f"scores_{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, scores=scores, labels=labels)
    return {
        "dataset": name, "top1": 100 * right.mean(), "top5": 100.0, "num_videos": NUM_VIDEOS, "num_clips": 1,
        "num_crops": 1, "dense": False, "fusion": "a rule", "weights": "w.pt", "precision": "fp32",
        "list_fingerprint": name, "failed_videos": [],
    } | facts  # fmt: skip
