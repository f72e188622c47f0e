"""Lists, label files and a checkpoint as users had them: read, or refused with the line and the reason."""

import pytest

from datasets.lists.labels import read_class_names, read_labels
from datasets.lists.records import read_video_list
from modules.formats.ours import read_checkpoint


@pytest.mark.parametrize("read", [read_class_names, read_labels])
def test_a_comma_in_a_name_without_quotes_is_not_cut_off(cases, read):
    with pytest.raises(ValueError, match=r"labels_unquoted_comma\.csv:2: expected 2 fields.*quotes"):
        read(cases / "labels_unquoted_comma.csv")


@pytest.mark.parametrize("read", [read_class_names, read_labels])
def test_one_name_for_two_classes_is_named_with_both_lines(cases, read):
    with pytest.raises(ValueError, match=r"labels_twice\.csv:3: .*'a cross moving left' is there twice, .*csv:2"):
        read(cases / "labels_twice.csv")


@pytest.mark.parametrize("read", [read_class_names, read_labels])
def test_a_spreadsheet_with_semicolons_is_read_by_every_command(cases, read, caplog):
    assert read(cases / "labels_semicolon.csv") == ["écrire", "courir"]
    assert "labels_semicolon.csv is not UTF-8; read as cp1252" in caplog.text


def test_a_comma_before_the_label_separates(cases):
    videos = read_video_list(cases / "list_comma_space.txt", "", "video", 2, key="val")
    assert [(videos.path(index), int(videos.labels[index])) for index in range(2)] == [("a/x.mp4", 0), ("a/y.mp4", 1)]


def test_a_label_that_only_looks_like_a_number_is_named(cases):
    with pytest.raises(ValueError, match=r"list_superscript\.txt:1: expected 'path label', found 'a/x\.mp4 ²'"):
        read_video_list(cases / "list_superscript.txt", "", "video", 4, key="val")


def test_a_checkpoint_with_a_numpy_number_says_which_and_what_to_do(cases):
    with pytest.raises(ValueError, match=r"numpy_scalar\.pt: .*numpy\.\S*scalar.*state_dict") as error:
        read_checkpoint(cases / "numpy_scalar.pt")
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
