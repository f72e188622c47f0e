"""The same bits before and after a change that should change none: a stored training run and a stored test.

``ORACLE=record`` in front of pytest stores what this code computes (and the checkpoints, where there are none yet),
beside the records of other kinds of machines. On a machine without a record, whose kernels may add in another order,
figures are compared to a tolerance instead.
"""

import hashlib
import json
import os
import platform
import runpy
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml

import train
from clip.model import CLIPConfig
from tools.make_debug_data import random_clip_state

STORED = Path(__file__).parent / "data" / "oracle"
RECORDS = os.environ.get("ORACLE") == "record"
TINY_CLIP = CLIPConfig(
    embed_dim=32, image_size=32, patch_size=8, vision_width=64, vision_layers=1, vision_heads=1, vision_mlp=64,
    text_width=64, text_layers=1, text_heads=1,
)  # fmt: skip
SETTINGS = {
    "seed": 7,
    "data": {"dataset": "oracle", "num_segments": 4, "batch_size": 3, "workers": 0, "input_size": 32,
             "decoder": "pyav"},
    "network": {"temporal_layer": 1, "num_experts": 2, "drop_out": 0.1},
    "solver": {"epochs": 5, "lr": 1e-3, "clip_ratio": 0.1, "lr_warmup_step": 1, "ema": 0.9},
    "logging": {"print_freq": 1, "save_minutes": 0, "keep": 30},
}  # fmt: skip
HALF = "epoch_0002_step_0000002.pt"  # kept, as HALF_NAME: a checkpoint within an epoch
HALF_NAME = "half.pt"


@pytest.fixture(scope="module")
def one_thread():
    """The order of additions depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """The configuration, its CLIP beside it."""
    folder = tmp_path_factory.mktemp("oracle")
    torch.save(random_clip_state(TINY_CLIP, seed=3), folder / "tiny_clip.pt")
    paths = {f"{part}_{kind}": str(STORED / name) for part in ("train", "val")
             for kind, name in (("root", "videos"), ("list", f"{part}.txt"))}  # fmt: skip
    tree = json.loads(json.dumps(SETTINGS))
    tree["data"] |= paths | {"label_list": str(STORED / "labels.csv"), "output_path": str(folder)}
    tree["network"]["arch"] = str(folder / "tiny_clip.pt")
    (folder / "oracle.yaml").write_text(yaml.safe_dump(tree))
    return folder / "oracle.yaml"


@pytest.fixture(scope="module")
def run(config, one_thread) -> Path:
    """Folder of the whole run: 20 steps, a validation after each 4."""
    train.main(["--config", str(config), "--precision", "fp32", "--log_time", "whole"])
    return config.parent / "oracle" / "tiny_clip" / "whole"


def same_bits_expected(stored: dict) -> bool:
    """Whether this machine computes as the one that the figures were stored on."""
    return stored["machine"] == machine()


def records() -> list[dict]:
    """The figures of every kind of machine."""
    return json.loads((STORED / "figures.json").read_text())


def machine() -> dict[str, str]:
    return {
        "torch": torch.__version__.split("+")[0],
        "av": av.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cpu": _cpu_name(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def figures_of(run: Path) -> list[dict[str, float]]:
    """What the run logged of every step and validation, without times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = ("loss", "grad_norm", "lr", "val/", "scale")
    return [{k: v for k, v in row.items() if k == "step" or any(part in k for part in kept)} for row in rows]


def sha256_of(checkpoint: dict) -> str:
    digest = hashlib.sha256()
    for part in ("model_state_dict", "fusion_model_state_dict"):
        for name in sorted(checkpoint[part]):
            digest.update(name.encode() + checkpoint[part][name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def close_set_test(config: Path, weights: Path, repo_root: Path) -> tuple[dict, np.ndarray]:
    """A 4x3 test: results and view logits."""
    main = runpy.run_path(str(repo_root / "test.py"))["main"]
    logits, output = config.parent / "logits.npz", config.parent / "out"
    arguments = ["--test_clips", "4", "--test_crops", "3", "--save_logits", str(logits), "--output", str(output)]
    results = main(["--config", str(config), "--weights", str(weights), "--precision", "fp32", *arguments])
    with np.load(logits) as saved:
        return {key: results[key] for key in ("top1", "top5", "list_fingerprint")}, saved["view_logits"]


def store(name: str, checkpoint: dict, folder: Path) -> None:
    """Keep a checkpoint, its configuration without this machine's paths."""
    text = checkpoint["config"].replace(str(STORED), "tests/data/oracle").replace(str(folder), "exps")
    torch.save(checkpoint | {"config": text}, STORED / name)


def resumed(config: Path) -> Path:
    """Folder of a run that goes on from the stored checkpoint within an epoch."""
    arguments = ["--log_time", "resumed", f"resume={STORED / HALF_NAME}"]
    train.main(["--config", str(config), "--precision", "fp32", *arguments])
    return config.parent / "oracle" / "tiny_clip" / "resumed"


@pytest.fixture(scope="module")
def half(config, one_thread) -> Path:
    return resumed(config)


@pytest.fixture(scope="module")
def stored(run, half, config, repo_root) -> dict:
    """The figures stored on a machine of this kind, else on another; recorded anew where that is asked for."""
    if RECORDS:
        if not (STORED / "last_model.pt").exists():
            parts = ("epoch", "model_state_dict", "fusion_model_state_dict", "config", "class_names")
            last = load(run / "last_model.pt")
            store("last_model.pt", {part: last[part] for part in parts} | {"optimizer_state_dict": {}}, config.parent)
            store(HALF_NAME, load(run / "checkpoints" / HALF), config.parent)
        results, view_logits = close_set_test(config, STORED / "last_model.pt", repo_root)
        content = {"machine": machine(), "steps": figures_of(run), "weights": sha256_of(load(run / "last_model.pt")),
                   "resumed_steps": figures_of(half), "resumed_weights": sha256_of(load(half / "last_model.pt")),
                   "results": results, "view_logits": hashlib.sha256(view_logits.tobytes()).hexdigest()}  # fmt: skip
        others = [record for record in records() if record["machine"] != machine()]
        (STORED / "figures.json").write_text(json.dumps([*others, content], indent=1) + "\n")
    return next((record for record in records() if same_bits_expected(record)), records()[0])


def test_twenty_steps_are_the_stored_ones(run, stored):
    found = figures_of(run)
    if same_bits_expected(stored):
        assert found == stored["steps"]
        assert sha256_of(load(run / "last_model.pt")) == stored["weights"]
        return
    assert len(found) == len(stored["steps"])
    for row, expected in zip(found, stored["steps"], strict=True):
        losses = {name: value for name, value in expected.items() if not name.startswith("val/")}
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=0.02)


def test_a_stored_checkpoint_tests_as_it_did(stored, config, repo_root, one_thread):
    results, view_logits = close_set_test(config, STORED / "last_model.pt", repo_root)
    np.testing.assert_allclose(view_logits, np.load(STORED / "view_logits.npy"), atol=5e-3)
    if same_bits_expected(stored):
        assert hashlib.sha256(view_logits.tobytes()).hexdigest() == stored["view_logits"]
        assert results == stored["results"]


def test_a_stored_checkpoint_within_an_epoch_resumes_as_it_did(stored, half):
    rows = figures_of(half)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(11, 21))
    if same_bits_expected(stored):
        assert rows == stored["resumed_steps"]
        assert sha256_of(load(half / "last_model.pt")) == stored["resumed_weights"]
