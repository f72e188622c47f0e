"""Class names as users type and store them."""

from pathlib import Path

import pytest

from datasets.labels import read_labels

NAMES = ["jouer à la pétanque", "eating, slowly", "running"]
TABLE = 'name,id\nrunning,2\n"eating, slowly",1\njouer à la pétanque,0\n'


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("running", ["running"]),
        ("juggling,  riding a bike ", ["juggling", "riding a bike"]),
        ('"eating, slowly", running', ["eating, slowly", "running"]),
        ("a\nb, c", ["a b", "c"]),
    ],
)
def test_text_is_split_at_commas_outside_quotes(text, names):
    assert read_labels(text) == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_of_any_encoding_is_read_in_the_order_of_ids(encoding, tmp_path):
    (tmp_path / "labels.csv").write_bytes(TABLE.encode(encoding))
    assert read_labels(tmp_path / "labels.csv") == NAMES


def test_spreadsheets_may_separate_by_semicolons_or_tabs(tmp_path):
    for mark in ";\t":
        path = tmp_path / "labels.csv"
        path.write_text(f"Id{mark}Name{mark}note\r\n1{mark}b, c{mark}x\r\n0{mark}a{mark}y\r\n")
        assert read_labels(str(path)) == ["a", "b, c"]


def test_a_text_file_has_one_name_a_line_commas_included(tmp_path):
    (tmp_path / "names.txt").write_text("eating, slowly\n\n running \n")
    assert read_labels(str(tmp_path / "names.txt")) == ["eating, slowly", "running"]


def test_text_that_is_not_utf8_is_mentioned(tmp_path, caplog):
    (tmp_path / "names.txt").write_bytes("pétanque\n".encode("cp1252"))
    assert read_labels(tmp_path / "names.txt") == ["pétanque"]
    assert "is not UTF-8; read as cp1252" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "no class names"),
        ([], "no class names"),
        ("a,,b", "class name 2 is empty"),
        (["a", " "], "class name 2 is empty"),
        ("a,b,A", "class names 1 and 3 are the same"),
    ],
)
def test_names_that_make_no_sense_are_errors(labels, message):
    with pytest.raises(ValueError, match=message):
        read_labels(labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no class names"),
        (b"label,count\na,3\n", "expected a column 'name'"),
        (b"id,name\nx,a\n", "labels.csv:2: expected a number as id"),
        (b"name\na\na\n", "class names 1 and 2 are the same"),
        (b"\x00\x81\x8d\xff\n", "not text"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(content, message, tmp_path):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_labels(tmp_path / "labels.csv")
    assert "labels.csv" in str(error.value)


@pytest.mark.parametrize("labels", ["gone.csv", Path("gone"), "gone.TXT"])
def test_a_file_that_is_not_there_is_not_taken_for_a_class(labels):
    with pytest.raises(FileNotFoundError, match="gone"):
        read_labels(labels)
