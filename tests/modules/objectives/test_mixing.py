"""Mixed clips: those of ViFi-CLIP for its draws, and draws that are the same wherever a step runs."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.objectives.mixing import is_soft, mixed, mixes
from utils.config import SolverConfig

MEAN, STD = ((torch.tensor(values).view(3, 1, 1)) for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
MIXUP, CUTMIX = SolverConfig(mixup=0.8), SolverConfig(cutmix=1.0)
BOTH = SolverConfig(mixup=0.8, cutmix=1.0, mix_switch=0.5)


@pytest.fixture
def clips() -> Tensor:
    """Four clips of two frames, each of one grey."""
    greys = torch.tensor([0, 80, 160, 240], dtype=torch.uint8)
    return greys.view(4, 1, 1, 1, 1).repeat(1, 2, 3, 16, 16)


LABELS = torch.tensor([2, 0, 1, 2])


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", ["mixup", "cutmix"])
def test_clips_and_targets_are_those_of_vifi_clip_for_its_draws(ost_golden, monkeypatch, relative_error, case):
    golden, step = np.load(ost_golden / "train_vificlip.npz"), np.load(ost_golden / "train_step.npz")
    frames, labels = torch.from_numpy(step["frames"]), torch.from_numpy(golden["labels"])
    # Its draws: a share, and for CutMix the centre of the box of that area, which the border cuts.
    x1, y1, x2, y2 = golden["cutmix/box_x1_y1_x2_y2"].tolist()
    share, half = float(golden[f"{case}/lambda"]), int(48 * math.sqrt(1 - float(golden["cutmix/lambda"])) / 2)
    assert (x1, y1) == (0, 0)
    centre = itertools.cycle([x2 - half, y2 - half])
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.tensor(share))
    randint = torch.randint
    monkeypatch.setattr(
        torch,
        "randint",
        lambda *args, **keys: randint(*args, **keys) if keys.get("generator") else torch.tensor([next(centre)]),
    )
    # The published partners go round in a circle of four: each with its partner is a batch of two here.
    pairs = [[row, other] for row, other in enumerate(golden[f"{case}/perm"].tolist())]
    solver = {"mixup": MIXUP, "cutmix": CUTMIX}[case]
    both = [mixed(frames[pair], labels[pair], 12, drawn(0), solver) for pair in pairs]
    found, shares = torch.stack([clips[0] for clips, _ in both]), torch.stack([rows[0] for _, rows in both])
    sample = ((found - MEAN) / STD)[:, :1, :, ::4, ::4]
    assert relative_error(sample, golden[f"{case}/mixed_sample"]) < 1e-5
    assert relative_error(0.9 * shares + 0.1 / 12, golden[f"{case}/targets"]) < 1e-5


def test_mixup_lays_neighbours_over_each_other_in_one_ratio_for_all_frames(clips):
    found, shares = mixed(clips, LABELS, 3, drawn(1), MIXUP)
    own = float(shares[0, 2])  # of the first clip
    assert 0 < own < 1
    greys = [
        own * 0 + (1 - own) * 80,
        own * 80 + (1 - own) * 0,
        own * 160 + (1 - own) * 240,
        own * 240 + (1 - own) * 160,
    ]
    torch.testing.assert_close(found, torch.tensor(greys).view(4, 1, 1, 1, 1).expand(4, 2, 3, 16, 16))
    torch.testing.assert_close(shares[2], torch.tensor([0, own, 1 - own]))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))


def test_cutmix_puts_one_box_of_the_neighbour_into_all_frames_and_shares_are_areas(clips):
    found, shares = mixed(clips, LABELS, 3, drawn(3), CUTMIX)
    is_other = found[0] == 80
    assert 0 < is_other.float().mean() < 1
    assert torch.equal(is_other, is_other[:1, :1].expand_as(is_other))  # alike in frames and colours
    assert torch.equal(found[2] == 240, is_other)
    torch.testing.assert_close(shares[0, 0], is_other.float().mean())


def test_the_last_of_an_odd_batch_is_mixed_too(clips):
    found, shares = mixed(clips[:3], LABELS[:3], 3, drawn(1), MIXUP)
    assert shares.max() < 1
    own = float(shares[0, 2])
    assert [round(float(clip[0, 0, 0, 0]), 3) for clip in found] == pytest.approx(
        [(1 - own) * 160, own * 80, own * 160 + (1 - own) * 80], abs=1e-3
    )


@pytest.mark.parametrize("solver", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_a_batch_is_mixed_alike_however_it_is_shared_out(clips, solver):
    for seed in range(5):
        whole = mixed(clips, LABELS, 3, drawn(seed), solver)
        parts = [mixed(clips[rows], LABELS[rows], 3, drawn(seed), solver) for rows in (slice(2), slice(2, 4))]
        for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(found), expected)


def test_draws_come_from_the_generator_and_leave_the_global_ones_alone(clips):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = mixed(clips, LABELS, 3, drawn(1), BOTH)
    assert torch.equal(torch.rand(3), expected)
    again, other = (mixed(clips, LABELS, 3, drawn(seed), BOTH) for seed in (1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(("switch", "least", "most"), [(0.0, 0, 0), (0.5, 25, 75), (1.0, 100, 100)])
def test_the_switch_is_cutmix_s_share_of_the_steps(clips, switch, least, most):
    solver = SolverConfig(mixup=0.8, cutmix=1.0, mix_switch=switch)
    # A box leaves the greys as they are.
    steps = [mixed(clips, LABELS, 3, drawn(seed), solver)[0].unique() for seed in range(100)]
    assert least <= sum(set(greys.tolist()) <= {0, 80, 160, 240} for greys in steps) <= most


def test_features_are_mixed_over_frames_alike():
    features = torch.randn(4, 5, 8).half()
    found, shares = mixed(features, LABELS, 3, drawn(1), MIXUP)
    own = float(shares[0, 2])
    torch.testing.assert_close(found[1], own * features[1].float() + (1 - own) * features[0].float())
    assert found.shape == features.shape


def test_what_makes_labels_soft():
    assert not is_soft(SolverConfig())
    assert is_soft(SolverConfig(label_smoothing=0.1))
    assert not mixes(SolverConfig(label_smoothing=0.1))
    assert all(mixes(solver) and is_soft(solver) for solver in (MIXUP, CUTMIX))
