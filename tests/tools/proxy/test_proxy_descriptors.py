"""Descriptors of the proxy world's classes: one entry a class, in texts of its own."""

import re

import pytest
import yaml

from datasets.shapes.proxy.world import LABEL_SETS, classes_of
from modules.classes.descriptor_files import read_descriptors, sentences_of
from tools.proxy.descriptors import main


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory):
    path = tmp_path_factory.mktemp("descriptors") / "d.yaml"
    main(["--out", str(path)])
    return path


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_every_class_has_four_of_each_and_a_sentence_that_tells_it_from_others(descriptors, label_set):
    names = [each.name for each in classes_of(label_set)]
    static, steps = read_descriptors(descriptors, names)
    assert {len(phrases) for phrases in (*static, *steps)} == {4}
    assert len(set(sentences_of(descriptors, names))) == len(names)
    assert len({tuple(phrases) for phrases in steps}) == len(names)


def test_texts_name_their_object_and_no_other(descriptors):
    classes = yaml.safe_load(descriptors.read_text())["classes"]
    hammer = classes["a hammer circling clockwise"]
    assert hammer["steps"][0] == "a hammer off the middle of the picture, about to circle clockwise"
    assert hammer["sentence"].startswith("A hammer goes around the middle of the picture clockwise")
    assert classes["an arrow moving up"]["static"][2] == "something moving up that is an arrow"
    assert not any(re.search(r"\bstar\b", str(entry)) for name, entry in classes.items() if "star" not in name)


def test_what_names_no_motion_has_its_look_and_place(descriptors):
    classes = yaml.safe_load(descriptors.read_text())["classes"]
    (night,) = (entry for name, entry in classes.items() if name == "a cup at night")
    assert night["static"][0] == "a photo of a cup at night"
    assert night["sentence"] == "A cup moves at night in some way."
    coloured = next(name for name in classes if name.startswith("a red "))
    assert coloured in classes[coloured]["static"][0]
