"""Which files count as videos, and by which names they are found."""

import os
from pathlib import Path

import pytest

from datasets.lists.video_files import VideoFiles, bare_name, class_key


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_videos_of_any_suffix_and_depth_are_found_in_path_order(tmp_path):
    touch(
        tmp_path, "b.MP4", "a/c.mkv", "a/b/d.WebM", "a/notes.txt", "a/noext", ".hidden/e.mp4", "a/._f.mp4", "g.mp4.part"
    )
    assert VideoFiles(tmp_path).paths == ["a/b/d.WebM", "a/c.mkv", "b.MP4"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.mp4", "b"), ("b.AVI", "b"), ("ID_000001_000011.mp4.mkv", "ID_000001_000011"), ("a.b.c.avi", "a.b.c"),
     ("a.mp4/b", "b"), (".mp4", ".mp4")],
)  # fmt: skip
def test_a_bare_name_has_no_folder_and_no_video_suffix(path, name):
    assert bare_name(path) == name


def test_a_name_is_found_wherever_it_lies_and_is_case_sensitive(tmp_path):
    files = VideoFiles(touch(tmp_path, "x/ab.mp4", "y/ab.webm", "y/AB.mp4", "yy/ab.mp4"))
    assert files.find("ab") == ["x/ab.mp4", "y/ab.webm", "yy/ab.mp4"]
    assert files.find("ab", folder="y") == ["y/ab.webm"]
    assert files.find("missing") == []


def test_a_name_can_be_asked_for_in_its_class_folder(tmp_path):
    files = VideoFiles(touch(tmp_path, "part 1/Brush_Hair/v.avi", "part 1/eat/v.avi", "v.avi"))
    assert files.find("brush hair/v") == ["part 1/Brush_Hair/v.avi"]


def test_spellings_of_a_class_share_a_key_and_other_classes_do_not():
    assert class_key("Apply_Eye_Makeup") == class_key("ApplyEyeMakeup") == class_key("apply eye makeup")
    assert class_key("massaging_person's_head") == class_key("massaging person_s head")
    assert class_key("passing American football (in game)") != class_key("passing american football (not in game)")


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    real = touch(tmp_path / "disk", "a/v.mp4", "a/w.mp4")
    root = touch(tmp_path / "data", "b/x.mp4")
    (root / "linked").symlink_to(real, target_is_directory=True)
    (root / "b" / "above").symlink_to(root, target_is_directory=True)
    assert VideoFiles(root).paths == ["b/x.mp4", "linked/a/v.mp4", "linked/a/w.mp4"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        VideoFiles(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.mp4").touch()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert VideoFiles(tmp_path).paths == ["a.mp4"]
    assert f"{tmp_path / 'closed'} cannot be read (Permission denied): videos in it are left out" in caplog.text
