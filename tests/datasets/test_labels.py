"""Class names as users type and store them."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.lists.labels import read_class_names, read_labels, write_class_names

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
        ("a,,b", "labels, name 2: an empty class name"),
        (["a", " "], "labels, name 2: an empty class name"),
        ("a,b,A", "labels, name 3: the class name 'A' is there twice, first at labels, name 1 as 'a'"),
        (["a", "b\nc"], "labels, name 2: expected a class name in one line of text"),
        ('"a, b', "labels: expected names with commas between"),
        ("x" * 200_000, "labels: expected names with commas between"),
    ],
)
def test_names_that_make_no_sense_are_errors(labels, message):
    with pytest.raises(ValueError, match=message):
        read_labels(labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"labels\.csv: no class names"),
        (b"name\n", r"labels\.csv: no class names"),
        (b"label,count\na,3\n", r"labels\.csv:1: expected a column 'name'"),
        (b"name\na\na\n", r"labels\.csv:3: the class name 'a' is there twice, first at .*labels\.csv:2"),
        (b"name\na\n\n\nb\n\nA\n", r"labels\.csv:7: the class name 'A' is there twice, first at .*:2 as 'a'"),
        (b"eating, slowly\n", r"labels\.csv:1: expected a column 'name'"),
        (b"running\neating, slowly\n", r"labels\.csv:2: expected 1 fields"),
        (b"\x00\x81\x8d\xff\n", "not text"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(content, message, tmp_path):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_labels(tmp_path / "labels.csv")
    assert "labels.csv" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 walk\n1 run\n", r"names\.txt:1: the lines are numbered"),
        ("\n1,walk\n2,run\n", r"names\.txt:2: the lines are numbered"),
        ("walk 0\nrun 1\n", r"names\.txt:1: the lines are numbered"),
        ("walk\nru\tn\n", r"names\.txt:2: expected a class name in one line"),
        ("walk\rrun\rWalk", r"names\.txt:3: the class name 'Walk' is there twice"),
        ("walk\nr\u2028n", r"names\.txt:2: expected a class name in one line"),
        ("walk\nr\ufffdn", r"names\.txt:2: expected a class name in one line"),
        ("walk\nr\0n", r"names\.txt:2: not text, it holds a zero byte"),
        ("walk\n" + "x" * 2000, r"names\.txt:2: a class name of 2000 characters, 1000 at most"),
    ],
)
def test_a_list_of_names_that_makes_no_sense_is_named_with_the_line(text, message, tmp_path):
    (tmp_path / "names.txt").write_bytes(text.encode())
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path / "names.txt")


def test_names_that_begin_with_a_number_or_stand_in_quotes_are_names(tmp_path):
    (tmp_path / "names.txt").write_text('3 points\n2 people, running\n"eating, slowly"\n')
    assert read_labels(tmp_path / "names.txt") == ["3 points", "2 people, running", "eating, slowly"]


def test_a_file_of_another_kind_is_not_taken_for_names(tmp_path):
    (tmp_path / "labels.json").write_text('["a",\n "b"]')
    with pytest.raises(ValueError, match=r"labels\.json: expected a table or one name a line"):
        read_labels(tmp_path / "labels.json")


# --- tables: one reader for data.label_list and --labels

NAMES_OF_TABLE = ["écrire", "a cross, moving left"]


@pytest.mark.parametrize(
    "content",
    [
        'id,name\n0,écrire\n1,"a cross, moving left"\n'.encode(),
        'id;name\n0;écrire\n1;a cross, moving left\n'.encode(),
        'id\tname\n0\técrire\n1\ta cross, moving left\n'.encode(),
        ' ID ; Name \n 0 ; écrire \n 1 ; a cross,  moving left\n'.encode(),
        '"id", "name"\n0, "écrire"\n1, "a cross, moving left"\n'.encode(),
        'sep=;\nid;name\n0;écrire\n1;a cross, moving left\n'.encode(),
        '\n\nname;note;id\n\n"a cross, moving left";"two\nlines";1\n\nécrire;;0\n'.encode(),
        'id;name\r\n0;écrire\r\n1;a cross, moving left\r\n'.encode("utf-8-sig"),
        'id;name\r0;écrire\r1;a cross, moving left\r'.encode("cp1252"),
        'id;name\n0;écrire\n1;a cross, moving left\n'.encode("utf-16"),
        b"\xfe\xff" + 'id;name\n0;écrire\n1;a cross, moving left\n'.encode("utf-16-be"),
        'id;name\n0;écrire\n1;a cross, moving left\n'.encode("utf-16-le"),
        'id;name\n0;écrire\n1;a cross, moving left\n'.encode("utf-16-be"),
        'id;name\n0;écrire\n1;a cross, moving left\n'.encode("utf-32"),
        'id,name\n01,"a cross, moving left"\n00,écrire\n'.encode(),
    ],
)  # fmt: skip
def test_tables_as_people_and_spreadsheets_write_them_read_alike(content, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    assert read_class_names(path) == read_labels(path) == NAMES_OF_TABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,name\n0,a cross, moving left\n1,b\n", r":2: expected 2 fields \(id,name\), found 3"),
        ("id,name,folder\n0,a,x\n1,b\n", r":3: expected 3 fields \(id,name,folder\), found 2"),
        ("id,name\n0,a\n1,a\n2,b\n", r":3: the class name 'a' is there twice, first at .*:2"),
        ("id,name\n0,Run\n1,walk\n2,run\n", r":4: the class name 'run' is there twice, first at .*:2 as 'Run'"),
        ("id,name\n0,a b\n1,a  b\n", r":3: the class name 'a  b' is there twice"),
        ("id,name\n0,caf\u00e9\n1,cafe\u0301\n", r":3: the class name .* is there twice"),
        ("id,name\n0,run\n1,ru\u200bn\n", r":3: the class name .* is there twice"),
        ("id,name\n1,b\n\n0,a\n2,B\n", r":5: the class name 'B' is there twice, first at .*:2"),
        ('id,name\n0,"a\nb"\n1,c\n', r":2: expected a class name in one line of text, found 'a\\nb'"),
        ('id,name\n0,a\n1,"c\td"\n', r":3: expected a class name in one line"),
        ("id,name\n0,a\n1,c\x07d\n", r":3: expected a class name in one line"),
        ("id,name\n0,a\n1,c\u2028d\n", r":3: expected a class name in one line"),
        ("id,name\n0,a\n1,c\0d\n", r":3: not text, it holds a zero byte"),
        ("id,name\n0,a\n1,\n", r":3: an empty class name"),
        ("id,name\n0,a\n,\n", r":3: expected a whole number"),
        ("id,name\n0," + "x" * 200_000 + "\n", r":2: not a row of a table: field larger than field limit"),
        ('id,name\n0,a\n1,"b\n2,c\n', r":3: not a row of a table: unexpected end of data"),
        ('id,name,note\n0,a,"two\nlines"\n\n1,b,x,y\n', r":5: expected 3 fields"),
        ('id,name,note\r0,a,"two\rlines"\r\r1,b,x,y\r', r":5: expected 3 fields"),
        ('id,name\n0,"a" b\n', r":2: not a row of a table"),
        ("id,name\n0,a\n²,b\n", r":3: expected a whole number 0, 1, 2, ... as id, found '²'"),
        ("id,name\n0,a\n٣,b\n", r":3: expected a whole number"),
        ("id,name\n" + "9" * 5000 + ",a\n", r":2: expected a whole number .* \(5002 characters\)"),
        ("id,name\n0,a\n-1,b\n", r":3: expected a whole number"),
        ("id,name\n0.0,a\n1.0,b\n", r":2: expected a whole number .* found '0\.0'"),
        ("id,name\n0,a\n\n0,b\n", r":4: the id 0 is there twice, first in line 2"),
        ("id,name\n0,a\n2,b\n", r":3: ids must be 0 to 1, each once, found 2$"),
        ("id,name\n1,a\n2,b\n", r":3: ids must be 0 to 1, each once, found 2; they start at 1, count from 0"),
        ("id,name,id\n0,a,1\n", r":1: the column id is there twice"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_by_file_and_line_everywhere(content, message, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(content.encode())
    for read in (read_class_names, read_labels):
        with pytest.raises(ValueError, match=r"labels\.csv" + message) as error:
            read(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbfid,name\n0,\xe9\n", r":2: not text in UTF-8"),
        ("id,name\n0,é\n1,".encode() + b"\xe9\n", r":3: not text in UTF-8"),
        (b"id,name\n0,a\n1,\x81\n", r":3: not text in UTF-8, UTF-16 or cp1252"),
        ("id,name\n0,a\n".encode("utf-16")[:-1], r":1: not text in UTF-16"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_file_and_line(content, message, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    for read in (read_class_names, read_labels):
        with pytest.raises(ValueError, match=r"labels\.csv" + message):
            read(path)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=9)


@given(words=st.lists(WORDS, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_written_class_names_read_back(words, tmp_path):
    names = [f"{word} {number}".replace("\ufffd", "").strip() for number, word in enumerate(words)]
    names = [" ".join(name.split()) for name in names]
    write_class_names(tmp_path / "labels.csv", names, words)
    assert read_class_names(tmp_path / "labels.csv") == read_labels(tmp_path / "labels.csv") == names


@pytest.mark.parametrize("labels", ["gone.csv", Path("gone"), "gone.TXT", "gone.json"])
def test_a_file_that_is_not_there_is_not_taken_for_a_class(labels):
    with pytest.raises(FileNotFoundError, match="gone"):
        read_labels(labels)
