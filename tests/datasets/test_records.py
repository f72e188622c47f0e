"""Lists and label CSVs: what is accepted, and what the errors of the rest say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from datasets.lists.labels import read_class_names
from datasets.lists.records import VideoList, read_video_list, write_video_list

REPOSITORY = Path(__file__).parents[2]


def read_list(folder: Path, text: str | bytes, modality: str = "video", num_classes: int = 10) -> VideoList:
    path = folder / "my list.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_video_list(path, "", modality, num_classes, key="val")


def read_names(folder: Path, text: str | bytes, num_classes: int = 0) -> list[str]:
    path = folder / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_class_names(path, num_classes)


def rows(videos: VideoList) -> list[tuple[str, int]]:
    return [(videos.path(index), int(videos.labels[index])) for index in range(len(videos))]


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a.mp4 3", "a.mp4", 3),
        ("riding a bike/v 1.mp4 3", "riding a bike/v 1.mp4", 3),
        ("two  spaces.mp4 3", "two  spaces.mp4", 3),
        ("a.mp4  3", "a.mp4", 3),
        ("a.mp4\t3", "a.mp4", 3),
        ("a.mp4 3   ", "a.mp4", 3),
        ("a.mp4 3\t", "a.mp4", 3),
        ("season 2 4 3", "season 2 4", 3),
        ("ends in 7.mp4 07", "ends in 7.mp4", 7),
        ("tr\u00e4ume/\u6f22\u5b57.mp4 3", "tr\u00e4ume/\u6f22\u5b57.mp4", 3),
        ("/absolute/a.mp4 3", "/absolute/a.mp4", 3),
        ("a/x.mp4, 3", "a/x.mp4", 3),
        ("a/x.mp4,3", "a/x.mp4", 3),
        ("a/x.mp4 ; 3", "a/x.mp4", 3),
        ("a, b/x.mp4,3", "a, b/x.mp4", 3),
        ('"a b/x.mp4" 3', "a b/x.mp4", 3),
        ('"a, b.mp4",3', "a, b.mp4", 3),
        ('"ends in a comma," 3', "ends in a comma,", 3),
        ('"a ""b"".mp4"\t3', 'a "b".mp4', 3),
        ('"Hello" he said.mp4 3', '"Hello" he said.mp4', 3),
        ("a\u2028b\x85c.mp4 3", "a\u2028b\x85c.mp4", 3),
    ],
)
def test_a_video_line_is_a_path_and_the_last_number(tmp_path, line, path, label):
    videos = read_list(tmp_path, f"{line}\n")
    assert rows(videos) == [(path, label)]
    assert videos.num_frames is None


@pytest.mark.parametrize(
    ("line", "path", "num_frames", "label"),
    [
        ("a 12 3", "a", 12, 3),
        ("riding a bike/v 1 12 3", "riding a bike/v 1", 12, 3),
        ("a  b \t12  3 ", "a  b", 12, 3),
        ("a,12,3", "a", 12, 3),
        ('"a 7"; 12; 3', "a 7", 12, 3),
    ],
)
def test_a_frame_folder_line_is_a_path_and_the_last_two_numbers(tmp_path, line, path, num_frames, label):
    videos = read_list(tmp_path, line, modality="RGB")
    assert rows(videos) == [(path, label)]
    assert videos.num_frames.tolist() == [num_frames]


@pytest.mark.parametrize(
    "text",
    [
        b"a b.mp4 1\nc.mp4 2\n",
        b"a b.mp4 1\nc.mp4 2",
        b"a b.mp4 1\r\nc.mp4 2\r\n",
        b"\xef\xbb\xbfa b.mp4 1\nc.mp4 2\n",
        b"\n\na b.mp4 1\n  \n\t\nc.mp4 2\n\n",
        b"a b.mp4 1\rc.mp4 2\r",
        "a b.mp4 1\nc.mp4 2\n".encode("utf-16"),
        "a b.mp4 1\nc.mp4 2\n".encode("utf-16-be"),
    ],
    ids=["unix", "no last newline", "windows", "byte order mark", "blank lines", "old Mac", "UTF-16", "without mark"],
)
def test_files_of_any_editor_read_alike(tmp_path, text):
    assert rows(read_list(tmp_path, text)) == [("a b.mp4", 1), ("c.mp4", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "a.mp4",
        "a.mp4 x",
        "a.mp4 -1",
        "a.mp4 1.5",
        "7",
        "a.mp4,,1",
        "a.mp4 \u00b2",
        "a.mp4 \u0663",
        "a.mp4 1.0",
        "a.mp4 +1",
        "a.mp4\xa01",
        '"a.mp4","1"',
        ",1",
        "a.mp4;1;",
    ],
)
def test_a_line_that_is_no_path_and_label_names_file_and_line(tmp_path, line):
    with pytest.raises(ValueError, match=r"my list\.txt:3: expected 'path label', found") as error:
        read_list(tmp_path, f"good.mp4 1\n\n{line}\ngood.mp4 1\n")
    assert repr(line) in str(error.value)


@pytest.mark.parametrize(
    ("text", "modality", "message"),
    [
        ("a.mp4 1\r\r\rb.mp4 ²", "video", r":4: expected 'path label', found 'b\.mp4 ²'"),
        ("a.mp4 1\n\nb.mp4 " + "9" * 5000, "video", r":3: expected 'path label', .* \(5000 digits are no number"),
        ("path label\na.mp4 1", "video", r":1: expected 'path label', found 'path label' \(a list has no header\)"),
        ("path,label\na.mp4,1", "video", r":1: expected 'path label', .* \(a list has no header\)"),
        ("a 99999999999999999999 0", "RGB", r":1: expected 'folder num_frames label', .* \(20 digits are no number"),
        ("a.mp4 1", "RGB", r":1: expected 'folder num_frames label', found 'a.mp4 1'"),
        ("a.mp4 1\na.mp4 1 5", "video", r":2: expected 'path label', found two numbers after 'a.mp4'"),
        ("a.mp4,1,5", "video", r":1: expected 'path label', found two numbers after 'a.mp4'"),
        ("a.mp4 1, 5", "video", r":1: .* found two numbers after 'a.mp4'; several labels are written 'path 3,17'"),
        ("'a b.mp4' 1", "video", r":1: a path with a tab or quotes around it stands in double quotes"),
        ('"a "b".mp4" 1', "video", r":1: a path with a tab or quotes"),
        ("a\tb.mp4\t1", "video", r":1: a path with a tab or quotes"),
        ("x" * 5000 + " 1", "video", r":1: a path has at most 4096 bytes, found 'xxx.* \(5002 characters\)"),
        ("a.mp4 1\nb\0.mp4 1", "video", r":2: not text, it holds a zero byte"),
        (b"a.mp4 1\nb\xe9.mp4 1", "video", r":2: not text in UTF-8"),
        ("a.mp4 1\n\nb.mp4 4", "video", r":3: label 4 is outside the 4 classes .*; the labels are 1 to 4"),
        ("a.mp4 0\n\nb.mp4 4", "video", r":3: label 4 is outside the 4 classes of the label file$"),
    ],
)  # fmt: skip
def test_other_lines_are_refused_by_file_and_line(tmp_path, text, modality, message):
    with pytest.raises(ValueError, match=r"my list\.txt" + message) as error:
        read_list(tmp_path, text, modality, num_classes=4)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("line", ["a 3", "a x 3", "12 3", "a.mp4 -5 3"])
def test_a_line_that_is_no_frame_folder_names_file_and_line(tmp_path, line):
    with pytest.raises(ValueError, match=r"my list\.txt:2: expected 'folder num_frames label', found"):
        read_list(tmp_path, f"good 9 1\n{line}\n", modality="RGB")


def test_a_label_outside_the_classes_names_file_line_and_label(tmp_path):
    assert rows(read_list(tmp_path, "a.mp4 3", num_classes=4)) == [("a.mp4", 3)]
    with pytest.raises(ValueError, match=r"my list\.txt:2: label 4 is outside the 4 classes"):
        read_list(tmp_path, "a.mp4 3\nb.mp4 4\n", num_classes=4)


@pytest.mark.parametrize("text", ["", "\n \n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_an_error(tmp_path, text):
    with pytest.raises(ValueError, match=r"data\.val_list .*my list\.txt: the list is empty"):
        read_list(tmp_path, text)


def test_a_missing_list_or_root_names_the_key_and_the_path(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    with pytest.raises(FileNotFoundError, match=r"data\.train_list .*none\.txt"):
        read_video_list(tmp_path / "none.txt", tmp_path, "video", 4, key="train")
    with pytest.raises(FileNotFoundError, match=r"data\.train_root .*no videos"):
        read_video_list(tmp_path / "list.txt", tmp_path / "no videos", "video", 4, key="train")
    with pytest.raises(FileNotFoundError, match=r"data\.train_list"):
        read_video_list(tmp_path, tmp_path, "video", 4, key="train")


def test_a_list_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"my list\.txt"):
        read_list(tmp_path, "tr\u00e4ume.mp4 1\n".encode("latin-1"))


# --- label CSVs


@pytest.mark.parametrize(
    "text",
    [
        "id,name\n0,walk\n1,run\n",
        "id,name\n1,run\n0,walk\n",
        "id,name,folder\n0,walk,w\n1,run,r\n",
        "folder,name,id\nw,walk,0\nr,run,1\n",
        b"\xef\xbb\xbfid,name\r\n0,walk\r\n1,run\r\n",
        "id,name\n\n0,walk\n\n1,run\n\n",
        "id,name\n0, walk \n 1 ,run\n",
    ],
    ids=["plain", "any order", "more columns", "columns in any order", "windows", "blank lines", "padded"],
)
def test_class_names_come_by_id(tmp_path, text):
    assert read_names(tmp_path, text) == ["walk", "run"]


def test_quoted_names_may_hold_commas_and_quotes(tmp_path):
    text = 'id,name\n0,"cutting, chopping"\n1,"the ""wave"""\n'
    assert read_names(tmp_path, text) == ["cutting, chopping", 'the "wave"']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n0,a\n0,b\n", r"labels\.csv:3: the id 0 is there twice"),
        ("id,name\n0,a\n1,\n", r"labels\.csv:3: an empty class name"),
        ("id,name\n0,a\n1,  \n", r"labels\.csv:3"),
        ("id,name\n0,a\n1\n", r"labels\.csv:3"),
        ("id,name\nx,a\n", r"labels\.csv:2: .* as id, found 'x'"),
        ("id,name\n-1,a\n", r"labels\.csv:2"),
        ("id,name\n0,a\n2,b\n", r"labels\.csv:3: ids must be 0 to 1"),
        ("id,name\n1,a\n2,b\n", r"labels\.csv:3: ids must be 0 to 1"),
        ("id,name\n", r"labels\.csv"),
        ("", r"labels\.csv: expected the columns id,name"),
        ("label,name\n0,a\n", r"labels\.csv:1: expected the columns id,name, found 'label,name'"),
        ("0,a\n1,b\n", r"labels\.csv:1: expected the columns id,name, found '0,a'"),
    ],
    ids=[
        "id twice", "empty name", "blank name", "no name", "id not a number", "negative id", "gap", "from one",
        "no rows", "empty file", "other columns", "no header",
    ],
)  # fmt: skip
def test_a_wrong_label_file_is_named_with_the_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_names(tmp_path, text)


def test_a_row_without_an_id_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"labels\.csv:3"):
        read_names(tmp_path, "name,id\na,0\nb\n")


def test_a_label_file_that_is_not_utf8_is_read_with_a_warning(tmp_path, caplog):
    assert read_names(tmp_path, "id,name\n0,tr\u00e4umen\n".encode("latin-1")) == ["tr\u00e4umen"]
    assert "is not UTF-8; read as cp1252, line 2" in caplog.text


def test_a_missing_label_file_names_the_key_and_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.label_list .*none\.csv"):
        read_class_names(tmp_path / "none.csv")


def test_another_number_of_classes_than_configured_is_an_error(tmp_path):
    text = "id,name\n0,a\n1,b\n"
    assert read_names(tmp_path, text, num_classes=2) == ["a", "b"]
    with pytest.raises(ValueError, match=r"data\.num_classes is 3, but .*labels\.csv holds 2 classes"):
        read_names(tmp_path, text, num_classes=3)


@pytest.mark.parametrize(
    ("folder", "num_classes"),
    [("kinetics400", 400), ("kinetics600", 600), ("something_v2", 174), ("ucf101", 101), ("hmdb51", 51),
     ("activitynet", 200), *((f"kinetics600/zero_shot_split{split}", 160) for split in (1, 2, 3))],
)  # fmt: skip
def test_shipped_label_files_hold_their_classes_each_once(folder, num_classes):
    names = read_class_names(REPOSITORY / "lists" / folder / "labels.csv", num_classes)
    assert len(set(names)) == num_classes


# --- fingerprints


def video_list(pairs: list[tuple[str, int]], root: str = "") -> VideoList:
    paths = np.array([path.encode() for path, _ in pairs])
    return VideoList(root, paths, np.array([label for _, label in pairs], dtype=np.int64), None)


def test_a_fingerprint_does_not_depend_on_the_order_or_the_root():
    pairs = [("b c.mp4", 1), ("a.mp4", 0), ("d.mp4", 1)]
    reference = video_list(pairs).fingerprint()
    assert video_list(pairs[::-1], root="elsewhere").fingerprint() == reference
    assert len(reference) == 16


@pytest.mark.parametrize(
    "changed",
    [
        [("a.mp4", 1), ("b.mp4", 1)],
        [("a.mp4", 1), ("b.mp4", 0)],
        [("a.mp4", 0), ("B.mp4", 1)],
        [("a.mp4", 0)],
        [("a.mp4", 0), ("b.mp4", 1), ("b.mp4", 1)],
    ],
    ids=["a label", "labels exchanged", "a path", "one less", "one twice"],
)
def test_a_fingerprint_tells_lists_apart(changed):
    assert video_list(changed).fingerprint() != video_list([("a.mp4", 0), ("b.mp4", 1)]).fingerprint()


@pytest.mark.parametrize("num_frames", [None, np.array([10, 20, 30])])
def test_videos_are_taken_by_index_with_all_that_belongs_to_them(num_frames):
    videos = VideoList("root", np.array([b"a", b"b", b"c"]), np.array([0, 1, 2]), num_frames)
    taken = videos.take(np.array([2, 0, 2]))
    assert [taken.path(i) for i in range(3)] == ["c", "a", "c"]
    assert taken.labels.tolist() == [2, 0, 2]
    assert taken.root == "root"
    assert (taken.num_frames is None) == (num_frames is None)
    if num_frames is not None:
        assert taken.num_frames.tolist() == [30, 10, 30]


NAMES = st.text(
    st.sampled_from("ab 7.,;\"'\t\\/\u2028\ufeff\xa0é") | st.characters(codec="utf-8", exclude_characters="\r\n\0"),
    min_size=1, max_size=12,
)  # fmt: skip


@given(names=st.lists(NAMES, min_size=1, max_size=4), is_file=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_written_list_reads_back(names, is_file, tmp_path):
    assume(not any(Path(name.replace("\\", "/")).exists() for name in names))  # such as the root of all folders
    numbers = np.arange(len(names))
    paths = np.array([name.encode() for name in names])
    write_video_list(tmp_path / "list.txt", VideoList("", paths, numbers, None if is_file else numbers + 7))
    again = read_video_list(tmp_path / "list.txt", "", "video" if is_file else "RGB", 4, "train")
    assert [again.path(index) for index in range(len(names))] == names
    assert again.labels.tolist() == numbers.tolist()
    assert is_file or again.num_frames.tolist() == (numbers + 7).tolist()


@pytest.mark.parametrize("modality", ["video", "RGB"])
def test_a_written_list_reads_back(tmp_path, modality):
    num_frames = np.array([7, 300]) if modality == "RGB" else None
    videos = VideoList("", np.array(["a b/ü.mp4".encode(), b"c.mp4"]), np.array([1, 0]), num_frames)
    write_video_list(tmp_path / "list.txt", videos)
    again = read_video_list(tmp_path / "list.txt", "", modality, 2, "train")
    assert again.fingerprint() == videos.fingerprint()
    assert [again.path(0), again.path(1)] == ["a b/ü.mp4", "c.mp4"]
    if modality == "RGB":
        assert again.num_frames.tolist() == [7, 300]
