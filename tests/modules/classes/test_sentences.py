"""What templates are filled with: names, the sentences of the data set's file, or those of a file."""

import pytest
import torch
import yaml

from modules.build import build_classes, load_config
from modules.check import check_network
from modules.classes import sentences
from modules.classes.sentences import class_texts, shipped_file
from modules.classes.templates import template_classes

NAMES = ["yoga", "archery"]
SENTENCES = {"archery": "Someone draws a bow.", "yoga": "A person stretches on a mat."}


@pytest.fixture
def described(tmp_path):
    """A file of descriptors, in another order than the labels."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"classes": {name: {"sentence": text} for name, text in SENTENCES.items()}}))
    return path


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder in the place of descriptors/, with empty files of some data sets."""
    for name in ("hmdb51", "kinetics400", "kinetics600_zero_shot", "something_v2"):
        (tmp_path / f"{name}.yaml").touch()
    monkeypatch.setattr(sentences, "FOLDER", tmp_path)
    return tmp_path


def test_names_are_their_own_texts_and_a_file_has_those_of_its_classes_by_name(described):
    assert class_texts("names", NAMES, "any") == NAMES
    assert class_texts(str(described), NAMES, "any") == [SENTENCES[name] for name in NAMES]


@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        ("hmdb51", "hmdb51"),
        ("hmdb51_split3", "hmdb51"),
        ("kinetics400_novel", "kinetics400"),
        ("kinetics600_split1", "kinetics600_zero_shot"),
        ("something_v2_base", "something_v2"),
    ],
)
def test_a_part_of_a_data_set_has_the_file_of_the_whole(shipped, dataset, file):
    assert shipped_file(dataset, "ost.descriptors") == shipped / f"{file}.yaml"


@pytest.mark.parametrize("dataset", ["", "kinetics", "hmdb", "custom"])
def test_a_data_set_without_a_file_is_an_error_that_lists_those_with_one(shipped, dataset):
    with pytest.raises(
        ValueError, match=rf"class_text: sentences: .* '{dataset}' \(it has hmdb51, kin.*\): name a file"
    ):
        class_texts("sentences", NAMES, dataset)


def test_sentences_are_those_of_the_data_set_s_file(described, shipped):
    described.rename(shipped / "hmdb51.yaml")
    assert class_texts("sentences", NAMES, "hmdb51_split1") == [SENTENCES[name] for name in NAMES]


def test_a_class_that_the_file_does_not_describe_is_named(described):
    with pytest.raises(ValueError, match=r"mine\.yaml: .*'zumba'"):
        class_texts(str(described), [*NAMES, "zumba"], "any")


@pytest.fixture
def config_of(tiny_clip, described, tmp_path):
    """Of a system, with sentences in two templates' place."""
    torch.save(tiny_clip.state_dict(), tmp_path / "tiny.pt")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"network": {"arch": "tiny.pt", "class_text": str(described)}}))

    def config_of(system, *overrides):
        config = load_config(path, [f"network.system={system}", "network.templates=a video of {}", *overrides])
        check_network(config)
        return config

    return config_of


@pytest.mark.parametrize("fix_text", [True, False], ids=["frozen", "live"])
@pytest.mark.parametrize("system", ["clip", "mote", "text4vis", "vificlip"])
@torch.no_grad()
def test_every_system_compares_with_sentences_in_the_templates(tiny_clip, config_of, system, fix_text):
    classes = build_classes(config_of(system, f"network.fix_text={fix_text}"), tiny_clip, NAMES)
    expected = template_classes(tiny_clip, [SENTENCES[name] for name in NAMES], "a video of {}")
    assert torch.equal(classes.encode(tiny_clip), expected.encode(tiny_clip))
    assert classes.fingerprint == expected.fingerprint
    bare = template_classes(tiny_clip, NAMES, "a video of {}")
    assert bare.fingerprint != expected.fingerprint
    assert not torch.allclose(bare.encode(tiny_clip), expected.encode(tiny_clip))


def test_a_value_that_is_none_of_them_is_an_error(config_of):
    with pytest.raises(ValueError, match=r"class_text: expected names, sentences or a \.yaml file .* found 'sentance'"):
        config_of("clip", "network.class_text=sentance")


def test_classes_that_are_no_texts_take_none(config_of):
    with pytest.raises(ValueError, match=r"class_text .* text4vis.classifier has none: set it to names"):
        config_of("text4vis", "text4vis.classifier=random")


def test_a_system_of_descriptors_takes_none(config_of):
    match = r"class_text .* network\.system ost, whose classes are descriptors, has none: set it to names"
    with pytest.raises(ValueError, match=match):
        config_of("ost", "solver.loss_type=contrast")
