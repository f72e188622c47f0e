"""Bytes kept for the backward pass, on a block whose tensors can be counted by hand."""

import pytest
import torch
from torch import nn

from benchmarks import models
from benchmarks.memory import LiveStorages, kept_bytes, section, step_bytes
from clip.blocks import FULL, RECOMPUTE


def test_what_is_kept_is_counted_once_and_without_weights_and_result():
    layer = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    assert kept_bytes(layer, torch.randn(2, 3, 8), is_half=False) == 3 * (8 + 16 + 16) * 4  # input, hidden twice
    assert kept_bytes(lambda x: x.detach(), torch.randn(2, 3, 8), is_half=False) == 0
    assert kept_bytes(lambda x: x.exp().view(-1), torch.randn(2, 3, 8), is_half=False) == 3 * 8 * 4  # result is saved


def test_the_tables_have_a_row_of_each_block_and_of_a_step_and_less_to_the_right(tiny_clip_config, monkeypatch):
    monkeypatch.setitem(models.LAYERS, tiny_clip_config, 1)
    text = section({"ViT-B/16": tiny_clip_config}, decimals=4)
    rows = {
        row.split("|")[1].strip(): [*map(float, row.split("|")[2:-1])] for row in text.splitlines() if "| ViT" in row
    }
    blocks = [f"ViT-B/16, {kind}, {half}" for kind in ("frames", "space-time") for half in ("fp32", "bf16")]
    assert [*rows] == [*blocks, *(f"ViT-B/16, 64 videos, residual {name}" for name in ("fp32", "bf16"))]
    fp32, bf16 = [*rows.values()][-2:]
    assert all(small < large for small, large in zip(bf16, fp32, strict=True))
    for name, values in rows.items():
        of_blocks, of_towers = values[: len(RECOMPUTE)], values[len(RECOMPUTE) :]
        assert of_blocks == sorted(of_blocks, reverse=True)
        assert of_blocks[-1] > 0
        if name in blocks:
            assert of_towers == pytest.approx([2 * 64 * size / 1024 for size in of_blocks], abs=1e-4)


def test_a_step_has_weights_moments_and_gradients_in_memory_whatever_it_recomputes(tiny_clip_config, monkeypatch):
    monkeypatch.setitem(models.LAYERS, tiny_clip_config, 1)
    model = models.model_on_cpu(tiny_clip_config)
    of_weights = sum(each.nbytes for each in model.parameters())
    small, twice = (step_bytes(tiny_clip_config, size, FULL) for size in (8, 16))
    assert small > 4 * of_weights
    assert twice - small > 8 * 8 * 3 * 32 * 32 * 4  # at least the normalised frames


def test_live_storages_are_counted_once_until_they_are_let_go():
    x = torch.zeros(100)
    with LiveStorages() as live:
        live.add(x, x[1:])
        y = x + 1
        z = y.view(10, 10)
        assert live.now == 800
        del y
        assert live.now == 800  # the view holds it
        del z
    assert (live.now, live.most) == (400, 800)
