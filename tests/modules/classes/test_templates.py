"""Templates and class features."""

import pytest
import torch

from clip.tokenizer import tokenize
from modules.classes import templates
from modules.classes.base import FixedClasses
from modules.classes.templates import (
    TEMPLATES,
    LiveTexts,
    class_features,
    template_classes,
    templates_of,
    tokenize_classes,
)

# Written out from the paper's appendix.
PAPER_TEMPLATES = """
a photo of {}.|a photo of a person {}.|a photo of a person using {}.|a photo of a person doing {}.
a photo of a person during {}.|a photo of a person performing {}.|a photo of a person practicing {}.
a video of {}.|a video of a person {}.|a video of a person using {}.|a video of a person doing {}.
a video of a person during {}.|a video of a person performing {}.|a video of a person practicing {}.
a example of {}.|a example of a person {}.|a example of a person using {}.|a example of a person doing {}.
a example of a person during {}.|a example of a person performing {}.|a example of a person practicing {}.
a demonstration of {}.|a demonstration of a person {}.|a demonstration of a person using {}.
a demonstration of a person doing {}.|a demonstration of a person during {}.
a demonstration of a person performing {}.|a demonstration of a person practicing {}.
"""


def test_mote_has_the_28_templates_of_the_paper():
    paper = [template for line in PAPER_TEMPLATES.strip().splitlines() for template in line.split("|")]
    assert len(paper) == len(TEMPLATES["mote28"]) == 28
    assert set(TEMPLATES["mote28"]) == set(paper)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_distinct_and_take_one_class_name(name):
    filled = [template.format("CLASS") for template in TEMPLATES[name]]
    assert len(set(filled)) == len(filled)
    assert all(text.count("CLASS") == 1 for text in filled)


def test_a_template_may_be_given_itself(tiny_clip):
    assert templates_of("a photo of a {}.") == ("a photo of a {}.",)
    tokens = tokenize_classes(tiny_clip, ["yoga {1}"], "a photo of a {}.")
    assert torch.equal(tokens[0], tokenize(["a photo of a yoga {1}."]))


@pytest.mark.parametrize("text", ["photo", "", "a {} of {}", "a {name}", "a {0}", "{{}}", "a {} of {", "} {}"])
def test_what_is_neither_a_set_nor_a_template_is_an_error_that_lists_the_sets(text):
    known = "network.templates: expected one of single, mote28, person, name, or .*, found "
    with pytest.raises(ValueError, match=known):
        templates_of(text)


def test_classes_carry_a_fingerprint_of_their_texts(tiny_clip):
    prints = {
        template_classes(tiny_clip, names, templates, is_live).fingerprint
        for names, templates in ((["yoga", "tai chi"], "single"), (["tai chi", "yoga"], "single"), (["yoga"], "name"))
        for is_live in (True, False)
    }
    assert len(prints) == 3
    assert all(len(text) == 16 for text in prints)


def test_tokens_of_classes_are_those_of_their_filled_templates(tiny_clip):
    tokens = tokenize_classes(tiny_clip, ["juggling balls", "yoga"], "mote28")
    assert tokens.shape == (2, 28, 77)
    assert torch.equal(tokens[1], tokenize([template.format("yoga") for template in TEMPLATES["mote28"]]))


@torch.no_grad()
def test_class_features_are_unit_means_of_unit_texts(tiny_clip):
    names = ["juggling balls", "yoga", "tying knot (not on a tie)"]
    features = template_classes(tiny_clip, names, "mote28").encode(tiny_clip)
    assert features.shape == (3, 64)
    for name, feature in zip(names, features, strict=True):
        texts = [tiny_clip.encode_text(tokenize([t.format(name)]))[0] for t in TEMPLATES["mote28"]]
        mean = sum(text / text.square().sum().sqrt() for text in texts) / 28
        torch.testing.assert_close(feature, mean / mean.square().sum().sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_class_features_do_not_depend_on_how_many_texts_are_encoded_at_once(tiny_clip):
    names = [f"activity {number}" for number in range(5)]
    tokens = tokenize_classes(tiny_clip, names, "mote28")
    features = [class_features(tiny_clip, tokens, chunk) for chunk in (3, 140, 512, None)]
    for other in features[1:]:
        torch.testing.assert_close(features[0], other)


def test_encoding_classes_is_in_eval_mode_without_gradients_and_restores_the_mode(tiny_clip):
    tiny_clip.train()
    tiny_clip.transformer.resblocks[0].drop_path.rate = 0.9
    features = [template_classes(tiny_clip, ["yoga"], "single").encode(tiny_clip) for _ in range(2)]
    assert torch.equal(*features)
    assert not features[0].requires_grad
    assert tiny_clip.training


@torch.no_grad()
def test_live_texts_are_tokens_that_encode_to_what_fixed_classes_hold(tiny_clip):
    names = ["yoga", "juggling balls"]
    live = template_classes(tiny_clip, names, "mote28", is_live=True)
    fixed = template_classes(tiny_clip, names, "mote28")
    assert isinstance(live, LiveTexts)
    assert isinstance(fixed, FixedClasses)
    assert (len(live), len(fixed)) == (2, 2)
    assert live.tokens.shape == (2, 28, 77)
    torch.testing.assert_close(live.encode(tiny_clip), fixed.encode(tiny_clip))
    assert fixed.encode(tiny_clip) is fixed.features


def test_live_texts_are_a_part_of_the_graph(tiny_clip):
    classes = template_classes(tiny_clip, ["yoga", "zumba"], "single", is_live=True)
    assert classes.encode(tiny_clip).requires_grad
    with torch.no_grad():
        assert not classes.encode(tiny_clip).requires_grad


def test_texts_are_encoded_a_part_at_a_time_where_no_graph_holds_them_all(tiny_clip, monkeypatch):
    monkeypatch.setattr(templates, "CHUNK", 2)
    counts = []
    encode = tiny_clip.encode_text
    monkeypatch.setattr(tiny_clip, "encode_text", lambda tokens: counts.append(len(tokens)) or encode(tokens))
    classes = template_classes(tiny_clip, ["yoga", "zumba", "tai chi"], "single", is_live=True)
    classes.encode(tiny_clip)
    with torch.no_grad():
        classes.encode(tiny_clip)
    template_classes(tiny_clip, ["yoga", "zumba", "tai chi"], "single")
    assert counts == [3, 2, 1, 2, 1]


def test_a_class_name_that_is_too_long_is_named_with_its_label(tiny_clip):
    with pytest.raises(ValueError, match=r"class name too long \(label 1, 'very very.*at most 77"):
        tokenize_classes(tiny_clip, ["yoga", "very " * 80], "single")
