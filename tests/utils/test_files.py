"""Files appear whole or not at all."""

import errno
import os

import pytest

from utils.files import remove_parts, whole_file, write_text


def test_a_file_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "Zürich\n")
    with pytest.raises(ZeroDivisionError), whole_file(path) as part:
        part.write_bytes(bytes(10)) and 1 / 0
    assert path.read_bytes() == "Zürich\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    write_text(tmp_path / ("ü" * 127), "x")
    assert len(os.listdir(tmp_path)) == 1


def test_two_files_can_be_written_at_once(tmp_path):
    with whole_file(tmp_path / "a") as first, whole_file(tmp_path / "b") as second:
        first.write_text("a")
        second.write_text("b")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"No space left on device: '.*a.txt'"), whole_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "folder" / ".17.part").mkdir(parents=True)
    for name in (".1.part", "folder/.2.part", "folder/.17.part/x.npy", "video.mp4.part", ".hidden"):
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"folder", "video.mp4.part", ".hidden"}
