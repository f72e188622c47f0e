"""Bytes kept for the backward pass, on a block whose tensors can be counted by hand."""

import pytest
import torch
from torch import nn

from benchmarks.memory import kept_bytes, section


def test_what_is_kept_is_counted_once_and_without_weights_and_result():
    layer = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    assert kept_bytes(layer, torch.randn(2, 3, 8), is_half=False) == 3 * (8 + 16 + 16) * 4  # input, hidden twice
    assert kept_bytes(lambda x: x.detach(), torch.randn(2, 3, 8), is_half=False) == 0
    assert kept_bytes(lambda x: x.exp().view(-1), torch.randn(2, 3, 8), is_half=False) == 3 * 8 * 4  # result is saved


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_table_has_a_row_of_each_block_and_less_to_the_right(tiny_clip_config, precision):
    rows = [
        row for row in section({"ViT-B/16": tiny_clip_config}, decimals=4).splitlines() if f", {precision} |" in row
    ]
    assert [row.split("|")[1].strip() for row in rows] == [
        f"ViT-B/16, {k}, {precision}" for k in ("frames", "space-time")
    ]
    for row in rows:
        none, light, full, *of_tower = map(float, row.split("|")[2:-1])
        assert none > light > full > 0
        assert of_tower == pytest.approx([2 * 64 * size / 1024 for size in (none, light, full)], abs=1e-4)
