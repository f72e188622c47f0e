"""Halving classes: which half, and that labels, lists and names stay together."""

import numpy as np
import pytest

from datasets.lists.labels import read_class_names
from datasets.lists.records import read_video_list
from tools.base_novel import frequent_half, main

LABELS = 'id,name,folder\n0,eating,eat\n1,"run, fast",run\n2,swimming,swim\n3,waving,wave\n4,yawning,yawn\n'


@pytest.fixture
def lists(tmp_path):
    """Arguments of the tool: five classes, of which 1, 2 and 4 are the frequent ones."""
    (tmp_path / "labels.csv").write_text(LABELS)
    counts = {0: 2, 1: 5, 2: 4, 3: 1, 4: 9}
    (tmp_path / "train.txt").write_text("".join(f"t {c} {i}.mp4 {c}\n" for c, n in counts.items() for i in range(n)))
    (tmp_path / "val.txt").write_text("".join(f"v {c}.mp4 {c}\n" for c in (4, 3, 2, 1, 0)))
    files = [f"--{name}={tmp_path / file}" for name, file in
             (("labels", "labels.csv"), ("train", "train.txt"), ("val", "val.txt"), ("out", "halves"))]  # fmt: skip
    return tmp_path, files


def read(folder, name: str, num_classes: int) -> list[tuple[str, int]]:
    videos = read_video_list(folder / "halves" / name, "", "video", num_classes, key="val")
    return [(videos.path(i), int(videos.labels[i])) for i in range(len(videos))]


def test_the_frequent_half_is_base_and_labels_count_from_zero(lists):
    folder, arguments = lists
    main(arguments)
    assert read_class_names(folder / "halves" / "base_labels.csv") == ["run, fast", "swimming", "yawning"]
    assert read_class_names(folder / "halves" / "novel_labels.csv") == ["eating", "waving"]
    assert '0,"run, fast",run' in (folder / "halves" / "base_labels.csv").read_text()
    assert read(folder, "base_val.txt", 3) == [("v 4.mp4", 2), ("v 2.mp4", 1), ("v 1.mp4", 0)]
    assert read(folder, "novel_val.txt", 2) == [("v 3.mp4", 1), ("v 0.mp4", 0)]
    train = read(folder, "base_train.txt", 3)
    assert [label for _, label in train] == [0] * 5 + [1] * 4 + [2] * 9
    assert train[0] == ("t 1 0.mp4", 0)


def test_named_classes_are_base(lists):
    folder, arguments = lists
    (folder / "base.csv").write_text("id,name\n0,waving\n1,eating\n")
    main([*arguments, f"--base={folder / 'base.csv'}"])
    assert read_class_names(folder / "halves" / "base_labels.csv") == ["eating", "waving"]
    assert read_class_names(folder / "halves" / "novel_labels.csv") == ["run, fast", "swimming", "yawning"]


def test_an_unknown_base_class_is_named(lists):
    folder, arguments = lists
    (folder / "base.csv").write_text("id,name\n0,waving\n1,flying\n")
    with pytest.raises(ValueError, match=r"base\.csv: 1 names are not in the label file, the first is 'flying'"):
        main([*arguments, f"--base={folder / 'base.csv'}"])


def test_folders_of_frames_keep_their_lengths(lists):
    folder, arguments = lists
    (folder / "train.txt").write_text("".join(f"a {c} 30 {c}\n" for c in range(5)))
    (folder / "val.txt").write_text("".join(f"b {c} 4{c} {c}\n" for c in range(5)))
    main([*arguments, "--modality=RGB"])
    assert (folder / "halves" / "base_val.txt").read_text() == "b 2 42 0\nb 3 43 1\nb 4 44 2\n"


def test_equal_classes_halve_as_published_for_hmdb51(repo_root):
    names = read_class_names(repo_root / "lists" / "hmdb51" / "labels.csv")
    base = frequent_half(np.repeat(np.arange(51), 70), 51)
    published = read_class_names(repo_root / "lists" / "hmdb51" / "base_novel" / "base_labels.csv")
    assert [names[label] for label in base] == published
