"""Files of descriptors: both formats, and what is wrong with one."""

import hashlib
import json
import logging

import pytest
import yaml

from modules.classes.descriptor_files import fingerprint, read_descriptors, sentences_of

NAMES = ["brush hair", "cart wheel", "catch"]
STATIC = [[f"{name} thing {n}" for n in range(2)] for name in NAMES]
STEPS = [[f"{name} step {n}" for n in range(2)] for name in NAMES]


@pytest.fixture
def tree() -> dict:
    """What a YAML file of three classes holds; other order than the label file."""
    return {
        "classes": {
            name: {"static": STATIC[label][:], "steps": STEPS[label][:], "sentence": f"A person does {name}."}
            for label, name in reversed(list(enumerate(NAMES)))
        }
    }


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file of descriptors."""

    def write(tree: object):
        path = tmp_path / "d.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return path

    return write


@pytest.fixture
def pair(tmp_path):
    """Writes the two JSON files of OST."""

    def pair(static: object, steps: object):
        paths = [tmp_path / "spatio.json", tmp_path / "temporal.json"]
        for path, content in zip(paths, (static, steps), strict=True):
            path.write_text(json.dumps(content))
        return paths

    return pair


def by_number(lists: list[list[str]]) -> dict[str, list[str]]:
    return {str(label): phrases for label, phrases in enumerate(lists)}


def test_a_yaml_file_is_read_by_name_in_the_order_of_the_labels(tree, write):
    assert read_descriptors(write(tree), NAMES) == [STATIC, STEPS]
    assert read_descriptors([str(write(tree))], ["catch"]) == [STATIC[2:], STEPS[2:]]
    assert sentences_of(write(tree), ["catch", "brush hair"]) == ["A person does catch.", "A person does brush hair."]


def test_the_published_pair_is_read_by_number_and_says_that_names_cannot_be_checked(pair, caplog):
    paths = pair(by_number(STATIC), by_number(STEPS))
    with caplog.at_level(logging.WARNING):
        assert read_descriptors([str(path.resolve()) for path in paths], NAMES) == [STATIC, STEPS]
    assert "hold no class names" in caplog.text
    assert "the first class, 'brush hair', takes ['brush hair thing 0', 'brush hair thing 1']" in caplog.text


def test_a_yaml_file_of_many_classes_is_no_configuration(write):
    names = [f"class {number}" for number in range(1000)]
    entry = lambda name: {part: [f"{name} {part} {n}" for n in range(8)] for part in ("static", "steps")}  # noqa: E731
    found = read_descriptors(write({"classes": {name: entry(name) for name in names}}), names)
    assert (len(found), len(found[0]), len(found[0][0])) == (2, 1000, 8)


def change(tree: dict, name: str, key: str, value: object) -> dict:
    tree["classes"][name][key] = value
    return tree


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("static", ["one"], "static of class 'cart wheel': expected a list of 2 texts, as all classes have, found 1$"),
        ("steps", ["a", "b", "c"], "steps of class 'cart wheel': expected a list of 2 texts, .* found 3$"),
        ("steps", [], "steps of class 'cart wheel': expected a list of 2 texts, .* found 0$"),
        ("static", "a thing", "static of class 'cart wheel': expected a list .* found 'a thing'$"),
        ("static", ["one", False], "static of class 'cart wheel', number 2: expected a line of text, found False$"),
        ("static", ["one", " "], "static of class 'cart wheel', number 2: expected a line of text, found ' '$"),
        ("static", ["one", "t\nwo"], r"number 2: expected a line of text, found 't\\nwo'$"),
        ("step", ["a", "b"], "class 'cart wheel': expected static, steps, sentence, found 'step'$"),
    ],
)
def test_a_class_that_is_not_like_the_others_is_named(tree, write, key, value, message):
    path = write(change(tree, "cart wheel", key, value))
    with pytest.raises(ValueError, match=message) as error:
        read_descriptors(path, NAMES)
    assert "d.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_number_that_was_asked_for_counts(tree, write):
    with pytest.raises(ValueError, match=r"static of class 'brush hair': expected a list of 4 texts, .* found 2"):
        read_descriptors(write(tree), NAMES, num=4)


def test_missing_parts_are_an_error(tree, write):
    del tree["classes"]["catch"]["steps"], tree["classes"]["catch"]["sentence"]
    with pytest.raises(ValueError, match=r"steps of class 'catch': expected a list of 2 texts.* found None"):
        read_descriptors(write(tree), NAMES)
    with pytest.raises(ValueError, match="sentence of class 'catch': expected a line of text, found None"):
        sentences_of(write(tree), NAMES)
    tree["classes"]["catch"] = ["x"]
    with pytest.raises(ValueError, match=r"class 'catch': expected static, steps, sentence, found \['x'\]"):
        read_descriptors(write(tree), NAMES)


def test_a_missing_class_is_named_with_what_was_perhaps_meant(tree, write):
    with pytest.raises(ValueError, match=r"describes 3 classes, but not 'CartWheel' of the 2 .*; it has 'cart wheel'$"):
        read_descriptors(write(tree), ["catch", "CartWheel"])
    with pytest.raises(ValueError, match=r"but not 'x0', 'x1', 'x2', 'x3', 'x4' and 2 more of the 7 of"):
        sentences_of(write(tree), [f"x{number}" for number in range(7)])


@pytest.mark.parametrize("tree", [None, [], {"class": {}}, {"classes": []}, {"classes": {}, "note": 1}])
def test_a_file_without_classes_is_an_error(write, tree):
    with pytest.raises(ValueError, match=r"d\.yaml: expected one key 'classes', a mapping of class names, found"):
        read_descriptors(write(tree), NAMES)


def test_a_class_that_is_there_twice_is_an_error(tmp_path):
    (tmp_path / "d.yaml").write_text("classes:\n  a: {static: [x]}\n  a: {static: [y]}\n")
    with pytest.raises(ValueError, match=r"d\.yaml:3: the key 'a' is given twice, first in line 2"):
        read_descriptors(tmp_path / "d.yaml", ["a"])


def test_files_of_other_numbers_of_classes_are_an_error(pair):
    with pytest.raises(ValueError, match=r"spatio\.json: describes 3 classes, the label file has 2"):
        read_descriptors(pair(by_number(STATIC), by_number(STEPS)), NAMES[:2])
    with pytest.raises(ValueError, match=r"temporal\.json: describes 2 classes, the label file has 3"):
        read_descriptors(pair(by_number(STATIC), by_number(STEPS[:2])), NAMES)
    with pytest.raises(ValueError, match=r"temporal\.json: steps of class 'brush hair': expected a list of 2 texts"):
        read_descriptors(pair(by_number(STATIC), by_number([steps[:1] for steps in STEPS])), NAMES)


def test_numbers_in_another_order_are_an_error(pair):
    wrong = dict(sorted(by_number(STATIC).items(), reverse=True))
    with pytest.raises(ValueError, match=r"spatio\.json: expected the keys '0' to '2' in this order, found '2'"):
        read_descriptors(pair(wrong, by_number(STEPS)), NAMES)
    from_1 = {str(label + 1): phrases for label, phrases in enumerate(STATIC)}
    with pytest.raises(ValueError, match="found '1' in the place of '0'"):
        read_descriptors(pair(from_1, by_number(STEPS)), NAMES)


def test_a_json_file_that_is_damaged_is_an_error(pair):
    paths = pair(by_number(STATIC), by_number(STEPS))
    paths[1].write_text('{"0": ["a", "b"], "0": ["c", "d"], "1": ["e", "f"], "2": ["g", "h"]}')
    with pytest.raises(ValueError, match=r"temporal\.json: damaged, .*the key '0' is given twice"):
        read_descriptors(paths, NAMES)
    paths[1].write_text("[]")
    with pytest.raises(ValueError, match=r"temporal\.json: damaged, a file of descriptors is a JSON list"):
        read_descriptors(paths, NAMES)


@pytest.mark.parametrize("paths", [[], ["a.json"], ["a.yaml", "b.yaml"], ["a.json", "b.json", "c.json"], "a.txt"])
def test_other_files_are_an_error_that_says_which_are_read(paths):
    with pytest.raises(
        ValueError, match=r"expected one \.yaml file, or two \.json files \(static, then steps\), found"
    ):
        read_descriptors(paths, NAMES)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"descriptors .*no\.yaml: no such file"):
        read_descriptors(tmp_path / "no.yaml", NAMES)
    with pytest.raises(FileNotFoundError, match=r"descriptors .*no\.json: no such file"):
        read_descriptors([tmp_path / "no.json", tmp_path / "no.json"], NAMES)
    with pytest.raises(FileNotFoundError, match=r"descriptors .*no\.yaml: no such file"):
        sentences_of(tmp_path / "no.yaml", NAMES)
    with pytest.raises(ValueError, match=r"a\.json: expected a \.yaml file of descriptors, others have no sentences"):
        sentences_of("a.json", NAMES)


def test_texts_that_repeat_are_warned_of(tree, write, caplog):
    tree["classes"]["catch"]["static"][1] = "Brush  Hair thing 0"
    tree["classes"]["catch"]["steps"] = ["twice", "twice"]
    tree["classes"]["catch"]["sentence"] = tree["classes"]["brush hair"]["sentence"]
    with caplog.at_level(logging.WARNING):
        read_descriptors(write(tree), NAMES)
        sentences_of(write(tree), NAMES)
    assert (
        "static: 1 texts repeat in another class, the first is 'Brush  Hair thing 0' of 'brush hair' and 'catch'"
        in (caplog.text)
    )
    assert "steps: 1 texts repeat within a class, the first is 'twice' of 'catch'" in caplog.text
    assert "sentence: 1 texts repeat in another class" in caplog.text


def test_a_fingerprint_is_of_texts_and_their_places():
    texts = [[["a", "b"], ["c", "d"]]]
    others = ([[["a", "b"], ["d", "c"]]], [[["a", "b", "c", "d"]]], [[["a", "b"], ["c", "e"]]], [[["ab"], ["cd"]]])
    assert len({fingerprint(some) for some in (texts, *others)}) == 5
    assert fingerprint([["juggling"]]) == hashlib.sha256(b'[["juggling"]]').hexdigest()[:16]
