"""Lists with several labels a video: told apart from paths that end in a number, held, written and read again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.check.__main__ import main as check
from datasets.features.cache import FeatureCache
from datasets.features.writer import FeatureWriter
from datasets.lists.few_shot import few_shot_indices
from datasets.lists.label_sets import NO_LABEL, LabelSets
from datasets.lists.records import VideoList, read_video_list, write_video_list


def read(folder: Path, text: str, modality: str = "video", num_classes: int = 20) -> VideoList:
    (folder / "list.txt").write_text(text)
    return read_video_list(folder / "list.txt", folder, modality, num_classes, key="val")


def rows(videos: VideoList) -> list[tuple[str, list[int]]]:
    return [(videos.path(index), videos.labels_of(index)) for index in range(len(videos))]


@pytest.mark.parametrize(
    ("line", "path", "labels"),
    [
        ("a.mp4 1,5", "a.mp4", [1, 5]),
        ("a.mp4\t17,3,0", "a.mp4", [0, 3, 17]),
        ("  riding a bike/v 1.MKV  1,05  ", "riding a bike/v 1.MKV", [1, 5]),
        ("a,b 2.mp4 1,5", "a,b 2.mp4", [1, 5]),
        ('"a b.mp4" 1,5', "a b.mp4", [1, 5]),
        ('"no suffix" 1,5', "no suffix", [1, 5]),
        ('"season 2" 1,5', "season 2", [1, 5]),
        ("/absolute/a.mp4 1,5", "/absolute/a.mp4", [1, 5]),
    ],
)
def test_labels_with_commas_between_stand_after_a_blank(tmp_path, line, path, labels):
    videos = read(tmp_path, f"{line}\n")
    assert videos.has_label_sets
    assert rows(videos) == [(path, labels)]
    assert videos.labels.tolist() == [NO_LABEL]
    assert videos.num_frames is None


def test_one_video_with_several_labels_makes_a_list_of_label_sets(tmp_path):
    videos = read(tmp_path, "a.mp4 3\nb.mp4,4\nc.mp4 2,4\n")
    assert videos.has_label_sets
    assert rows(videos) == [("a.mp4", [3]), ("b.mp4", [4]), ("c.mp4", [2, 4])]
    assert videos.all_labels().tolist() == [3, 4, 2, 4]
    assert [np.flatnonzero(row).tolist() for row in videos.multi_hot(20)] == [[3], [4], [2, 4]]


def test_a_list_of_one_label_a_video_has_no_sets(tmp_path):
    videos = read(tmp_path, "a.mp4 3\nb.mp4,4\n")
    assert not videos.has_label_sets
    assert videos.targets is None
    assert videos.labels.tolist() == videos.all_labels().tolist() == [3, 4]
    assert [np.flatnonzero(row).tolist() for row in videos.multi_hot(20)] == [[3], [4]]


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        ((), "season 2,3\n", [("season 2", 3)]),
        (("season 2",), "season 2,3\n", [("season 2", 3)]),
        (("v.mp4 1", "v.mp4"), "v.mp4 1,3\n", [("v.mp4 1", 3)]),
        ((), "season 2, 3\nseason 3 , 4\n", [("season 2", 3), ("season 3", 4)]),
        (("v 1,5",), "v 1,5,7\n", [("v 1,5", 7)]),
        ((), '"a b, c.mp4",3\n"d 1" 3\n', [("a b, c.mp4", 3), ("d 1", 3)]),
    ],
)
def test_a_path_that_ends_in_a_number_before_a_comma_stays_one(tmp_path, files, text, expected):
    for name in files:
        (tmp_path / name).touch()
    videos = read(tmp_path, text)
    assert [(videos.path(index), int(videos.labels[index])) for index in range(len(videos))] == expected
    assert not videos.has_label_sets


def test_without_a_suffix_the_file_on_the_disk_tells(tmp_path):
    (tmp_path / "v2").touch()
    videos = read(tmp_path, "v1 3,4\nv2 5,6\nv3 7\n")
    assert rows(videos) == [("v1", [3, 4]), ("v2", [5, 6]), ("v3", [7])]


@pytest.mark.parametrize(
    ("folders", "text", "expected"),
    [
        (["clip"], "clip 12 3,4\nother 7 5\n", [("clip", 12, [3, 4]), ("other", 7, [5])]),
        ([], '"clip" 12 3,4\n', [("clip", 12, [3, 4])]),
        (["a b"], "a b,12 3,4,5\n", [("a b", 12, [3, 4, 5])]),
        (["clip 12"], "clip 12 3,4\n", [("clip 12", 3, [4])]),
        ([], "clip 12 3,4\n", [("clip 12", 3, [4])]),
        (["clip"], "clip 12,3\n", [("clip", 12, [3])]),
        (["clip"], "clip,12,3\n", [("clip", 12, [3])]),
    ],
)
def test_folders_of_frames_have_their_number_before_the_labels(tmp_path, folders, text, expected):
    for name in folders:
        (tmp_path / name).mkdir()
    videos = read(tmp_path, text, "RGB")
    assert [
        (path, int(n), labels) for (path, labels), n in zip(rows(videos), videos.num_frames, strict=True)
    ] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 1\nb.mp4 3,4,3\n", r"list\.txt:2: the label 3 is there twice in 'b\.mp4 3,4,3'"),
        ("a.mp4 7,07\n", r"list\.txt:1: the label 7 is there twice"),
        ("a.mp4 1\n\nb.mp4 3,20\n", r"list\.txt:3: label 20 is outside the 20 classes"),
        ("a.mp4 1,9999999999\n", r"list\.txt:1: expected 'path label'.*10 digits are no number"),
        ("a.mp4 1,2\nb.mp4\n", r"list\.txt:2: expected 'path label'"),
        ("a.mp4 1,2\nb.mp4 3,\n", r"list\.txt:2: expected 'path label'"),
        ("a.mp4 1,2\nb.mp4,3,4\n", r"list\.txt:2: .* found two numbers after 'b\.mp4'; .* 'path 3,17'"),
        ("a.mp4 1;2\n", r"list\.txt:1: .* found two numbers after 'a\.mp4'"),
        ("a.mp4, 1,2\n", r"list\.txt:1: "),
        ("path labels\na.mp4 1,2\n", r"list\.txt:1: .* \(a list has no header\)"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_labels_from_one_get_the_hint_that_they_count_from_zero(tmp_path):
    with pytest.raises(ValueError, match=r":2: label 3 is outside the 3 classes.*the labels are 1 to 3, count from 0"):
        read(tmp_path, "a.mp4 1,2\nb.mp4 2,3\n", num_classes=3)


NAMES = st.text(st.sampled_from("ab 7.,;\"'é") | st.characters(codec="utf-8", exclude_characters="\r\n\0/\\"),
                min_size=1, max_size=8).filter(lambda name: name.strip(".") != "")  # fmt: skip
SETS = st.lists(st.sets(st.integers(0, 19), min_size=1, max_size=4), min_size=4, max_size=4)


@given(names=st.lists(NAMES, min_size=1, max_size=4), sets=SETS, is_file=st.booleans(), suffix=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_written_list_of_label_sets_reads_back(names, sets, is_file, suffix, tmp_path):
    names = [f"{name}.mp4" if suffix else name for name in names]
    sets = [{0, 1}, *sets][: len(names)]  # a list without any video of several labels is one of single labels
    numbers = None if is_file else np.arange(len(names)) + 7
    paths = np.array([name.encode() for name in names])
    videos = VideoList("", paths, np.full(len(names), NO_LABEL), numbers, LabelSets.of(sets))
    write_video_list(tmp_path / "list.txt", videos)
    (tmp_path / "root").mkdir(exist_ok=True)
    modality = "video" if is_file else "RGB"
    again = read_video_list(tmp_path / "list.txt", tmp_path / "root", modality, 20, "train")
    assert rows(again) == [(name, sorted(each)) for name, each in zip(names, sets, strict=True)]
    assert again.fingerprint() == videos.fingerprint()
    assert is_file or again.num_frames.tolist() == numbers.tolist()


def sets_of(pairs: list[tuple[str, list[int]]]) -> VideoList:
    paths = np.array([path.encode() for path, _ in pairs])
    labels = np.full(len(pairs), NO_LABEL, dtype=np.int64)
    return VideoList("", paths, labels, None, LabelSets.of([labels for _, labels in pairs]))


def test_videos_are_taken_with_their_labels():
    taken = sets_of([("a", [1, 2]), ("b", [3]), ("c", [4, 5, 6])]).take(np.array([2, 0, 2]))
    assert rows(taken) == [("c", [4, 5, 6]), ("a", [1, 2]), ("c", [4, 5, 6])]
    assert len(taken.targets) == 3


def test_a_fingerprint_tells_label_sets_apart_but_not_their_order():
    pairs = [("a", [1, 2]), ("b", [3])]
    reference = sets_of(pairs).fingerprint()
    assert sets_of([("b", [3]), ("a", [2, 1])]).fingerprint() == reference
    assert sets_of(pairs[::-1]).order_fingerprint() != sets_of(pairs).order_fingerprint()
    for other in ([("a", [1, 3]), ("b", [3])], [("a", [1]), ("b", [2, 3])], [("a", [12]), ("b", [3])]):
        assert sets_of(other).fingerprint() != reference


def test_what_needs_one_label_says_so_and_shows_a_video_with_several():
    videos = sets_of([("a.mp4", [1]), ("b.mp4", [3, 4])])
    message = r"^data\.train_list: data\.shot expects one label a video, found 'b\.mp4' with the labels 3,4$"
    with pytest.raises(ValueError, match=message):
        few_shot_indices(videos, 1, 0, ["x"] * 5)


def test_the_checker_counts_every_label_and_writes_label_sets(write_video, tmp_path, capsys):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 0,2\nmissing.mp4 1,2\na.mp4 1\n")
    arguments = ["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "1", "--frames", "sample"]
    assert check([str(tmp_path / "list.txt"), *arguments]) == 1
    assert (tmp_path / "out" / "list_clean.txt").read_text() == "a.mp4 0,2\na.mp4 1\n"
    text = capsys.readouterr().out
    for row in ("| 0 | 1 | 0 |", "| 1 | 2 | 1 |", "| 2 | 2 | 1 |", "labels 0,2 and 1"):
        assert row in text


def test_a_feature_cache_of_label_sets_is_read_with_its_list(tmp_path):
    videos = sets_of([("a.mp4", [1, 2]), ("b.mp4", [0])])
    metadata = {"shape": [2, 1, 2, 4], "augmented": False, "modality": "video", "decoder": "pyav", "num_crops": 1}
    writer = FeatureWriter(tmp_path, videos, metadata, chunk_size=2)
    for number in writer.begin():
        writer.write(number, np.ones((2, 1, 2, 4), np.float16), np.full((2, 1), NO_LABEL), {})
    writer.finish(np.ones((3, 4)))
    found, failures = FeatureCache.open(tmp_path, "val_root").rows(videos.take(np.array([1, 0])))
    assert found.tolist() == [1, 0]
    assert failures == {}
