"""network.residual: what is bf16, and that it is off but for those who ask."""

from dataclasses import replace

import pytest
import torch

from benchmarks.memory import kept_bytes
from clip.blocks import LIGHT, LayerNorm, ResidualAttentionBlock, set_recompute
from clip.model import CLIP
from clip.resnet import ModifiedResNet, ResNetConfig
from modules.build import load_config
from modules.check import check_network
from modules.heads.mean import MeanPooling
from modules.running.residual import BF16, FP32, apply_residual
from modules.systems.clip import PlainCLIP

CLIPS = torch.randint(256, (4, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make_system(tiny_clip_config):
    def make_system(name: str, **options) -> PlainCLIP:
        torch.manual_seed(0)
        system = PlainCLIP(CLIP(replace(tiny_clip_config, **options)), MeanPooling(), None).eval()
        apply_residual(system, name)
        return system

    return make_system


def features(system: PlainCLIP, half: torch.dtype | None) -> tuple[torch.Tensor, set[torch.dtype]]:
    """Of the image tower in a number format, and in which formats its blocks get their input."""
    seen = set()
    for block in system.towers.visual.transformer.resblocks:
        block.register_forward_pre_hook(lambda block, inputs: seen.add(inputs[0].dtype))
    with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
        return system.towers.encode_clips(CLIPS), seen


@pytest.mark.parametrize("options", [{}, {"tower": "divided"}, {"time_module": "tokenshift"}])
def test_the_stream_is_bf16_where_a_run_is_and_close_to_fp32(make_system, options):
    expected, seen = features(make_system(FP32, **options), None)
    assert seen == {torch.float32}
    errors = {}
    for name, dtype in {FP32: torch.float32, BF16: torch.bfloat16}.items():
        found, seen = features(make_system(name, **options), torch.bfloat16)
        assert seen == {dtype}
        errors[name] = ((found.float() - expected).norm() / expected.norm()).item()
    assert errors[FP32] < errors[BF16] < 0.02
    exact, seen = features(make_system(BF16, **options), None)
    assert seen == {torch.float32}
    assert torch.equal(exact, expected)


def test_gradients_are_bf16_s_too_and_close(make_system):
    gradients = []
    for name in (FP32, BF16):
        system = make_system(name).train()
        set_recompute(system, LIGHT)
        features(system, torch.bfloat16)[0].float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in system.towers.visual.parameters()]))
    error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 0 < error < 0.05


def test_statistics_of_norms_are_fp32():
    norm, x = LayerNorm(256), (1000 + torch.randn(4, 256)).bfloat16()  # a mean that bf16 knows to 4
    with torch.no_grad():
        norm.weight.fill_(0.5)
        found = norm(x)
    assert found.dtype == torch.bfloat16
    expected = torch.nn.functional.layer_norm(x.double(), (256,), norm.weight.double(), norm.bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.01)


def test_a_block_keeps_half_of_its_input():
    block, clips = ResidualAttentionBlock(64, 2, "quick_gelu", 0.0).train(), torch.randn(2, 9, 64)
    set_recompute(block, LIGHT)
    fp32 = kept_bytes(block, clips, is_half=True)
    assert fp32 - kept_bytes(block, clips.bfloat16(), is_half=True) == 2 * 9 * 64


def test_where_it_means_nothing_it_is_an_error(tiny_clip_config, debug_config, make_system):
    with pytest.raises(ValueError, match=r"network\.residual: expected one of fp32, bf16, found 'fp16'"):
        check_network(load_config(debug_config, ["network.residual=fp16"]))
    with pytest.raises(ValueError, match=r"network\.residual bf16: expected fp32 with network\.tm tokent1d"):
        check_network(load_config(debug_config, ["network.residual=bf16", "network.tm=tokent1d"]))
    system = make_system(FP32)
    system.towers.visual = ModifiedResNet(ResNetConfig((1, 1, 1, 1), 8, 4, 32, 64))
    with pytest.raises(ValueError, match=r"network\.residual bf16: expected fp32 for this image tower"):
        apply_residual(system, BF16)
