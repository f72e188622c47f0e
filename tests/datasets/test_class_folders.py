"""One folder a class: names, the seeded split, given splits, and what is refused."""

import shutil
from collections import Counter

import pytest

from datasets.lists.class_folders import read_class_folders
from datasets.lists.labels import read_class_names, read_label_table
from datasets.lists.records import read_video_list


def make_classes(root, **counts):
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"video {number}.mp4").touch()
    return root


def test_names_are_the_sorted_folders_with_spaces_for_underscores(tmp_path):
    split = read_class_folders(make_classes(tmp_path, riding_a_bike=3, Abseiling=3), 0.2)
    assert split.folders == ["Abseiling", "riding_a_bike"]
    assert split.class_names == ["Abseiling", "riding a bike"]


def test_every_video_is_in_one_part_and_classes_share_alike(tmp_path):
    split = read_class_folders(make_classes(tmp_path, a=10, b=20, c=3, d=2, e=1), 0.2)
    num_val = Counter(label for _, label in split.parts["val"])
    num_train = Counter(label for _, label in split.parts["train"])
    assert [num_val[label] for label in range(5)] == [2, 4, 1, 1, 0]
    assert [num_train[label] for label in range(5)] == [8, 16, 2, 1, 1]
    paths = [path for part in split.parts.values() for path, _ in part]
    assert len(paths) == len(set(paths)) == 36
    assert all(split.folders[label] == path.split("/")[0] for part in split.parts.values() for path, label in part)


def test_the_split_depends_on_the_seed_but_not_on_where_the_folder_lies(tmp_path):
    here = make_classes(tmp_path / "here", a=20, b=20)
    there = shutil.copytree(here, tmp_path / "over there" / "data")
    first = read_class_folders(here, 0.3, seed=0)
    assert read_class_folders(there, 0.3, seed=0).parts == first.parts
    assert read_class_folders(here, 0.3, seed=1).parts != first.parts
    assert read_class_folders(here, 0.3, seed=0).videos("val").fingerprint() == first.videos("val").fingerprint()


def test_a_new_class_does_not_move_the_videos_of_others(tmp_path):
    before = read_class_folders(make_classes(tmp_path, a=20, b=20), 0.3).parts["val"]
    after = read_class_folders(make_classes(tmp_path, c=20), 0.3).parts["val"]
    assert [pair for pair in after if pair[1] < 2] == before


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("train", "test"), ("training", "validation")])
def test_given_parts_are_the_split(tmp_path, train, val):
    make_classes(tmp_path / train, run=3, walk=2)
    make_classes(tmp_path / val, run=1, walk=1)
    make_classes(tmp_path / "other", hop=4)
    split = read_class_folders(tmp_path, 0.5)
    assert split.class_names == ["run", "walk"]
    assert [path for path, _ in split.parts["val"]] == [f"{val}/run/video 0.mp4", f"{val}/walk/video 0.mp4"]
    assert len(split.parts["train"]) == 5


def test_given_parts_with_other_classes_are_an_error(tmp_path):
    make_classes(tmp_path / "train", run=3, walk=2)
    make_classes(tmp_path / "val", run=1)
    with pytest.raises(ValueError, match=r"train and val must have videos of the same classes; .* walk"):
        read_class_folders(tmp_path, 0.5)


def test_classes_may_be_called_train_and_test(tmp_path):
    split = read_class_folders(make_classes(tmp_path, train=4, test=4, plane=4), 0.25)
    assert split.class_names == ["plane", "test", "train"]


def test_loose_videos_are_named_and_left_out(tmp_path, caplog):
    make_classes(tmp_path, a=2, b=2)
    (tmp_path / "loose.mp4").touch()
    (tmp_path / "notes").mkdir()
    split = read_class_folders(tmp_path, 0.5)
    assert split.folders == ["a", "b"]
    assert "1 videos are in no class folder and left out: loose.mp4" in caplog.text


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "two classes or more; found no video files"),
        ({"a": 3}, r"two classes or more; found a/video 0\.mp4"),
        ({"a": 1, "b": 1}, "none is left for validation"),
        ({"a_b": 2, "a b": 2}, r"folder 'a_b': the class name 'a b' is there twice, first at .* folder 'a b'$"),
        ({"Run": 2, "run": 2}, r"folder 'run': the class name 'run' is there twice, first at .* folder 'Run' as 'Run'"),
        ({"caf\u00e9": 2, "cafe\u0301": 2}, "is there twice, first at .* folder"),
        ({"two\nlines": 2, "b": 2}, r"two\\nlines': expected a class name in one line of text"),
        ({"_": 2, "b": 2}, "folder '_': an empty class name"),
    ],
)
def test_what_cannot_be_split_is_said(tmp_path, counts, message):
    with pytest.raises(ValueError, match=message):
        read_class_folders(make_classes(tmp_path, **counts), 0.5)


def test_written_lists_read_back_as_the_same_videos(tmp_path):
    split = read_class_folders(make_classes(tmp_path / "data", riding_a_bike=5, walk=5), 0.4)
    split.write(tmp_path / "out")
    assert read_class_names(tmp_path / "out" / "labels.csv") == ["riding a bike", "walk"]
    assert read_label_table(tmp_path / "out" / "labels.csv", "folder")[0] == ["riding_a_bike", "walk"]
    for part in ("train", "val"):
        written = read_video_list(tmp_path / "out" / f"{part}.txt", split.root, "video", 2, key=part)
        assert written.fingerprint() == split.videos(part).fingerprint()


def test_a_folder_that_changed_no_longer_fits_its_lists(tmp_path):
    root = make_classes(tmp_path / "data", a=5, b=5)
    split = read_class_folders(root, 0.4)
    split.check_written(tmp_path / "out")  # nothing there yet
    split.write(tmp_path / "out")
    split.check_written(tmp_path / "out")
    (root / "a" / "new.mp4").touch()
    with pytest.raises(ValueError, match=r"data\.folder .*no longer those of .*(train|val)\.txt"):
        read_class_folders(root, 0.4).check_written(tmp_path / "out")


def test_a_file_name_that_fits_no_line_is_an_error(tmp_path):
    root = make_classes(tmp_path / "data", a=2, b=2)
    (root / "a" / "two\nlines.mp4").touch()
    with pytest.raises(ValueError, match=r"'a/two\\nlines\.mp4' does not fit into a line"):
        read_class_folders(root, 0.4).write(tmp_path / "out")
