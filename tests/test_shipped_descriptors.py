"""The files of descriptors that come with the code are whole, and the page about them is up to date."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from clip.tokenizer import tokenize
from datasets.lists.labels import read_class_names
from datasets.shapes.world import LABEL_SETS, classes_of
from modules.classes.descriptor_files import SETS, fingerprint, read_descriptors, read_entries, sentences_of
from modules.classes.descriptors import filled
from modules.classes.templates import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
SPLITS = [f"kinetics600/zero_shot_split{number}" for number in (1, 2, 3)]
# File of descriptors -> folders of lists/ whose classes it describes, and their number.
LABELS = {
    "hmdb51": (["hmdb51"], 51),
    "ucf101": (["ucf101"], 101),
    "kinetics400": (["kinetics400"], 400),
    "kinetics600_zero_shot": (SPLITS, 217),
    "something_v2": (["something_v2"], 174),
}
NUM = 4


def path_of(name: str) -> Path:
    return ROOT / "descriptors" / f"{name}.yaml"


def names_of(folder: str) -> list[str]:
    return read_class_names(ROOT / "lists" / folder / "labels.csv")


def described(name: str) -> dict[str, dict]:
    return yaml.safe_load(path_of(name).read_text(encoding="utf-8"))["classes"]


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def test_every_file_is_tested():
    assert {path.stem for path in (ROOT / "descriptors").glob("*.yaml")} == set(LABELS)


@pytest.mark.parametrize("name", LABELS)
def test_a_file_describes_the_classes_of_its_label_files_and_no_others(name):
    folders, count = LABELS[name]
    wanted = {label for folder in folders for label in names_of(folder)}
    assert set(described(name)) == wanted
    assert len(wanted) == count


@pytest.mark.parametrize("name", LABELS)
def test_every_class_has_four_things_four_steps_and_a_sentence(name, caplog):
    classes = list(described(name))
    phrases = read_descriptors(path_of(name), classes, NUM)
    sentences = sentences_of(path_of(name), classes)
    assert (len(phrases), len(phrases[0]), len(sentences)) == (len(SETS), len(classes), len(classes))
    assert caplog.text == ""  # nothing repeats in another class
    assert [text for text in sentences if not re.fullmatch(r"[A-Z][^.]*\.", text)] == []
    assert [
        text for part in phrases for some in part for text in some if text[-1] in ".,;" or text != text.strip()
    ] == []


@pytest.mark.parametrize("name", LABELS)
def test_no_phrase_repeats_within_a_file_or_is_just_the_name(name):
    texts = [
        plain(text)
        for label, entry in described(name).items()
        for text in (label, *entry["static"], *entry["steps"], entry["sentence"])
    ]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


@pytest.mark.parametrize("name", LABELS)
def test_every_text_fits_into_clip(name):
    classes = list(described(name))
    for part in filled(read_descriptors(path_of(name), classes, NUM), classes):
        for texts in part:
            tokenize(texts)  # an error where one does not
    longest = max((template for some in TEMPLATES.values() for template in some), key=len)
    tokenize([longest.format(sentence) for sentence in sentences_of(path_of(name), classes)])


@pytest.mark.parametrize("name", LABELS)
def test_the_page_has_the_fingerprints_of_now(name):
    page = (ROOT / "descriptors" / "README.md").read_text(encoding="utf-8")
    for folder in LABELS[name][0]:
        assert row_of(name, folder) in page


def row_of(name: str, folder: str) -> str:
    """A row of the table in descriptors/README.md."""
    classes = names_of(folder)
    texts = filled(read_descriptors(path_of(name), classes, NUM), classes)
    sentences = sentences_of(path_of(name), classes)
    return (
        f"| `{name}.yaml` | `lists/{folder}/labels.csv` | {len(classes)} | `{fingerprint(texts)}` | "
        f"`{fingerprint(sentences)}` |"
    )


def test_the_built_in_world_is_described_whole_and_no_text_fits_two_classes(caplog):
    path = ROOT / "configs" / "demo" / "descriptors.yaml"
    wanted = sorted({shape_class.name for label_set in LABEL_SETS for shape_class in classes_of(label_set)})
    assert sorted(read_entries(path)) == wanted
    phrases = read_descriptors(path, wanted, NUM)
    sentences = sentences_of(path, wanted)
    assert caplog.text == ""  # nothing repeats in another class
    texts = [plain(text) for part in phrases for some in part for text in some] + list(map(plain, sentences))
    assert len({*texts, *map(plain, wanted)}) == len(wanted) * (2 * NUM + 2)
    tokenize([text for part in filled(phrases, wanted) for some in part for text in some])
    tokenize([template.format(text) for template in TEMPLATES["mote28"] for text in sentences])
