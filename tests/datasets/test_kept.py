"""Batches kept in memory: decoded once, the same in every pass, unless they are too many."""

import pytest
import torch

from datasets.build import build_eval_loader
from datasets.clips.kept import KeptBatches
from datasets.read import read_data
from utils.config import load_config


@pytest.fixture
def loader(debug_config, debug_data, tmp_path):
    """Five videos in batches of two, one of them missing."""
    lines = (debug_data / "val.txt").read_text().splitlines()[:4]
    (tmp_path / "val.txt").write_text("\n".join(["gone.mp4 1", *lines]))
    config = load_config(debug_config, [f"data.val_list={tmp_path / 'val.txt'}", "data.batch_size=2"]).data
    return build_eval_loader(config, read_data(config, ("val",)).parts["val"], rank=0, world_size=1)


@pytest.mark.parametrize(("max_bytes", "num_decoded"), [(1e9, 5), (1000, 10)])
def test_two_passes_are_alike_and_decode_once_where_memory_allows(loader, monkeypatch, max_bytes, num_decoded):
    read = []
    original = type(loader.dataset).__getitem__
    monkeypatch.setattr(type(loader.dataset), "__getitem__", lambda self, i: read.append(i) or original(self, i))
    kept = KeptBatches(loader, max_bytes)
    first, second = list(kept), list(kept)
    assert len(read) == num_decoded
    assert len(first) == len(second) == len(kept) == 3
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert torch.equal(one.indices, other.indices)
        assert one.failures == other.failures


def test_too_many_views_are_said_to_be_decoded_anew(loader, caplog):
    list(KeptBatches(loader, 1000))
    assert "every pass decodes them anew" in caplog.text


def test_a_pass_that_was_broken_off_is_not_taken_for_a_whole_one(loader):
    kept = KeptBatches(loader, 1e9)
    next(iter(kept))
    assert len(list(kept)) == 3
