"""Lists against what is on the disk: lists of another form, numbering of frames, templates, classes without a video."""

import dataclasses
import logging

import numpy as np
import pytest

from datasets.decode.readers import FrameFolderReader, UnreadableVideo
from datasets.lists.checks import check_numbering, check_template, log_missing_classes
from datasets.lists.records import read_video_list
from datasets.read import read_data
from utils.config import DataConfig


def read(root, text: str, modality: str):
    (root / "list.txt").write_text(text)
    return read_video_list(root / "list.txt", root, modality, 10, key="train")


def make_frames(folder, numbers, template: str = "img_{:05d}.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / template.format(number)).touch()
    return folder


@pytest.mark.parametrize(
    ("text", "modality", "message"),
    [
        ("clip\nclip 8 1\n", "video", r"list\.txt:1: expected 'path label'"),
        ("v.mp4 1\nclip 8 1\n", "video", r"list\.txt:2: .* found the folder 'clip' .* data\.modality=RGB"),
        ("named 1 2\n", "video", r"list\.txt:1: expected 'path label', found two numbers after 'named'"),
        ("v.mp4 1 2\n", "RGB", r"list\.txt:1: .* 'v.mp4' is a file; a list of video files .* data\.modality=video"),
        ("clip 8 0 1\n", "RGB", r"list\.txt:1: .* found three numbers after 'clip'"),
        ("v.mp4 0\nin\\v.mp4 1\n", "video", r"list\.txt:2: 'in\\\\v.mp4' is there as 'in/v.mp4'; write slashes"),
        ("in\\clip 8 1\n", "RGB", r"list\.txt:1: 'in\\\\clip' is there as 'in/clip'; write slashes"),
    ],
)
def test_a_list_of_another_form_is_refused_by_file_and_line(tmp_path, text, modality, message):
    make_frames(tmp_path / "clip", range(1, 9))
    make_frames(tmp_path / "in" / "clip", range(1, 9))
    for name in ("v.mp4", "named", "in/v.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text, modality)


def test_paths_that_end_in_a_number_and_are_there_are_paths(tmp_path):
    for name in ("clip 8", "v.mp4 1", "v.mp4", "back\\slash.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "clip").mkdir()
    videos = read(tmp_path, "clip 8 1\nv.mp4 1 2\nback\\slash.mp4 0\n", "video")
    assert [videos.path(index) for index in range(3)] == ["clip 8", "v.mp4 1", "back\\slash.mp4"]
    assert read(tmp_path, "nowhere 8 1\n", "video").path(0) == "nowhere 8"


def test_backslashes_of_paths_that_are_not_there_are_mentioned(tmp_path, caplog):
    read(tmp_path, "a.mp4 0\nC:\\videos\\v.mp4 0\nC:\\videos\\w.mp4 0\n", "video")
    (record,) = caplog.records
    assert "list.txt:2" in record.getMessage()
    assert "slash" in record.getMessage()


# --- frames


@pytest.mark.parametrize(
    "template", ["img_{:05d}.jpg", "{}.jpg", "{:d}.png", "{0:06d}.jpg", "frames/{:5d}.jpg", "{{x}}_{:05}.jpg"]
)
def test_templates_with_one_number_are_accepted(template):
    check_template(template)


@pytest.mark.parametrize(
    "template",
    ["img_{x}.jpg", "img_{}_{}.jpg", "{0.foo}", "{0[1]}", "img_{", "img_}", "img.jpg", "img_%05d.jpg", "{1:05d}", "",
     "{:0999999999d}.jpg", "{:{}d}.jpg", "{!r}.jpg", "{:f}.jpg", "{:x}.jpg", "{:,}.jpg", "../{:05d}.jpg", "/{:05d}.jpg",
     "a/../../{:05d}.jpg", "{:05d}\0.jpg", "{:05d}\n.jpg", "x" * 5000 + "{:05d}.jpg"],
)  # fmt: skip
def test_other_templates_are_one_line_that_names_the_key(template):
    with pytest.raises(ValueError, match=r"^data\.image_tmpl: expected a name with a number like .*, found '") as error:
        check_template(template)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("numbers", "first", "hint"),
    [(range(1, 9), 1, 1), (range(8), 0, 0), (range(9), 1, 1), (range(8), 1, 0), (range(1, 9), 0, 1), (range(4), 1, 1)],
)
def test_frames_numbered_from_elsewhere_are_a_hint_at_index_bias(tmp_path, numbers, first, hint):
    folders = {str(make_frames(tmp_path / name, numbers)): 8 for name in "ab"} | {str(tmp_path / "gone"): 8}
    if first == hint:
        check_numbering("list.txt", folders, "img_{:05d}.jpg", first)
        return
    with pytest.raises(
        ValueError, match=rf"list\.txt: .*/a' are numbered from {hint}, not .*: data\.index_bias={hint}"
    ):
        check_numbering("list.txt", folders, "img_{:05d}.jpg", first)


def test_one_folder_that_is_numbered_otherwise_is_a_warning(tmp_path, caplog):
    folders = {str(make_frames(tmp_path / "a", range(8))): 8, str(make_frames(tmp_path / "b", range(1, 9))): 8}
    check_numbering("list.txt", folders, "img_{:05d}.jpg", 1)
    (record,) = caplog.records
    assert "data.index_bias=0?" in record.getMessage()


def test_a_list_of_frames_numbered_from_zero_is_found_before_the_first_batch(tmp_path):
    make_frames(tmp_path / "x", range(3))
    (tmp_path / "list.txt").write_text("x 3 0\n")
    (tmp_path / "labels.csv").write_text("id,name\n0,a\n")
    config = DataConfig(
        modality="RGB", val_root=str(tmp_path), val_list=f"{tmp_path}/list.txt", label_list=f"{tmp_path}/labels.csv"
    )
    with pytest.raises(ValueError, match=r"data\.index_bias=0"):
        read_data(config, ("val",))
    read_data(dataclasses.replace(config, index_bias=0), ("val",))


@pytest.mark.parametrize(("numbers", "first", "index"), [(range(8), 1, 7), (range(1, 9), 0, 0)])
def test_the_error_of_a_missing_frame_hints_at_index_bias(tmp_path, numbers, first, index):
    reader = FrameFolderReader(make_frames(tmp_path / "x", numbers), 8, "img_{:05d}.jpg", first)
    with pytest.raises(UnreadableVideo, match=r"no such file \(img_0000[08]\.jpg is there: is data\.index_bias right"):
        reader.read(np.array([index]))


# --- classes


def config_of(folder, labels: list[int]) -> DataConfig:
    (folder / "labels.csv").write_text("id,name\n" + "".join(f"{i},class {i}\n" for i in range(5)))
    for part in ("train", "val"):
        (folder / f"{part}.txt").write_text("".join(f"{i}.mp4 {label}\n" for i, label in enumerate(labels)))
    return DataConfig(train_list=f"{folder}/train.txt", val_list=f"{folder}/val.txt", label_list=f"{folder}/labels.csv")


def test_training_without_a_class_is_a_warning_and_testing_is_not(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read_data(config_of(tmp_path, [0, 1, 3]), ("train", "val"))
    train, val = caplog.records
    assert (train.levelname, val.levelname) == ("WARNING", "INFO")
    assert train.getMessage().endswith("train.txt: no video of 2 of 5 classes: 2 'class 2', 4 'class 4'")


def test_labels_that_start_at_one_are_mentioned(tmp_path, caplog):
    log_missing_classes("train.txt", np.array([1, 2, 3, 4]), [f"class {i}" for i in range(5)], logging.WARNING)
    assert "0 'class 0'; its labels start at 1, those of classes at 0" in caplog.text
    with pytest.raises(ValueError, match=r"train\.txt:5: label 5 is outside the 5 classes .* are 1 to 5, count from 0"):
        read_data(config_of(tmp_path, [1, 2, 3, 4, 5]), ("train",))


def test_lists_of_all_classes_are_not_mentioned(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read_data(config_of(tmp_path, [4, 3, 2, 1, 0, 0]), ("train", "val"))
    assert not caplog.records
