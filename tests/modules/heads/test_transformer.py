"""The transformer over frames with ordinary feed-forward layers."""

import pytest
import torch

from modules.heads.experts import ExpertTransformer
from modules.heads.transformer import TemporalTransformer

PLAIN_FFN = {"c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"}


def ffn_names(head: torch.nn.Module) -> set[str]:
    return {name.split("mlp.")[1] for name in head.state_dict() if "mlp." in name}


@pytest.fixture
def head() -> TemporalTransformer:
    torch.manual_seed(0)
    return TemporalTransformer(width=32, layers=2, heads=1)


def test_frame_features_keep_their_shape(head):
    assert head(torch.randn(2, 3, 32)).shape == (2, 3, 32)
    assert ffn_names(head) == PLAIN_FFN


@torch.no_grad()
def test_it_is_the_head_of_mote_without_experts(head):
    without = ExpertTransformer(width=32, layers=2, heads=1, num_experts=0, num_train_classes=3)
    without.load_state_dict(head.state_dict() | {"spe_cls_feature": torch.zeros(3, 32)})
    x = torch.randn(2, 3, 32)
    torch.testing.assert_close(head(x), without(x))


@torch.no_grad()
def test_each_frame_has_a_position_of_its_own(head):
    before = head(torch.ones(1, 3, 32))
    head.frame_position_embeddings.weight[1] += 1
    assert not torch.allclose(head(torch.ones(1, 3, 32)), before, atol=1e-3)
    head.frame_position_embeddings.weight[3:] = torch.nan  # those of longer clips have no part in it
    assert head(torch.ones(1, 3, 32)).isfinite().all()
