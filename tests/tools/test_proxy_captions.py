"""What is said about the second world's pictures, and a few steps of pretraining on them."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.model import CLIP
from clip.tokenizer import tokenize
from datasets.shapes.proxy.pictures import ATTRIBUTES, NOT_SHOWN, draw_pictures
from datasets.shapes.proxy.world import LABEL_SETS, classes_of
from modules.classes.templates import TEMPLATES
from tools.pretrain_tiny_clip import TINY_CLIP, main, pretrain, short_texts_loss
from tools.shapes_captions import NOT_SAID, is_true_of
from tools.tiny_clip.proxy_captions import CAPTION_KINDS, SHORT_TEXTS
from tools.tiny_clip.worlds import WORLDS, PretrainConfig

PROXY = WORLDS["proxy"]


@pytest.fixture(scope="module")
def attributes():
    return draw_pictures(600, np.random.default_rng(0), (16, 16)).attributes


def test_caption_rates_add_up():
    assert sum(kind.rate for kind in CAPTION_KINDS) == pytest.approx(1)
    assert NOT_SAID == NOT_SHOWN


def test_captions_are_true_of_their_pictures_and_say_nothing_that_is_hidden(attributes):
    captions = PROXY.write_captions(attributes, np.random.default_rng(0))
    assert is_true_of(captions.said, attributes).diagonal().all()
    assert (attributes[captions.said >= 0] >= 0).all()
    assert {tuple(row >= 0) for row in captions.said} >= {
        tuple(np.isin(np.arange(len(ATTRIBUTES)), kind.said)) for kind in CAPTION_KINDS
    }
    for text, said in zip(captions.texts, captions.said, strict=True):
        assert "{" not in text
        mentioned = [names[i] for names, i in zip(ATTRIBUTES, said, strict=True) if i >= 0]
        assert mentioned
        assert all(words in text for words in mentioned)


def test_class_names_are_said_as_captions_are(attributes):
    captions = PROXY.write_captions(np.tile(attributes, (8, 1)), np.random.default_rng(1))
    heard = set(captions.texts)
    names = {shown.name for label_set in LABEL_SETS for shown in classes_of(label_set)}
    templates = TEMPLATES["mote28"]
    said = [name for name in names if any(template.format(name) in heard for template in templates)]
    assert len(said) > 0.2 * len(names)


def test_there_is_a_short_text_for_each_value_of_each_attribute():
    assert [len(texts) for texts in SHORT_TEXTS] == [32, 8, 4, 8, 5, 12, 5, 3, 4]
    flat = [text for texts in SHORT_TEXTS for text in texts]
    assert len(set(flat)) == 81
    assert {"a ring", "something red", "something at night", "a neon sign", "something moving left"} <= set(flat)


def test_the_loss_of_short_texts_leaves_out_what_is_not_shown():
    torch.manual_seed(0)
    model, features = CLIP(TINY_CLIP), torch.randn(3, TINY_CLIP.embed_dim)
    attributes = np.array([[0, 1], [2, NOT_SAID], [1, 0]])
    texts = (("a star", "a ring", "a cup"), ("something red", "something blue"))
    with torch.no_grad():
        found = short_texts_loss(model, features, attributes, texts)
        logits = [
            model.logit_scale.exp() * F.normalize(features, dim=1) @ F.normalize(model.encode_text(tokens), dim=1).t()
            for tokens in map(tokenize, map(list, texts))
        ]
    expected = F.cross_entropy(logits[0], torch.tensor([0, 2, 1]))
    expected += F.cross_entropy(logits[1][[0, 2]], torch.tensor([1, 0]))
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_pretraining_learns_repeats_and_ends_with_the_scale_of_the_world():
    small = dataclasses.replace(TINY_CLIP, vision_layers=1, text_layers=1)
    config = PretrainConfig(steps=25, batch_size=32, num_pictures=128, text_steps=20, warmup_steps=5)
    model, losses = pretrain(config, small, PROXY)
    with_captions = losses[::3]
    assert np.mean(with_captions[-3:]) < np.mean(with_captions[:3]) - 0.3
    assert model.logit_scale.exp().item() == pytest.approx(50)
    again, repeated = pretrain(config, small, PROXY)
    assert repeated == losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_the_image_tower_starts_as_the_first_world_left_it():
    small = dataclasses.replace(TINY_CLIP, vision_layers=1, text_layers=1)
    first = dataclasses.replace(WORLDS["demo"], defaults=PretrainConfig(batch_size=8, text_steps=2))
    world = dataclasses.replace(PROXY, first=first)
    config = PretrainConfig(steps=0, first_steps=5, num_pictures=16, text_steps=0, seed=3)
    model, _ = pretrain(config, small, world)
    learned, _ = pretrain(dataclasses.replace(first.defaults, steps=5, num_pictures=16, seed=3), small, first)
    alone, _ = pretrain(dataclasses.replace(config, first_steps=0), small, world)
    for found, expected, fresh in zip(*(m.visual.parameters() for m in (model, learned, alone)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert not torch.equal(found, fresh)
    assert torch.equal(model.token_embedding.weight, alone.token_embedding.weight)


@pytest.mark.slow
def test_the_command_writes_the_clip_of_a_world(tmp_path):
    given = ["--steps", "2", "--first_steps", "2", "--batch_size", "8", "--num_pictures", "16"]
    path = main(["--world", "proxy", *given, "--out", str(tmp_path / "clip.pt")])
    weights = torch.load(path, weights_only=True)
    assert weights["logit_scale"].exp().item() == pytest.approx(50, rel=1e-3)


def test_a_world_without_a_first_one_refuses_its_steps(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--first_steps", "5", "--out", str(tmp_path / "clip.pt")])
    assert "--first_steps: the world demo has no world that is learned before it" in capsys.readouterr().err
