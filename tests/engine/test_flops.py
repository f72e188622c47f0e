import pytest
import torch

from clip.model import Transformer
from engine.flops import count_flops, peak_flops

WIDTH, LENGTH, LAYERS = 64, 10, 2


@pytest.fixture
def transformer():
    return Transformer(WIDTH, LAYERS, 1, "quick_gelu").train()


@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_operations_are_those_of_the_matrices_without_recomputation(transformer, grad_checkpointing):
    transformer.grad_checkpointing = grad_checkpointing
    x = torch.randn(1, LENGTH, WIDTH, requires_grad=True)
    matrices = LAYERS * 12 * WIDTH**2 * LENGTH * 2  # multiply and add
    found = count_flops(transformer, lambda: transformer(x).sum())
    # Forward once, backward twice; attention itself adds a little.
    assert 3 * matrices <= found <= 3.5 * matrices
    assert transformer.grad_checkpointing == grad_checkpointing
    assert all(parameter.grad is None for parameter in transformer.parameters())


def test_the_rate_of_a_device_comes_by_its_name(monkeypatch):
    def rate(name: str) -> float | None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        return peak_flops(torch.device("cuda", 0))

    assert rate("NVIDIA H200") == 989e12
    assert rate("NVIDIA H100 PCIe") == 756e12
    assert rate("NVIDIA H100 80GB HBM3") == 989e12
    assert rate("NVIDIA A100-SXM4-80GB") == 312e12
    assert rate("Some card") is None
    assert peak_flops(torch.device("cpu")) is None
