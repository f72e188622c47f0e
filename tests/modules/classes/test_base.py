"""Classes of a batch alone."""

import copy

import torch
import torch.nn.functional as F

from modules.classes.base import FixedClasses
from modules.classes.prompts import LearnedPrompts
from modules.classes.templates import template_classes
from modules.classes.vectors import Vectors

NAMES = ["yoga", "juggling balls", "tying knot (not on a tie)", "zumba"]
LABELS = torch.tensor([2, 0, 2, 2, 3])


def all_kinds(clip) -> dict:
    """Classes of every kind over NAMES."""
    vectors = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    return {
        "fixed": FixedClasses(F.normalize(vectors, dim=-1)),
        "texts": template_classes(clip, NAMES, "mote28", is_live=True),
        "vectors": Vectors(vectors, is_trained=True),
        "prompts": LearnedPrompts(clip, NAMES),
        "prompts of their own": LearnedPrompts(clip, NAMES, position="middle", per_class=True),
    }


def test_classes_of_labels_are_those_rows_of_all_classes(tiny_clip):
    for kind, classes in all_kinds(tiny_clip).items():
        found, expected = classes.encode(tiny_clip, LABELS), classes.encode(tiny_clip)[LABELS]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=kind)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


def test_gradients_of_labels_are_as_if_each_row_had_been_encoded(tiny_clip):
    probe = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    for kind, classes in all_kinds(tiny_clip).items():
        if kind == "fixed":
            continue
        parameters = [*tiny_clip.transformer.parameters(), *getattr(classes, "parameters", list)()]
        found = torch.autograd.grad((classes.encode(tiny_clip, LABELS) * probe).sum(), parameters, allow_unused=True)
        one_by_one = torch.cat([classes.encode(tiny_clip, label[None]) for label in LABELS])
        expected = torch.autograd.grad((one_by_one * probe).sum(), parameters, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in found), kind
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=kind)


def test_each_distinct_label_s_texts_are_encoded_once(tiny_clip, monkeypatch):
    counts = []
    for method in ("encode_text", "encode_embedded"):
        whole = getattr(tiny_clip, method)
        monkeypatch.setattr(tiny_clip, method, lambda x, *rest, _whole=whole: counts.append(len(x)) or _whole(x, *rest))
    kinds = all_kinds(tiny_clip)
    kinds["prompts"].encode(tiny_clip, LABELS)
    assert counts == [3]
    counts.clear()
    kinds["texts"].encode(tiny_clip, LABELS)
    assert counts[0] == 3 * 28


def test_classes_of_labels_have_shapes_where_nothing_has_values(tiny_clip):
    for kind, classes in all_kinds(tiny_clip).items():
        shapes = copy.deepcopy(classes)
        if isinstance(shapes, torch.nn.Module):
            shapes.to("meta")
        towers = copy.deepcopy(tiny_clip).to("meta")
        assert shapes.encode(towers, LABELS.to("meta")).shape == (5, 64), kind
