"""Captions, the contrastive loss with several positives, and a few steps of pretraining."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.model import CLIP
from datasets.shapes.pictures import ATTRIBUTES
from tools.pretrain_tiny_clip import TINY_CLIP, main, pretrain
from tools.shapes_captions import CAPTION_KINDS, is_true_of, write_captions
from tools.tiny_clip.steps import contrastive_loss, learning_rate, normalise_pixels
from tools.tiny_clip.worlds import PretrainConfig


def test_caption_rates_add_up():
    assert sum(kind.rate for kind in CAPTION_KINDS) == pytest.approx(1)


def test_captions_say_what_is_shown_and_are_true_of_it():
    generator = np.random.default_rng(0)
    attributes = np.stack([generator.integers(len(names), size=500) for names in ATTRIBUTES], axis=1)
    captions = write_captions(attributes, generator)
    assert is_true_of(captions.said, attributes).diagonal().all()
    for text, said in zip(captions.texts, captions.said, strict=True):
        assert "{" not in text
        mentioned = [names[i] for names, i in zip(ATTRIBUTES, said, strict=True) if i >= 0]
        assert mentioned
        assert all(words in text for words in mentioned)


def test_a_caption_that_says_less_is_true_of_more_pictures():
    attributes = np.array([[0, 1, 2, 0], [0, 3, 2, 0], [5, 1, 2, 0]])
    said = np.array([[0, 1, -1, -1], [0, -1, -1, -1], [-1, 1, -1, -1]])
    expected = [[True, True, True], [False, True, False], [False, False, True]]
    np.testing.assert_array_equal(is_true_of(said, attributes), expected)


def test_the_loss_with_one_positive_each_is_clips():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 6, 8, generator=generator)
    scale = torch.tensor(2.0)
    logits = scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).t()
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
    torch.testing.assert_close(contrastive_loss(images, texts, torch.eye(6, dtype=torch.bool), scale), expected)


def test_the_loss_does_not_push_equal_captions_apart():
    features = torch.eye(4)[[0, 0, 1, 2]]
    same = features @ features.t() > 0.5
    loss = contrastive_loss(features, features, same, torch.tensor(5.0))
    assert loss == pytest.approx(np.log(2) / 2, abs=1e-3)  # the entropy of the targets, which is the minimum


def test_pixels_are_normalised_with_clips_statistics():
    frames = np.full((1, 2, 2, 3), 255, dtype=np.uint8)
    expected = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    torch.testing.assert_close(normalise_pixels(frames)[0, :, 1, 0], torch.tensor(expected))


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [learning_rate(step, 100, 10, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[100] == pytest.approx(0)


def test_the_loss_falls_and_the_seed_fixes_the_weights():
    small = dataclasses.replace(TINY_CLIP, vision_layers=1, text_layers=1)
    config = PretrainConfig(steps=25, batch_size=32, num_pictures=256, text_steps=40, warmup_steps=5)
    model, losses = pretrain(config, small)
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.1
    again, repeated = pretrain(config, small)
    assert repeated == losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_file_loads_under_openais_names(tmp_path):
    path = main(["--out", str(tmp_path / "clip.pt"), "--steps", "2", "--batch_size", "8", "--num_pictures", "16"])
    weights = torch.load(path, weights_only=True)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert weights["visual.transformer.resblocks.0.attn.in_proj_weight"].shape == (384, 128)
    assert weights["token_embedding.weight"].shape == (49408, 64)
    CLIP(TINY_CLIP).load_state_dict(weights)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.pt"]
