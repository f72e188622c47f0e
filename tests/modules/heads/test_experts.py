"""Experts as mixing weights: draws, merging, and the context that merges once."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from clip.blocks import MLP
from modules.heads.experts import ExpertFFN, draw_mixing, merge_mixing, merged_experts, one_hot_mixing

TEMPERATURES = (-9.6, -4.8, -2.4, -1.2, -0.6, 0.6, 1.2, 2.4, 4.8, 9.6, math.inf)


def merge(count: int, temperature: float) -> list[float]:
    shares = [math.exp(rank / temperature) for rank in range(1, count + 1)]
    return [share / sum(shares) for share in shares]


@pytest.fixture
def ffn() -> ExpertFFN:
    torch.manual_seed(0)
    ffn = ExpertFFN(16, 4)
    with torch.no_grad():
        for parameter in ffn.parameters():
            parameter.normal_()
    return ffn


def test_a_one_hot_route_runs_one_expert(ffn):
    x = torch.randn(1, 5, 3, 16)
    found = ffn(x, one_hot_mixing(torch.tensor([2, 0]), 4))
    assert found.shape == (2, 5, 3, 16)
    for route, expert in enumerate((2, 0)):
        hidden = ffn.fc_up[expert](x[0])
        expected = ffn.fc_dn[expert](hidden * torch.sigmoid(1.702 * hidden))
        torch.testing.assert_close(found[route], expected, rtol=1e-4, atol=1e-3)


def test_a_route_s_gradient_reaches_only_its_experts(ffn):
    ffn(torch.randn(1, 5, 16), one_hot_mixing(torch.tensor([1]), 4)).sum().backward()
    assert [bool(expert.weight.grad.any()) for expert in ffn.fc_up] == [False, True, False, False]


def test_experts_mix_in_full_precision_under_autocast(ffn):
    x, mixing = torch.randn(1, 5, 16), merge_mixing(torch.tensor([1.2]), 4)
    with torch.no_grad():
        for expert in ffn.fc_up:
            expert.weight.copy_(1000.0 + torch.rand_like(expert.weight))  # bf16 holds steps of 8 there
        # Differences of large numbers survive a sum in fp32 only.
        ffn.fc_up[3].weight.copy_(-sum(merge(4, 1.2)[e] * ffn.fc_up[e].weight for e in range(3)) / merge(4, 1.2)[3])
        exact = ffn(x, mixing)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = ffn(x, mixing)
    torch.testing.assert_close(found.float(), exact, rtol=0.1, atol=0.2)


def test_merge_weights_are_the_ranked_softmax():
    found = merge_mixing(torch.tensor([1.0, -0.6, math.inf]), 4)
    torch.testing.assert_close(found, torch.tensor([merge(4, 1.0), merge(4, -0.6), [0.25] * 4]))
    torch.testing.assert_close(found[0], torch.tensor([0.032, 0.087, 0.237, 0.644]), rtol=0, atol=5e-4)  # paper


def test_a_draw_has_one_expert_route_and_one_merged_route_for_each_layer():
    mixing = draw_mixing(6, 4, TEMPERATURES, torch.Generator().manual_seed(1))
    assert mixing.shape == (6, 2, 4)
    torch.testing.assert_close(mixing.sum(dim=-1), torch.ones(6, 2))
    assert ((mixing[:, 0] == 0) | (mixing[:, 0] == 1)).all()
    possible = torch.tensor([merge(4, t) for t in TEMPERATURES])
    assert (mixing[:, 1, None] - possible).abs().amax(dim=-1).amin(dim=-1).max() < 1e-6


def test_without_the_merged_pass_the_draw_has_the_expert_route_alone():
    mixing = draw_mixing(6, 4, TEMPERATURES, torch.Generator().manual_seed(1), with_merged=False)
    both = draw_mixing(6, 4, TEMPERATURES, torch.Generator().manual_seed(1))
    assert mixing.shape == (6, 1, 4)
    assert torch.equal(mixing[:, 0], both[:, 0])


def test_experts_are_drawn_in_proportion_to_the_ranked_softmax():
    mixing = draw_mixing(20000, 4, TEMPERATURES, torch.Generator().manual_seed(5))
    frequencies = mixing[:, 0].mean(dim=0)
    torch.testing.assert_close(frequencies, torch.tensor(merge(4, 1.0)), rtol=0, atol=0.015)  # 4 deviations


def test_merge_temperatures_are_drawn_uniformly():
    mixing = draw_mixing(22000, 4, TEMPERATURES, torch.Generator().manual_seed(6))
    possible = torch.tensor([merge(4, t) for t in TEMPERATURES])
    nearest = (mixing[:, 1, None] - possible).abs().amax(dim=-1).argmin(dim=-1)
    counts = nearest.bincount(minlength=11)
    assert ((counts - 2000).abs() < 4 * math.sqrt(22000 * (1 / 11) * (10 / 11))).all()


def test_layers_draw_for_themselves_and_a_seed_gives_one_draw():
    draws = [draw_mixing(50, 4, TEMPERATURES, torch.Generator().manual_seed(s)) for s in (7, 7, 8)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert len(draws[0][:, 0].unique(dim=0)) > 1
    assert len(draws[0][:, 1].unique(dim=0)) > 5


def test_a_draw_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw_mixing(4, 4, TEMPERATURES, torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def stack() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(ExpertFFN(8, 3), nn.LayerNorm(8), nn.ModuleList([ExpertFFN(8, 3)]))


def test_merged_experts_swaps_every_ffn_and_puts_it_back(stack):
    before = dict(stack.named_modules())
    tensors = {name: (value, value.clone()) for name, value in stack.state_dict(keep_vars=True).items()}
    with merged_experts(stack):
        assert isinstance(stack[0], MLP)
        assert isinstance(stack[2][0], MLP)
        assert not any(isinstance(module, ExpertFFN) for module in stack.modules())
    assert dict(stack.named_modules()) == before
    for name, value in stack.state_dict(keep_vars=True).items():
        assert value is tensors[name][0], name
        assert torch.equal(value, tensors[name][1]), name


def test_merged_experts_puts_experts_back_after_an_exception(stack):
    before = dict(stack.named_modules())
    with pytest.raises(KeyError), merged_experts(stack):
        raise KeyError
    assert dict(stack.named_modules()) == before


def test_a_merged_ffn_has_parameters_of_its_own(ffn):
    merged = ffn.merged()
    average = torch.stack([expert.weight for expert in ffn.fc_up]).mean(dim=0)
    torch.testing.assert_close(merged.c_fc.weight, average)
    with torch.no_grad():
        merged.c_fc.weight.zero_()
    assert all(expert.weight.abs().sum() > 0 for expert in ffn.fc_up)


def test_a_merged_ffn_computes_what_the_experts_merge_computes(ffn):
    x = torch.randn(1, 5, 16)
    for fusion in (torch.zeros(4), torch.tensor([1.0, -2.0, 0.5, 3.0])):
        ffn.mote_fusion_weight.copy_(fusion)
        torch.testing.assert_close(ffn.merged()(x), ffn(x), rtol=1e-4, atol=1e-4)


def test_an_expert_has_the_shapes_of_the_released_ones():
    names = {name: tuple(value.shape) for name, value in ExpertFFN(8, 2).state_dict().items()}
    assert names == {
        "mote_fusion_weight": (2,),
        **{f"fc_up.{e}.weight": (32, 8) for e in range(2)},
        **{f"fc_up.{e}.bias": (32,) for e in range(2)},
        **{f"fc_dn.{e}.weight": (8, 32) for e in range(2)},
        **{f"fc_dn.{e}.bias": (8,) for e in range(2)},
    }


def test_a_higher_rank_is_never_less_likely():
    shares = merge_mixing(torch.ones(1), 6)[0].tolist()
    assert all(later > earlier for earlier, later in pairwise(shares))
