"""Ceilings: what is timed does the operations that it is counted with."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ceilings, models

FRAMES = 3


def operations_of(run) -> float:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return float(counter.get_total_flops())


def test_products_are_those_of_a_block_of_the_tower():
    operations = ceilings.product_operations(models.VIT_B16, FRAMES)
    assert sum(operations.values()) == 2 * FRAMES * 197 * 12 * 768**2
    for name, shape in ceilings.product_shapes(models.TINY).items():
        run = ceilings.product(FRAMES * ceilings.tokens_of(models.TINY), *shape)
        assert operations_of(run) == ceilings.product_operations(models.TINY, FRAMES)[name]


def test_ceilings_of_a_benchmark_are_timed_with_their_operations():
    found = ceilings.of_products(models.TINY, FRAMES)
    assert "fp32 products" in found
    for ceiling in found.values():
        assert operations_of(ceiling.build()) == ceiling.flops


@pytest.mark.parametrize(("is_training", "products"), [(False, 2), (True, 6)])
def test_attention_is_counted_by_its_products(is_training, products):
    with torch.autograd.set_grad_enabled(is_training), sdpa_kernel(SDPBackend.MATH):
        run = ceilings.attention(models.TINY, FRAMES, is_training)
        assert operations_of(run) == products * ceilings.attention_operations(models.TINY, FRAMES)


def test_a_copy_reads_and_writes_all_tokens():
    tokens = FRAMES * ceilings.tokens_of(models.TINY)
    assert ceilings.copied_bytes(models.TINY, FRAMES) == 2 * ceilings.copy(models.TINY, FRAMES)().nbytes
    assert ceilings.copy(models.TINY, FRAMES)().shape == (tokens, models.TINY.vision_width)


def test_the_share_of_attention_is_that_of_its_products():
    per_product = ceilings.attention_operations(models.TINY, FRAMES)
    share = ceilings.attention_share(models.TINY, FRAMES, operations=100 * per_product, num_products=6)
    assert share == pytest.approx(6 * models.TINY.vision_layers / 100)
