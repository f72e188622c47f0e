"""Lists of videos and texts."""

import numpy as np
import pytest

from datasets.lists.captions import list_text, read_captions, read_choices, read_either


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "list.tsv"
        path.write_bytes(text.encode())
        return path

    return write


def test_captions_of_one_video_belong_together(write, tmp_path):
    path = write('a b.mp4\tone cat\nc.mp4\t "two"  dogs \n\nc.mp4\tthree\tbirds, flying\n')
    found = read_captions(path, tmp_path, "data.val_")
    assert [found.videos.path(index) for index in range(len(found.videos))] == ["a b.mp4", "c.mp4"]
    assert found.captions == ["one cat", ' "two"  dogs ', "three\tbirds, flying"]
    assert found.video_of_line.tolist() == [0, 1, 1]
    assert found.videos.root == str(tmp_path)


def test_a_video_may_be_called_like_a_column(write):
    found = read_captions(write("path.mp4\tcaption\nvideo\ta text\n"), "", "data.val_")
    assert found.captions == ["caption", "a text"]


def test_the_fingerprint_knows_texts_but_not_their_order(write):
    first = read_captions(write("a.mp4\tx\nb.mp4\ty\n"), "", "data.val_").fingerprint()
    assert read_captions(write("b.mp4\ty\na.mp4\tx\n"), "", "data.val_").fingerprint() == first
    assert read_captions(write("a.mp4\ty\nb.mp4\tx\n"), "", "data.val_").fingerprint() != first


def test_choices_may_differ_in_number(write):
    found = read_choices(write("a.mp4\t1\tcat\tdog\nb.mp4\t0\tcat\tdog\tbird\n"), "", "data.val_")
    assert found.texts == [("cat", "dog"), ("cat", "dog", "bird")]
    assert found.answers.tolist() == [1, 0]
    assert found.answers.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4\tx\nb.mp4 3\n", r":2: expected 'path TAB caption', found 'b.mp4 3'"),
        ("\tx\n", r":1: expected 'path TAB caption'"),
        ("a.mp4\tx\nb.mp4\t \n", r":2: the caption of 'b.mp4' is empty"),
        ("a.mp4\tx\nb.mp4\ty\na.mp4\tz\n", r":3: 'a.mp4' is in line 1, too"),
        ("\n \n", "the list is empty"),
        ("path\tcaption\na.mp4\tx\n", r":1: expected 'path TAB caption', found 'path\\tcaption' .*no header"),
        ("Video_ID\tSentence \na.mp4\tx\n", r":1: expected .* \(a list has no header\)"),
        ("a.mp4\tx\nb.mp4\t0\tcat\tdog\n", r":2: expected 'path TAB caption', found a line of --choices"),
        ("a.mp4\t3\nb.mp4\t12, 4\n", r"tsv: expected lines 'path TAB caption', found labels .*: '3'"),
        (f"{'a' * 5000}\tx\n", ":1: a path has at most 4096 bytes"),
    ],
)
def test_a_wrong_line_is_named(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_captions(write(text), "", "data.val_")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4\tcat\tdog\n", r":1: expected 'path TAB answer TAB option"),
        ("a.mp4\t0\tcat\n", r":1: expected 'path TAB answer .*', two options at least, found"),
        ("a.mp4\t-1\tcat\tdog\n", r":1: expected the number of the right option of 'a.mp4', from 0, found '-1'"),
        ("a.mp4\ttwo\tcat\tdog\n", r":1: expected the number of the right option of 'a.mp4', from 0, found 'two'"),
        ("a.mp4\t0\n", r":1: expected 'path TAB answer TAB option"),
        ("a.mp4\t0\tcat\tdog\nb.mp4\t2\tcat\tdog\n", r":2: answer '2' is none of the 2 options, which count from 0"),
        ("path\tanswer\toption\toption\na.mp4\t0\tcat\tdog\n", r":1: expected 'path TAB answer .*no header"),
        ("a.mp4\t0\tcat\t\n", r":1: option 1 of 'a.mp4' is empty"),
        (f"a.mp4\t{'9' * 5000}\tcat\tdog\n", r":1: answer '9+.* is none of"),
        ("a.mp4\t0\tcat\tdog\nb.mp4\t0\tcat\tdog\na.mp4\t0\tcat\tdog\n", r":3: 'a.mp4' is in line 1, too"),
    ],
)
def test_a_wrong_line_of_choices_is_named(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_choices(write(text), "", "data.val_")


def test_files_that_are_missing_are_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"data.val_list is not set: .*path TAB caption"):
        read_captions("", "", "data.val_")
    with pytest.raises(FileNotFoundError, match=r"data.train_list .*gone.tsv"):
        read_captions(tmp_path / "gone.tsv", "", "data.train_")
    with pytest.raises(FileNotFoundError, match=r"data.val_root .*gone"):
        read_captions(write("a.mp4\tx\n"), tmp_path / "gone", "data.val_")


def test_what_is_written_is_read_back(write):
    path = write(list_text([("a b.mp4", "1", "two\nlines", "a\ttab"), ("ü.mp4", "0", "one", "two")]))
    found = read_choices(path, "", "data.val_")
    assert found.texts == [("two lines", "a tab"), ("one", "two")]
    with pytest.raises(ValueError, match="does not fit into a line"):
        list_text([("a\tb.mp4", "x")])


def test_lists_of_either_kind_keep_their_lines(write):
    for text in ("a.mp4\tcat\na.mp4\tdog\nb.mp4\t2\tbirds\n", "a.mp4\t1\tcat\tdog\nb.mp4\t0\tcat\tdog\tbird\n"):
        found = read_either(write(text), "", "data.val_")
        assert [found.videos.path(index) for index in (0, 1)] == ["a.mp4", "b.mp4"]
        assert "".join("\t".join(line) + "\n" for line in found.lines()) == text
