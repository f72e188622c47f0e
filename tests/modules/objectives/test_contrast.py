"""Contrasts against the published code's numbers, and on two processes against one."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modules.objectives.classify import classification_loss
from modules.objectives.contrast import (
    CONTRASTS,
    both_directions,
    contrast_loss,
    contrast_targets,
    ds_loss,
    dual_softmax,
    nce_loss,
    pair_loss,
)
from modules.scores import cosines
from tests.modules.objectives.contrast_on_processes import LOSSES, SHARES, Pair, batch_of, gradients

TIMEOUT_S = 180
TOLERANCE = 1e-5  # of the largest magnitude


@pytest.fixture(scope="module")
def losses(text4vis_golden) -> dict[str, torch.Tensor]:
    """losses.npz."""
    with np.load(text4vis_golden / "losses.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def leaves(losses) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Videos [6, 64], the text of each, logarithm of the scale; all want gradients."""
    texts = losses["class_text"][losses["labels"]]
    return tuple(tensor.clone().requires_grad_() for tensor in (losses["video"], texts, losses["logit_scale"]))


def test_targets_are_those_of_the_published_code(losses, relative_error):
    assert relative_error(contrast_targets(losses["labels"]), losses["target"]) < TOLERANCE


@pytest.mark.parametrize("name", ["NCE", "DS"])
def test_losses_and_gradients_are_those_of_the_published_code(losses, leaves, relative_error, name):
    video, text, scale = leaves
    found = CONTRASTS[name](video, text, losses["labels"], scale.exp())
    found.total.backward()
    scaled = scale.exp() * F.normalize(video, dim=-1) @ F.normalize(text, dim=-1).T
    parts = {"logits_per_video": scaled, "logits_per_text": scaled.T}
    parts |= {"loss": found.total, "loss_videos": found.of_videos, "loss_texts": found.of_texts}
    parts |= {"grad_video": video.grad, "grad_text": text.grad, "grad_logit_scale": scale.grad}
    assert {
        key: error
        for key, value in parts.items()
        if (error := relative_error(value, losses[f"{name}/{key}"])) > TOLERANCE
    } == {}


@pytest.mark.parametrize("name", ["NCE", "DS"])
def test_one_direction_of_given_logits_is_that_of_the_published_code(losses, relative_error, name):
    logits = losses["given_logits"].clone().requires_grad_()
    loss = contrast_loss(dual_softmax(logits) if name == "DS" else logits, contrast_targets(losses["labels"]))
    loss.backward()
    assert relative_error(loss, losses[f"{name}/given_loss"]) < TOLERANCE
    assert relative_error(logits.grad, losses[f"{name}/given_grad"]) < TOLERANCE


def test_cross_entropy_against_all_classes_is_that_of_the_published_code(losses, relative_error):
    video, text, scale = (losses[key].clone().requires_grad_() for key in ("video", "class_text", "logit_scale"))
    scores = cosines(video[:, None], F.normalize(text, dim=-1))
    loss = classification_loss(scores, scale.exp(), losses["labels"])
    loss.backward()
    parts = {"logits": scale.exp() * scores, "loss": loss, "grad_video": video.grad, "grad_text": text.grad}
    parts |= {"grad_logit_scale": scale.grad}
    assert {
        key: error for key, value in parts.items() if (error := relative_error(value, losses[f"CE/{key}"])) > TOLERANCE
    } == {}


@pytest.mark.parametrize("case", ["T8", "T32"])
def test_both_directions_of_given_logits_sum_to_the_loss_of_ost(ost_golden, relative_error, case):
    golden = np.load(ost_golden / "head_step.npz")
    expected = {
        name: torch.from_numpy(golden[f"{case}/{name}"]) for name in ("logits", "labels", "target", "grad_logits")
    }
    logits = expected["logits"].requires_grad_()
    found = both_directions(logits, expected["labels"], is_halved=False)
    found.total.backward()
    assert relative_error(contrast_targets(expected["labels"]), expected["target"]) < TOLERANCE
    assert relative_error(logits.grad, expected["grad_logits"]) < TOLERANCE
    for name, value in {"loss": found.total, "loss_video": found.of_videos, "loss_text": found.of_texts}.items():
        assert relative_error(value, golden[f"{case}/{name}"]) < TOLERANCE, name


def test_pairs_cost_what_the_published_code_of_tvtsv2_says(tvtsv2_golden, relative_error):
    with np.load(tvtsv2_golden / "heads.npz") as file:
        golden = {name.removeprefix("contrastive_"): file[name] for name in file.files if "contrastive" in name}
    video, text = (torch.from_numpy(golden[name]).requires_grad_() for name in ("video", "text"))
    found = pair_loss(video, text, 0.05)
    found.total.backward()
    assert relative_error(found.total, golden["loss"]) < TOLERANCE
    assert relative_error(video.grad, golden["grad_video"]) < 2e-5
    assert relative_error(text.grad, golden["grad_text"]) < 2e-5
    # A sum of both directions: half of it is another loss.
    assert relative_error(found.of_videos + found.of_texts, golden["loss"]) < TOLERANCE


def test_pairs_cost_what_the_reference_has_by_hand():
    places = torch.arange(1, 13).view(3, 4)
    video, text = (0.3 * places).sin(), (0.2 * places).cos()
    diagonal = F.cosine_similarity(video, text)
    torch.testing.assert_close(diagonal, torch.tensor([0.88825675, 0.8536315, 0.38331206]))
    assert float(pair_loss(video, text, 0.05).total) == pytest.approx(3.300632832606148, rel=1e-5)


def test_logits_that_give_the_target_cost_nothing():
    target = contrast_targets(torch.tensor([0, 1, 0]))
    assert abs(float(contrast_loss(target.log(), target))) < 1e-7
    assert float(contrast_loss(-target.log(), target)) > 1


@pytest.mark.parametrize("loss", [nce_loss, ds_loss])
def test_autocast_does_not_round_similarities(loss):
    video, text, labels = batch_of(slice(8))
    expected = loss(video, text, labels, torch.tensor(20.0)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(video, text, labels, torch.tensor(20.0)).total
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_autocast_does_not_round_pairs():
    video, text, _ = batch_of(slice(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pair_loss(video, text, 0.05).total
    assert torch.equal(found, pair_loss(video, text, 0.05).total)


@pytest.mark.parametrize("loss", [nce_loss, ds_loss])
def test_a_batch_of_one_video_is_refused(loss):
    video, text, labels = batch_of(slice(1))
    with pytest.raises(ValueError, match=r"compare the videos of a batch .* raise data.batch_size"):
        loss(video, text, labels, torch.tensor(20.0))


def test_a_batch_of_one_pair_is_refused():
    with pytest.raises(ValueError, match=r"compare the videos of a batch .* raise data.batch_size"):
        pair_loss(torch.ones(1, 4), torch.ones(1, 4), 0.05)


def test_shapes_alone_can_be_computed():
    batch = [tensor.to("meta") for tensor in batch_of(slice(1))]
    assert nce_loss(*batch, torch.tensor(20.0, device="meta")).total.shape == ()


def test_an_unknown_way_of_gathering_is_no_other_way():
    with pytest.raises(KeyError):
        nce_loss(*batch_of(slice(8)), torch.tensor(20.0), gather="publishd")


@pytest.fixture(scope="module")
def of_two(repo_root, tmp_path_factory) -> dict:
    """Results of contrast_on_processes.py."""
    path = tmp_path_factory.mktemp("two processes") / "results.pt"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = repo_root / "tests" / "modules" / "objectives" / "contrast_on_processes.py"
    done = subprocess.run(
        [*launcher, script, path], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("share", SHARES)
def test_rows_of_all_processes_are_gathered_in_rank_order_without_filling(of_two, share):
    for found, expected in zip(of_two[share, "rows"], batch_of(slice(sum(share))), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_have_the_gradients_of_one_with_the_batches_of_both(of_two, relative_error, share, loss):
    expected = gradients(Pair(), slice(sum(share)), loss, "full")
    found = of_two[share, loss, "full"]
    assert found.keys() == expected.keys()
    # Of the largest gradient: with two videos of two classes a bias has next to none.
    largest = max(float(value.abs().max()) for value in expected.values())
    apart = {name: float((found[name] - expected[name]).abs().max()) / largest for name in expected}
    assert max(apart.values()) < TOLERANCE, apart
    assert relative_error(found["encoder.weight"], expected["encoder.weight"]) < TOLERANCE


@pytest.mark.parametrize("loss", LOSSES)
def test_published_gathering_gives_half_the_gradient_to_encoders_and_all_of_it_to_the_scale(of_two, loss):
    expected = gradients(Pair(), slice(8), loss, "published")
    for share in SHARES[:4]:
        found = of_two[share, loss, "published"]
        parts = {"encoder.weight": 0.5, "head.weight": 0.5, "text.weight": 0.5, "logit_scale": 1.0, "loss": 1.0}
        for name, part in parts.items():
            torch.testing.assert_close(found[name], part * expected[name], rtol=1e-4, atol=1e-6)
