"""The transformer with experts: equal to a plain rendering of the paper."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip.blocks import LIGHT, NONE, set_recompute
from modules.heads.experts import MERGE_TEMPERATURES, ExpertTransformer, merge_mixing, merged_experts, one_hot_mixing
from modules.systems.base import Batch

TOLERANCE = 1e-5


class PlainHead(nn.Module):
    """The paper's head written plainly: one pass at a time, each layer's FFN an ordinary one, given by hand."""

    def __init__(self, head: ExpertTransformer, width: int, heads: int):
        super().__init__()
        self.positions = head.frame_position_embeddings.weight
        self.blocks = head.transformer.resblocks
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in self.blocks)
        for attention, block in zip(self.attention, self.blocks, strict=True):  # the same parameters, so one .grad
            attention.in_proj_weight, attention.in_proj_bias = block.attn.in_proj_weight, block.attn.in_proj_bias
            attention.out_proj.weight, attention.out_proj.bias = block.attn.out_proj.weight, block.attn.out_proj.bias

    def forward(self, x: torch.Tensor, weights: list[list[float]]) -> torch.Tensor:
        """[B, T, D], weights over experts of each layer -> [B, T, D]"""
        hidden = x + self.positions[: x.shape[1]]
        for block, attention, mixture in zip(self.blocks, self.attention, weights, strict=True):
            norm = F.layer_norm(hidden, hidden.shape[-1:], block.ln_1.weight, block.ln_1.bias, eps=1e-12)
            hidden = hidden + attention(norm, norm, norm, need_weights=False)[0]
            norm = F.layer_norm(hidden, hidden.shape[-1:], block.ln_2.weight, block.ln_2.bias, eps=1e-12)
            up = F.linear(norm, *self._merged(block.mlp.fc_up, mixture))
            hidden = hidden + F.linear(up * torch.sigmoid(1.702 * up), *self._merged(block.mlp.fc_dn, mixture))
        return x + hidden

    @staticmethod
    def _merged(experts: nn.ModuleList, mixture: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            sum(share * expert.weight for share, expert in zip(mixture, experts, strict=True)),
            sum(share * expert.bias for share, expert in zip(mixture, experts, strict=True)),
        )


def ranked_softmax(count: int, temperature: float) -> list[float]:
    shares = [math.exp(rank / temperature) for rank in range(1, count + 1)]
    return [share / sum(shares) for share in shares]


@pytest.fixture
def random_head() -> ExpertTransformer:
    torch.manual_seed(3)
    head = ExpertTransformer(width=48, layers=3, heads=2, num_experts=3, num_train_classes=7)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return head


EXPERTS = (2, 0, 1)
TEMPERATURES = (-1.2, float("inf"), 4.8)


def test_batched_routes_equal_sequential_passes(random_head, mote_of, draws, relative_error):
    x, labels = torch.randn(4, 6, 48), torch.tensor([0, 3, 3, 1])
    classes = F.normalize(torch.randn(5, 48), dim=-1)

    plain = PlainHead(random_head, 48, 2)
    experts = plain(x, [[float(e == chosen) for e in range(3)] for chosen in EXPERTS])
    merged = plain(x, [ranked_softmax(3, temperature) for temperature in TEMPERATURES])

    def classify(features):
        return 20 * F.cosine_similarity(features.mean(dim=1)[:, None], classes[None], dim=-1)

    expected = F.cross_entropy(classify(experts), labels) + 0.5 * F.cross_entropy(classify(merged), labels)
    expected = expected + 0.1 * (merged - x).square().mean()
    expected.backward()
    expected_grads = {name: p.grad.clone() for name, p in random_head.named_parameters()}
    random_head.zero_grad()

    routes = one_hot_mixing(torch.tensor(EXPERTS), 3), merge_mixing(torch.tensor(TEMPERATURES), 3)
    mixing = torch.stack(routes, dim=1)
    loss = mote_of(random_head, classes, 20.0, mixing)(Batch(features=x, labels=labels), draws).total
    loss.backward()
    assert relative_error(random_head.routes(x, mixing), torch.stack([experts, merged])) < TOLERANCE
    assert relative_error(loss, expected) < TOLERANCE
    for name, parameter in random_head.named_parameters():
        assert relative_error(parameter.grad, expected_grads[name]) < 2e-5, name


@torch.no_grad()
def test_evaluation_averages_the_experts_parameters(random_head, relative_error):
    x = torch.randn(2, 5, 48)
    expected = PlainHead(random_head, 48, 2)(x, [[1 / 3] * 3] * 3)
    assert relative_error(random_head(x), expected) < TOLERANCE
    with merged_experts(random_head):
        assert relative_error(random_head(x), expected) < TOLERANCE


@torch.no_grad()
def test_evaluation_follows_stored_fusion_weights(random_head, relative_error):
    for block in random_head.transformer.resblocks:
        block.mlp.mote_fusion_weight.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
    x = torch.randn(2, 5, 48)
    expected = PlainHead(random_head, 48, 2)(x, [[1 / 8, 2 / 8, 5 / 8]] * 3)
    assert relative_error(random_head(x), expected) < TOLERANCE


@torch.no_grad()
def test_the_gate_weighs_the_temporal_branch_of_each_clip(random_head):
    x = torch.randn(3, 4, 48)
    temporal = random_head(x) - x
    found = random_head(x, gate=torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(found, x + torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1) * temporal)


def test_the_order_of_frames_matters_to_the_transformer(random_head):
    x = torch.randn(1, 4, 48)
    assert not torch.allclose(random_head(x).mean(dim=1), random_head(x.flip(1)).mean(dim=1), atol=1e-3)


@pytest.mark.parametrize("num_experts", [0, -1])
def test_without_experts_the_ffn_is_plain_under_its_released_names(num_experts):
    head = ExpertTransformer(width=32, layers=2, heads=1, num_experts=num_experts, num_train_classes=3)
    names = {name.split("mlp.")[1] for name in head.state_dict() if "mlp." in name}
    assert names == {"c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"}
    assert head.draw(torch.Generator(), MERGE_TEMPERATURES, with_merged=True) is None
    assert head(torch.randn(2, 3, 32)).shape == (2, 3, 32)
    assert head.routes(torch.randn(2, 3, 32), None).shape == (1, 2, 3, 32)


def test_the_published_head_has_37_85_million_parameters():
    with torch.device("meta"):
        head = ExpertTransformer(width=512, layers=4, heads=8, num_experts=4, num_train_classes=400)
    assert sum(p.numel() for p in head.parameters()) == pytest.approx(37.85e6, abs=5e3)


def test_weights_start_as_published():
    torch.manual_seed(0)
    head = ExpertTransformer(width=128, layers=1, heads=2, num_experts=3, num_train_classes=3)
    for name, value in head.state_dict().items():
        if "in_proj_weight" in name:
            bound = math.sqrt(6 / (128 + 3 * 128))
            assert 0.99 * bound < value.abs().max() <= bound, name
        elif "ln_" in name and name.endswith("weight"):
            assert (value == 1).all(), name
        elif name.endswith(("bias", "mote_fusion_weight", "spe_cls_feature")):
            assert (value == 0).all(), name
        else:
            assert float(value.std()) == pytest.approx(0.02, rel=0.05), name
    experts = head.transformer.resblocks[0].mlp.fc_up
    assert not torch.equal(experts[0].weight, experts[1].weight)


def test_the_merge_temperatures_are_the_published_eleven():
    assert sorted(MERGE_TEMPERATURES) == [-9.6, -4.8, -2.4, -1.2, -0.6, 0.6, 1.2, 2.4, 4.8, 9.6, float("inf")]


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [NONE, LIGHT])
def test_a_training_pass_is_one_graph_whatever_experts_are_drawn(recompute):
    """Nothing in it waits for values or depends on them, so that it can be compiled whole, or recorded on a GPU."""
    torch._dynamo.reset()
    head, frames = ExpertTransformer(64, 2, 2, 4, 3).train(), torch.randn(2, 5, 64)
    set_recompute(head, recompute)
    generator = torch.Generator().manual_seed(0)
    first, second = (head.draw(generator, MERGE_TEMPERATURES, with_merged=True) for _ in range(2))
    assert not torch.equal(first, second)
    routes = torch.compile(head.routes, backend="aot_eager", fullgraph=True)
    for mixing in (first, second):
        with torch._dynamo.config.patch(error_on_recompile=mixing is second):
            found = routes(frames, mixing)
        found.square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in head.parameters()]
        head.zero_grad()
        expected = head.routes(frames, mixing)
        torch.testing.assert_close(found, expected)
        expected.square().sum().backward()
        for pair in zip(gradients, (parameter.grad for parameter in head.parameters()), strict=True):
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)
        head.zero_grad()
