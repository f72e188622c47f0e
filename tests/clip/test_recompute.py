"""What blocks compute again in the backward pass changes no gradient, and leaves out of memory what it says."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import kept_bytes
from clip.blocks import FULL, LIGHT, MEDIUM, NONE, RECOMPUTE, ResidualAttentionBlock, set_recompute
from clip.model import CLIP
from modules.heads.experts import ExpertTransformer
from modules.heads.transformer import TemporalBlock

WIDTH, HEADS, LENGTH = 64, 2, 9


def towers(config, **options) -> nn.Module:
    torch.manual_seed(0)
    model = CLIP(replace(config, **options)).train()
    for name, parameter in model.named_parameters():
        if "timeattn" in name:  # zeros, as initialised
            nn.init.normal_(parameter, std=0.1)
    return model


def image_tower(config, **options):
    model, clips = towers(config, **options), torch.randint(256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    return model, lambda: model.encode_clips(clips)


def text_tower(config):
    model, tokens = towers(config), torch.randint(1, 400, (3, 77))
    return model, lambda: model.encode_text(tokens)


def head(config):
    torch.manual_seed(0)
    model, frames = ExpertTransformer(WIDTH, 2, HEADS, 4, 3).train(), torch.randn(2, 5, WIDTH, requires_grad=True)
    mixing = model.draw(torch.Generator().manual_seed(0), (1.2, 9.6), with_merged=True)
    return model, lambda: model.routes(frames, mixing)


MODELS = {
    "frames": image_tower,
    "space-time": lambda config: image_tower(config, tower="divided"),
    "dropout and drop path": lambda config: image_tower(config, drop_path=0.3, emb_dropout=0.2),
    "shifted channels": lambda config: image_tower(config, time_module="tokent1d"),
    "text": text_tower,
    "experts": head,
}


def step_of(model: nn.Module, encode, name: str) -> tuple[list[torch.Tensor], int]:
    """Gradients of a step that recomputes so, and its operations."""
    assert set_recompute(model, name) > 0
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    with FlopCounterMode(display=False) as counter:
        encode().float().square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], counter.get_total_flops()


# Shares of all operations that may be done again: of a block's 12 D x D of products forward, a third of a step, light
# computes attention's output again and medium its three projections, too.
AGAIN = {LIGHT: 1 / 36, MEDIUM: 4 / 36}
# And, in models as small as these: an image tower's last block, which does little else; layers of attention over time;
# the mixtures of experts, one term an expert and route; behind a product whose result is dropped, this product.
MORE = {"text": 0.001, "experts": 0.14, "dropout and drop path": 0.1, "space-time": 0.1}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_the_same_to_the_bit_and_few_products_are_computed_twice(model, precision, tiny_clip_config):
    more, (model, encode) = MORE.get(model, 0.02), MODELS[model](tiny_clip_config)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        found = {name: step_of(model, encode, name) for name in RECOMPUTE}
    expected, operations = found[NONE]
    assert len(expected) > 10
    for gradients, _ in found.values():
        assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))
    light, medium, full = (found[name][1] / operations for name in (LIGHT, MEDIUM, FULL))
    assert 1 <= light <= 1 + AGAIN[LIGHT] + more
    assert light < medium <= 1 + AGAIN[MEDIUM] + more
    assert max(1.1, medium) < full


def test_a_block_keeps_its_input_attention_and_the_layers_that_are_wide_enough():
    block, kept = ResidualAttentionBlock(WIDTH, HEADS, "quick_gelu", 0.0).train(), {}
    clips = torch.randn(2, LENGTH, WIDTH)
    for name in RECOMPUTE:
        set_recompute(block, name)
        kept[name] = kept_bytes(block, clips, is_half=False)
    of_width = 4 * LENGTH * WIDTH  # bytes of a tensor [L, D] in fp32
    log_sums = 4 * LENGTH * HEADS  # of attention
    assert kept[FULL] == of_width
    assert kept[MEDIUM] == of_width * (1 + 1 + 4) + log_sums  # input, attention, hidden
    assert kept[LIGHT] == kept[MEDIUM] + of_width * 3  # projections
    assert kept[NONE] > kept[LIGHT] + 5 * of_width  # norms, and the activations of the hidden layer


def test_nothing_is_recomputed_outside_of_training(tiny_clip):
    set_recompute(tiny_clip.eval(), FULL)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        tiny_clip.encode_image(images).sum().backward()
    found = counter.get_total_flops()
    set_recompute(tiny_clip.train(), NONE)
    with FlopCounterMode(display=False) as counter:
        tiny_clip.encode_image(images).sum().backward()
    assert found == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("name", [LIGHT, MEDIUM, FULL])
def test_compiled_blocks_recompute_too(name):
    torch.manual_seed(0)
    block = ResidualAttentionBlock(WIDTH, HEADS, "quick_gelu", 0.0).train()
    x, gradients = torch.randn(4, LENGTH, WIDTH, requires_grad=True), []
    for is_compiled in (False, True):
        if is_compiled:
            block.compile()
        set_recompute(block, name)
        block.zero_grad()
        try:
            block(x).square().sum().backward()
        except torch._dynamo.exc.BackendCompilerFailed:
            pytest.skip("torch.compile does not work here: no C++ compiler, or Python's headers are missing")
        gradients.append([p.grad.clone() for p in block.parameters()])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_every_kind_of_block_can(tiny_clip):
    for block in (TemporalBlock(WIDTH, HEADS, nn.Identity), *tiny_clip.visual.transformer.resblocks):
        assert set_recompute(block, LIGHT) == 1
        assert block.recompute == LIGHT
