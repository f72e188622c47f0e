"""The number format that a run computes in."""

import pytest
import torch

from utils.precision import CHOICES, Precision, resolve_precision

CPU = torch.device("cpu")


def test_auto_and_its_published_alias_choose_the_same():
    assert resolve_precision("auto", CPU) == resolve_precision("amp", CPU)
    assert resolve_precision("auto", CPU).name in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("units", "name"), [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({}, "fp32")]
)
def test_auto_takes_bf16_only_where_the_cpu_computes_it(monkeypatch, units, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert resolve_precision("auto", CPU).name == name


def test_fp16_on_a_cpu_is_an_error_that_says_what_works():
    with pytest.raises(ValueError, match=r"fp16 needs a CUDA device; use auto, bf16 or fp32"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "fp16"])
def test_every_other_choice_resolves_on_a_cpu(choice):
    assert resolve_precision(choice, CPU).device == CPU


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_products_in_the_format(name, dtype):
    with Precision(name, CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("name", "is_scaled"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_only_fp16_scales_the_loss(name, is_scaled):
    assert Precision(name, CPU).grad_scaler().is_enabled() == is_scaled
