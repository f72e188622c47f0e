"""Fixtures that tests of several rooms use."""

import os
from pathlib import Path

# Threads that wait without spinning: on a busy machine spinning makes small models several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.pop("RANK", None)  # tests run in one process, also under a launcher

import numpy as np
import pytest
import torch
import yaml

from clip.model import CLIP, CLIPConfig
from tools.make_debug_data import write_debug_data
from utils.precision import Precision

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the published implementation's results."""
    folder = ROOT.parent / "shared" / "golden" / "mote"
    if not folder.is_dir():
        pytest.skip("../shared/golden is not here; it holds the published code's results")
    return folder


@pytest.fixture(scope="session")
def debug_data(tmp_path_factory) -> Path:
    """Folder of the debug data set: videos, lists, labels and a tiny CLIP. Read only."""
    folder = tmp_path_factory.mktemp("debug_data")
    write_debug_data(folder)
    return folder


@pytest.fixture(scope="session")
def debug_config(debug_data, tmp_path_factory) -> Path:
    """configs/debug/debug.yaml with the paths of ``debug_data``, no workers, and runs in a temporary folder."""
    tree = yaml.safe_load((ROOT / "configs" / "debug" / "debug.yaml").read_text())
    for key in ("train_root", "train_list", "val_root", "val_list", "label_list"):
        tree["data"][key] = str(debug_data / Path(tree["data"][key]).name)
    tree["data"] |= {"workers": 0, "output_path": str(tmp_path_factory.mktemp("runs"))}
    tree["network"]["arch"] = str(debug_data / "tiny_clip.pt")
    path = tmp_path_factory.mktemp("configs") / "debug.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="session")
def fp32() -> Precision:
    """Single precision on the CPU."""
    return Precision("fp32", torch.device("cpu"))


@pytest.fixture
def tiny_clip_config() -> CLIPConfig:
    """A CLIP that computes in milliseconds: 32 pixels, patches of 8, two blocks a tower, embeddings of 64."""
    return CLIPConfig(
        embed_dim=64, image_size=32, patch_size=8, vision_width=64, vision_layers=2, vision_heads=1,
        text_width=64, text_layers=2, text_heads=1,
    )  # fmt: skip


@pytest.fixture
def tiny_clip(tiny_clip_config) -> CLIP:
    """The CLIP of ``tiny_clip_config`` with random weights, the same in every test, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIP(tiny_clip_config).eval()


@pytest.fixture
def relative_error():
    """max |found - expected| / max |expected|."""

    def error(found, expected) -> float:
        found, expected = (np.asarray(torch.as_tensor(x).detach(), dtype=np.float64) for x in (found, expected))
        assert found.shape == expected.shape
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    return error
