"""CLIP's towers: equal to open_clip's on the same weights, and the options that open_clip does not have."""

from dataclasses import replace

import open_clip.model
import pytest
import torch
import torch.nn.functional as F

from clip.blocks import SHORT_SEQUENCE, Attention, DropPath
from clip.model import CLIP, CLIPConfig
from clip.tokenizer import tokenize

TEXTS = ["a", "a photo of a dog.", "tying a knot (not on a tie), slowly and with both hands"]

VOCABULARY = 600
SHAPES = {
    "small": CLIPConfig(48, 32, 8, 128, 2, 2, 64, 2, 1, vocab_size=VOCABULARY),
    "one block, patch 16, wide text": CLIPConfig(32, 48, 16, 64, 1, 1, 192, 1, 3, vocab_size=VOCABULARY),
    "heads of 32, context 20": CLIPConfig(64, 24, 8, 96, 3, 3, 64, 3, 2, context_length=20, vocab_size=VOCABULARY),
}


def random_tokens(lengths: tuple[int, ...], context_length: int = 77) -> torch.Tensor:
    """Texts of so many tokens, the last being the end token (the highest id), then zeros."""
    tokens = torch.zeros(len(lengths), context_length, dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[: length - 1] = torch.randint(1, VOCABULARY - 1, (length - 1,))
        row[length - 1] = VOCABULARY - 1
    return tokens


def open_clip_model(config: CLIPConfig) -> torch.nn.Module:
    """open_clip's CLIP of the same shapes, with random weights in which no bias or norm is trivial."""
    vision = open_clip.model.CLIPVisionCfg(
        layers=config.vision_layers, width=config.vision_width, image_size=config.image_size,
        patch_size=config.patch_size, head_width=config.vision_width // config.vision_heads,
    )  # fmt: skip
    text = open_clip.model.CLIPTextCfg(
        context_length=config.context_length, vocab_size=config.vocab_size, width=config.text_width,
        heads=config.text_heads, layers=config.text_layers,
    )  # fmt: skip
    model = open_clip.model.CLIP(config.embed_dim, vision, text, quick_gelu=config.activation == "quick_gelu")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def both(config: CLIPConfig) -> tuple[CLIP, torch.nn.Module]:
    torch.manual_seed(0)
    reference = open_clip_model(config)
    ours = CLIP(config).eval()
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_both_towers_equal_open_clip(shape, activation):
    ours, reference = both(replace(SHAPES[shape], activation=activation))
    images = torch.randn(3, 3, ours.config.image_size, ours.config.image_size)
    tokens = random_tokens((3, 9, 20), ours.config.context_length)
    torch.testing.assert_close(ours.encode_image(images), reference.encode_image(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.encode_text(tokens), reference.encode_text(tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_towers_with_the_widths_of_vit_b_32_equal_open_clip():
    ours, reference = both(CLIPConfig(512, 224, 32, 768, 3, 12, 512, 3, 8, vocab_size=VOCABULARY))  # 3 of 12 blocks
    images, tokens = torch.randn(1, 3, 224, 224), random_tokens((8,))
    torch.testing.assert_close(ours.encode_image(images), reference.encode_image(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.encode_text(tokens), reference.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_gradients_equal_open_clip():
    ours, reference = both(SHAPES["small"])
    images, tokens = torch.randn(2, 3, 32, 32), random_tokens((5, 7))
    for model in (ours, reference):
        ((model.encode_image(images) @ model.encode_text(tokens).T) * model.logit_scale).sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        scale = expected[name].grad.abs().max()
        assert (parameter.grad - expected[name].grad).abs().max() <= 1e-4 * scale, name


@torch.no_grad()
def test_a_text_does_not_depend_on_longer_texts_of_its_batch(tiny_clip):
    long_text = tokenize(["word " * 75])
    assert (long_text != 0).all()  # all 77 positions are used, nothing is trimmed
    short = tokenize(TEXTS)
    together = tiny_clip.encode_text(torch.cat([short, long_text]))
    torch.testing.assert_close(tiny_clip.encode_text(short), together[:3], rtol=1e-5, atol=1e-6)
    alone = torch.cat([tiny_clip.encode_text(text[None]) for text in short])
    torch.testing.assert_close(alone, together[:3], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_joint_frames_attend_over_the_patches_of_all_frames():
    config = SHAPES["small"]
    _, reference = both(config)
    model = CLIP(replace(config, joint_frames=3)).eval()
    model.load_state_dict(reference.state_dict(), strict=False)
    images = torch.randn(6, 3, 32, 32)  # two clips of three frames

    # By hand, on open_clip's layers: one class token, then the patches of frame 0, 1, 2.
    visual = reference.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2) + visual.positional_embedding[1:]
    patches = patches.view(2, 3, 16, 128) + model.visual.time_embedding.view(1, 3, 1, 128)
    token = (visual.class_embedding + visual.positional_embedding[0]).expand(2, 1, 128)
    tokens = visual.ln_pre(torch.cat([token, patches.reshape(2, 48, 128)], dim=1))
    expected = visual.ln_post(visual.transformer(tokens))[:, 0] @ visual.proj

    found = model.encode_image(images)
    assert found.shape == (2, 48)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient(tiny_clip):
    tiny_clip.train()
    images = torch.randn(2, 3, 32, 32)
    grads = []
    for is_on in (False, True):
        tiny_clip.checkpoint_activations(is_on)
        tiny_clip.zero_grad()
        tiny_clip.encode_image(images).square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in tiny_clip.visual.named_parameters()})
    for name, grad in grads[0].items():
        assert torch.equal(grad, grads[1][name]), name


def test_gradient_checkpointing_keeps_no_activations_of_a_block(tiny_clip):
    tiny_clip.train()
    images = torch.randn(2, 3, 32, 32)
    saved = []
    for is_on in (False, True):
        tiny_clip.checkpoint_activations(is_on)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            tiny_clip.encode_image(images)
        saved.append(sum(kept))
    assert saved[1] < 0.5 * saved[0]


def test_drop_path_does_nothing_in_evaluation(tiny_clip, tiny_clip_config):
    dropping = CLIP(replace(tiny_clip_config, drop_path=0.7, emb_dropout=0.5))
    dropping.load_state_dict(tiny_clip.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(dropping.eval().encode_image(images), tiny_clip.encode_image(images))
    assert not torch.equal(dropping.train().encode_image(images), tiny_clip.encode_image(images))


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
    torch.manual_seed(0)
    x = torch.ones(4000, 3, 2)
    dropped = DropPath(0.25).train()(x)
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    torch.testing.assert_close(per_sample.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs(float(dropped.mean()) - 1.0) < 0.04  # 4 standard deviations


def test_drop_path_rate_rises_linearly_over_the_blocks(tiny_clip_config):
    model = CLIP(replace(tiny_clip_config, vision_layers=5, drop_path=0.2))
    rates = [block.drop_path.rate for block in model.visual.transformer.resblocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_attention_batches_all_leading_dimensions(tiny_clip):
    attention = tiny_clip.visual.transformer.resblocks[0].attn
    x = torch.randn(2, 3, 5, 64)
    expected = torch.stack([attention(part) for part in x])
    torch.testing.assert_close(attention(x), expected)
    query, key, value = F.linear(x[0, 0], attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    by_hand = attention.out_proj((query @ key.T / 8).softmax(dim=-1) @ value)  # one head of 64
    torch.testing.assert_close(attention(x)[0, 0], by_hand, rtol=1e-4, atol=1e-6)


def test_reading_only_the_first_token_changes_neither_it_nor_its_gradients(tiny_clip):
    transformer = tiny_clip.visual.transformer
    x = torch.randn(3, 7, 64, requires_grad=True)
    results = []
    for first in (transformer(x)[:, :1], transformer(x, only_first=True)):
        assert first.shape == (3, 1, 64)
        results.append((first, *torch.autograd.grad(first.square().sum(), [x, *transformer.parameters()])))
    for whole, cut in zip(*results, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, SHORT_SEQUENCE, SHORT_SEQUENCE + 1])
def test_attention_trained_in_bf16_has_the_values_and_gradients_of_fp32(length):
    torch.manual_seed(0)
    attention = Attention(64, 2)
    x = torch.randn(2, length, 64, requires_grad=True)
    results = []
    for is_bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            y = attention(x)
        assert y.dtype == (torch.bfloat16 if is_bf16 else torch.float32)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *attention.parameters()])))
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() <= 0.02 * exact.norm()


def test_dropping_the_text_tower_leaves_images_working(tiny_clip):
    images = torch.randn(1, 3, 32, 32)
    before = tiny_clip.encode_image(images)
    tiny_clip.drop_text()
    assert {name.split(".")[0] for name in tiny_clip.state_dict()} == {"visual", "logit_scale"}
    assert torch.equal(tiny_clip.encode_image(images), before)
