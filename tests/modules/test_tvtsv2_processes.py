"""TVTSv2's training on two processes, replicated and sharded, against one."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.modules.tvtsv2_on_processes import SHARES, TEXTS, gradients
from tests.modules.tvtsv2_on_processes import system as tiny

RESULTS, GRADIENTS = 1e-5, 2e-5  # the tolerances of the published results
TIMEOUT_S = 180


@pytest.fixture(scope="module")
def of_two(repo_root, tmp_path_factory) -> dict:
    """Results of tvtsv2_on_processes.py; with the published contrast of two processes, where that is here."""
    path = tmp_path_factory.mktemp("two processes") / "results.pt"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, repo_root / "tests" / "modules" / "tvtsv2_on_processes.py", path]
    if (published := repo_root.parent / "shared" / "golden" / "tvtsv2" / "gather.npz").is_file():
        command.append(published)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def of_one() -> dict[str, dict[str, Tensor]]:
    """Losses and gradients of one process with all six clips; of transcripts also without the sorter."""
    found = {name: gradients(tiny(), slice(6), num_texts) for name, num_texts in TEXTS.items()}
    return found | {"contrast": gradients(tiny(sorting=0.0), slice(6), TEXTS["transcripts"])}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Differences of losses, and of gradients as a share of the largest one."""
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for name, value in expected.items() if not name.startswith("loss"))
    scales = {name: 1.0 if name.startswith("loss") else largest for name in expected}
    return {name: float((found[name] - expected[name]).abs().max()) / scales[name] for name in expected}


@pytest.mark.parametrize("way", ["full", "sharded"])
@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("share", SHARES)
def test_two_processes_have_the_losses_and_gradients_of_one_with_the_clips_of_both(of_two, of_one, share, texts, way):
    errors = apart(of_two[share, texts, way], of_one[texts])
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("share", SHARES)
def test_published_gathering_halves_the_gradients_of_the_contrast_and_not_those_of_the_sorting(of_two, of_one, share):
    whole, contrast = of_one["transcripts"], of_one["contrast"]
    expected = {
        name: value if name.startswith("loss") else value - 0.5 * contrast.get(name, torch.zeros(()))
        for name, value in whole.items()
    }
    errors = apart(of_two[share, "transcripts", "published"], expected)
    assert max(errors.values()) < 1e-5, errors
    halves = {n: v if n.startswith("loss") else 0.5 * v for n, v in of_one["captions"].items()}
    errors = apart(of_two[share, "captions", "published"], halves)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize(("way", "factor"), [("published", 1.0), ("full", 2.0)])
def test_the_contrast_over_two_processes_is_the_published_one(tvtsv2_golden, of_two, relative_error, way, factor):
    """Each row's gradient, which DDP then divides by two: with ``full`` it is the sum of both processes' losses."""
    with np.load(tvtsv2_golden / "gather.npz") as file:
        expected = {name: file[name] for name in ("loss", "grad_video", "grad_text")}
    found = of_two["golden", way]
    assert relative_error(found["loss"], expected["loss"]) < RESULTS
    for name in ("grad_video", "grad_text"):
        assert relative_error(found[name], factor * expected[name]) < GRADIENTS
