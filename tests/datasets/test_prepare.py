"""Lists from trees of empty files that imitate the official layouts, with the oddities that copies have."""

import csv
import json
from pathlib import Path

import pytest

from datasets.lists.labels import read_class_names, read_label_table
from datasets.lists.records import read_video_list
from datasets.prepare.__main__ import REPORT, main
from datasets.prepare.official import OFFICIAL, UCF_TEST_GROUPS
from utils.config import load_config

REPOSITORY = Path(__file__).parents[2]
KINETICS_HEADER = "label,youtube_id,time_start,time_end,split"


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write(path: Path, *lines: str, newline: str = "\n", mark: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xef\xbb\xbf" * mark + newline.join([*lines, ""]).encode())
    return path


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def label_of(dataset: str, folder: str) -> int:
    return read_label_table(REPOSITORY / "lists" / dataset / "labels.csv", "folder")[0].index(folder)


def prepare(name: str, videos: Path, out: Path, annotations: Path | None = None) -> dict:
    given = ["--annotations", str(annotations)] if annotations else []
    return main([name, "--videos", str(videos), "--out", str(out), *given])


# --- UCF-101


@pytest.fixture(scope="module")
def ucf_tree(tmp_path_factory) -> Path:
    """13,320 empty files in the official layout: clips a group are chosen so that ranges of groups sum as published."""
    root = tmp_path_factory.mktemp("ucf101")
    with open(REPOSITORY / "lists" / "ucf101" / "labels.csv", newline="") as file:
        classes = [row["folder"] for row in csv.DictReader(file)]
    for groups, total in ((range(1, 8), 3783), (range(8, 15), 3734), (range(15, 22), 3696), (range(22, 26), 2107)):
        cells = [(name, group) for name in classes for group in groups]
        for number in range(total):
            name, group = cells[number % len(cells)]
            spelt = name.replace("HandstandPushups", "HandStandPushups")  # official files of that class
            (root / name).mkdir(exist_ok=True)
            (root / name / f"v_{spelt}_g{group:02d}_c{number // len(cells) + 1:02d}.avi").touch()
    return root


@pytest.fixture(scope="module")
def ucf_lists(ucf_tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("lists")
    prepare("ucf101", ucf_tree, out)
    return out


def test_ucf_names_alone_give_the_official_splits(ucf_lists):
    counts = {path.stem: len(lines_of(path)) for path in ucf_lists.glob("*.txt")}
    assert counts == OFFICIAL["ucf101"].counts
    assert (counts["train_split1"], counts["all"]) == (9537, 13320)
    assert set(lines_of(ucf_lists / "all.txt")) == {
        *lines_of(ucf_lists / "train_split3.txt"), *lines_of(ucf_lists / "test_split3.txt")
    }  # fmt: skip
    assert {line.split("_g")[1][:2] for line in lines_of(ucf_lists / "test_split2.txt")} == {
        f"{group:02d}" for group in range(8, 15)
    }


def test_ucf_lists_read_with_the_configuration_that_expects_them(ucf_tree, ucf_lists):
    data = load_config(REPOSITORY / "configs" / "zero_shot" / "data" / "ucf101_split1.yaml").data
    assert Path(data.val_list).name == "test_split1.txt"
    videos = read_video_list(ucf_lists / "test_split1.txt", ucf_tree, "video", data.num_classes, key="val")
    folders = read_label_table(REPOSITORY / data.label_list, "folder")[0]
    assert all(folders[videos.labels[i]] == videos.path(i).split("/")[0] for i in range(len(videos)))


def test_the_summary_is_short_when_all_is_well(ucf_tree, tmp_path, capsys):
    report = prepare("ucf101", ucf_tree, tmp_path)
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 10
    assert "13,320 video files" in text
    assert "3,783        0     3,783  101 of 101" in text
    assert json.loads((tmp_path / REPORT).read_text())["lists"]["test_split1.txt"]["num_videos"] == 3783
    assert report["extra"] == []


def write_ucf_split_files(tree: Path, folder: Path, newline: str = "\n") -> Path:
    classes = read_label_table(REPOSITORY / "lists" / "ucf101" / "labels.csv", "folder")[0]
    ids = {name: number for number, name in enumerate(classes, start=1)}
    write(folder / "classInd.txt", *(f"{number} {name}" for name, number in ids.items()), newline=newline)
    paths = sorted(path.relative_to(tree).as_posix() for path in tree.glob("*/*.avi"))
    for split, groups in UCF_TEST_GROUPS.items():
        test = [path for path in paths if int(path.split("_g")[1][:2]) in groups]
        train = [f"{path} {ids[path.split('/')[0]]}" for path in sorted(set(paths) - set(test))]
        write(folder / f"testlist{split:02d}.txt", *test, newline=newline)
        write(folder / f"trainlist{split:02d}.txt", *train, newline=newline, mark=True)
    return folder


def test_ucf_split_files_give_the_same_lists(ucf_tree, ucf_lists, tmp_path):
    annotations = write_ucf_split_files(ucf_tree, tmp_path / "ucfTrainTestlist", newline="\r\n")
    prepare("ucf101", ucf_tree, tmp_path / "out", annotations)
    for path in ucf_lists.glob("*.txt"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("file", "line"),
    [("testlist01.txt", "Archery/v_Archery_g08_c01.avi"), ("trainlist02.txt", "Archery/v_Archery_g08_c01.avi 3"),
     ("trainlist01.txt", "Archery/v_Archery_g09_c01.avi 4")],
    ids=["trains in split 1", "tests in split 2", "another class's id"],
)  # fmt: skip
def test_ucf_split_files_that_break_the_rule_are_named(ucf_tree, tmp_path, file, line):
    annotations = write_ucf_split_files(ucf_tree, tmp_path / "annotations")
    with open(annotations / file, "a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(ValueError, match=f"1 lines differ .*{file}:.*{line}"):
        prepare("ucf101", ucf_tree, tmp_path / "out", annotations)


# --- HMDB-51


def test_hmdb_takes_the_use_of_each_split_and_the_class_of_the_file_name(tmp_path):
    videos = touch(
        tmp_path / "hmdb51", "brush_hair/a!b (1)_0.avi", "brush_hair/b_0.AVI", "climb stairs/b_0.avi", "run/c.mkv",
        "run/d.avi", "smile/loose.avi",
    )  # fmt: skip
    splits = tmp_path / "testTrainMulti_7030_splits"
    write(splits / "brush_hair_test_split1.txt", "a!b (1)_0.avi 1 ", "b_0.avi 2 ", newline="\r\n")
    write(splits / "climb_stairs_test_split1.txt", "b_0.avi 1 ")
    write(splits / "run_test_split1.txt", "c.avi 2", "d.avi 0", "e.avi 1")
    write(splits / "run_test_split3.txt", "c.avi 0", "d.avi 2", "e.avi 0")
    report = prepare("hmdb51", videos, tmp_path / "out", tmp_path)
    hair, stairs, run = (label_of("hmdb51", name) for name in ("brush_hair", "climb_stairs", "run"))
    assert lines_of(tmp_path / "out" / "train_split1.txt") == [
        f"brush_hair/a!b (1)_0.avi {hair}", f"climb stairs/b_0.avi {stairs}"
    ]  # fmt: skip
    assert lines_of(tmp_path / "out" / "test_split1.txt") == [f"brush_hair/b_0.AVI {hair}", f"run/c.mkv {run}"]
    assert lines_of(tmp_path / "out" / "test_split3.txt") == [f"run/d.avi {run}"]
    assert report["extra"] == ["smile/loose.avi"]
    assert report["duplicates"] == {}
    assert report["lists"]["train_split1.txt"]["missing"] == {"run": ["run/e"]}
    assert report["lists"]["train_split1.txt"]["official"] == 3570
    assert report["num_unlisted"] == 0


def test_hmdb_all_has_each_video_once_whatever_its_use(tmp_path):
    videos = touch(tmp_path / "hmdb51", "run/c.avi", "run/d.avi", "run/never.avi", "run/unknown.avi")
    for split, lines in {1: ("c.avi 1", "d.avi 0"), 2: ("c.avi 0", "d.avi 2"), 3: ("c.avi 1", "d.avi 0")}.items():
        write(tmp_path / f"run_test_split{split}.txt", *lines, "never.avi 0", "gone.avi 0")
    report = prepare("hmdb51", videos, tmp_path / "out", tmp_path)
    run = label_of("hmdb51", "run")
    assert lines_of(tmp_path / "out" / "all.txt") == [f"run/{name}.avi {run}" for name in ("c", "d", "never")]
    assert report["lists"]["all.txt"]["missing"] == {"run": ["run/gone"]}
    assert report["lists"]["all.txt"]["official"] == 6766
    assert not (tmp_path / "out" / "test_split1.txt").exists()  # nobody tests in it


def test_an_hmdb_line_of_another_form_is_named(tmp_path):
    touch(tmp_path, "run/c.avi")
    write(tmp_path / "run_test_split1.txt", "c.avi 1", "d.avi 3")
    with pytest.raises(ValueError, match=r"run_test_split1\.txt:2: expected 'name.avi 0\|1\|2', found 'd.avi 3'"):
        prepare("hmdb51", tmp_path, tmp_path / "out", tmp_path)


# --- Kinetics


@pytest.fixture
def kinetics_csv(tmp_path) -> Path:
    """Annotations of both published forms: with is_cc, quotes, CRLF and a byte-order mark, and a test part."""
    folder = tmp_path / "annotations"
    write(
        folder / "train.csv", KINETICS_HEADER + ",is_cc", '"abseiling","-3B32lodo2M",59,69,"train",0',
        "passing American football (in game),_0abcdefghi,1,11,train,0", "zumba,gone4567890,0,10,train,0",
        newline="\r\n", mark=True,
    )  # fmt: skip
    write(
        folder / "validate.csv",
        KINETICS_HEADER,
        "air drumming,val45678901,10,20,validate",
        "zumba,Val45678901,5,15,val",
    )
    write(folder / "test.csv", "youtube_id,time_start,time_end,split", "test5678901,0,10,test")
    return folder


def test_kinetics_takes_names_with_and_without_times_in_any_folder(tmp_path, kinetics_csv):
    videos = touch(
        tmp_path / "k400", "train/abseiling/-3B32lodo2M_000059_000069.mp4",
        "train/passing_American_football_(in_game)/_0abcdefghi.mp4.mkv", "train/extra_file_01.webm",
        "train/val45678901.mp4", "val/val45678901_000010_000020.WEBM", "val/deep/er/Val45678901.avi",
        "test/test5678901.mp4",
    )  # fmt: skip
    report = prepare("kinetics400", videos, tmp_path / "out", kinetics_csv)
    football = label_of("kinetics400", "passing American football (in game)")
    assert lines_of(tmp_path / "out" / "train.txt") == [
        "abseiling/-3B32lodo2M_000059_000069.mp4 0",
        f"passing_American_football_(in_game)/_0abcdefghi.mp4.mkv {football}",
    ]
    assert lines_of(tmp_path / "out" / "val.txt") == ["deep/er/Val45678901.avi 399", "val45678901_000010_000020.WEBM 1"]
    assert report["lists"]["train.txt"]["root"] == str(videos / "train")
    assert report["lists"]["train.txt"]["missing"] == {"zumba": ["gone4567890_000000_000010"]}
    assert report["extra"] == ["train/extra_file_01.webm", "train/val45678901.mp4"]
    assert report["num_unlisted"] == 1
    assert not (tmp_path / "out" / "test.txt").exists()


def test_one_part_alone_is_prepared_from_its_own_folder(tmp_path, kinetics_csv, capsys):
    videos = touch(tmp_path / "val", "air_drumming/val45678901.mkv")
    report = prepare("kinetics400", videos, tmp_path / "out", kinetics_csv / "validate.csv")
    assert lines_of(tmp_path / "out" / "val.txt") == ["air_drumming/val45678901.mkv 1"]
    assert list(report["lists"]) == ["val.txt"]
    assert "1 of 400" in capsys.readouterr().out


def test_of_several_files_of_a_video_one_is_taken_and_all_are_named(tmp_path, kinetics_csv, capsys):
    videos = touch(
        tmp_path / "k400", "a/val45678901_000010_000020.mp4", "air_drumming/val45678901_000010_000020.webm",
        "air_drumming/val45678901_000010_000020.mkv", "air_drumming/val45678901.mp4",
    )  # fmt: skip
    report = prepare("kinetics400", videos, tmp_path / "out", kinetics_csv)
    taken = "air_drumming/val45678901_000010_000020.mkv"
    assert lines_of(tmp_path / "out" / "val.txt") == [f"{taken} 1"]
    assert sorted(report["duplicates"][taken]) == sorted(
        [
            "a/val45678901_000010_000020.mp4",
            "air_drumming/val45678901_000010_000020.webm",
            "air_drumming/val45678901.mp4",
        ]
    )
    assert report["extra"] == []
    text = capsys.readouterr().out
    assert "videos with several files: 1" in text
    assert "train.txt (not written)" in text


def test_a_name_without_times_is_not_enough_where_an_id_has_two_clips(tmp_path):
    annotations = write(
        tmp_path / "val.csv", KINETICS_HEADER, "zumba,val45678901,10,20,val", "abseiling,val45678901,30,40,val"
    )
    videos = touch(tmp_path / "k400", "val45678901.mp4", "val45678901_000030_000040.mp4")
    prepare("kinetics400", videos, tmp_path / "out", annotations)
    assert lines_of(tmp_path / "out" / "val.txt") == ["val45678901_000030_000040.mp4 0"]


def test_kinetics600_writes_the_zero_shot_subsets_with_their_own_labels(tmp_path):
    subsets = {split: f"kinetics600/zero_shot_split{split}" for split in (1, 2, 3)}
    annotations = write(
        tmp_path / "val.csv", KINETICS_HEADER, "arguing,val45678901,10,20,val",
        "alligator wrestling,val4567890b,1,11,val", "zumba,val4567890c,1,11,val",
    )  # fmt: skip
    videos = touch(tmp_path / "k600", "val/val45678901.mp4", "val/val4567890b.mp4", "val/val4567890c.mp4")
    prepare("kinetics600", videos, tmp_path / "out", annotations)
    assert len(lines_of(tmp_path / "out" / "val.txt")) == 3
    for split, name in subsets.items():
        folders = read_label_table(REPOSITORY / "lists" / name / "labels.csv", "folder")[0]
        expected = [
            f"{file}.mp4 {folders.index(label)}"
            for file, label in (("val45678901", "arguing"), ("val4567890b", "alligator wrestling"))
            if label in folders
        ]
        assert expected
        assert lines_of(tmp_path / "out" / f"zero_shot_split{split}" / "val.txt") == expected


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("label,id,split", "zumba,a,val", r"val\.csv:1: expected the columns youtube_id,.*found 'label,id,split'"),
        (KINETICS_HEADER, "zumba,a,soon,10,val", r"val\.csv:2: expected a label, an id, two times.*zumba,a,soon"),
        (KINETICS_HEADER, "zumba,a,inf,10,val", r"val\.csv:2: "),
        (KINETICS_HEADER, "zumba,a,0,10,val,x,y,z", r"val\.csv:2: expected 5 fields"),
        (KINETICS_HEADER, "x" * 200_000 + ",a,0,10,val", r"val\.csv:2: not a row of a table"),
        (KINETICS_HEADER, "zumba,a,0,10,holdout", r"val\.csv:2: "),
        (KINETICS_HEADER, ",a,0,10,val", r"val\.csv:2: "),
        (KINETICS_HEADER, "zumbaa,a,0,10,val", r"class 'zumbaa' is not in .*kinetics400.*nearest is 'zumba'"),
    ],
    ids=[
        "columns",
        "a time",
        "an endless time",
        "a name with commas",
        "a long field",
        "a split",
        "no label",
        "a label",
    ],
)
def test_kinetics_annotations_of_another_form_are_named(tmp_path, header, row, message):
    write(tmp_path / "val.csv", header, row)
    with pytest.raises(ValueError, match=message):
        prepare("kinetics400", touch(tmp_path / "videos", "a.mp4"), tmp_path / "out", tmp_path)


# --- Something-Something V2


def test_something_templates_become_the_classes_of_the_label_file(tmp_path):
    folder = tmp_path / "labels"
    train = [{"id": "10", "label": "holding a potato", "template": "Closing [something]", "placeholders": ["potato"]},
             {"id": "2", "template": "Stacking [number of] [something]"}]  # fmt: skip
    write(folder / "something-something-v2-train.json", json.dumps(train), mark=True)
    write(
        folder / "something-something-v2-validation.json", json.dumps([{"id": "3", "template": "Closing [something]"}])
    )
    write(folder / "something-something-v2-test.json", json.dumps([{"id": "4"}]))
    write(folder / "something-something-v2-labels.json", json.dumps({"Closing something": "5"}))
    videos = touch(tmp_path / "20bn", "10.webm", "2.webm", "3.webm", "4.webm")
    report = prepare("something-v2", videos, tmp_path / "out", folder)
    closing, stacking = (
        label_of("something_v2", "Closing something"),
        label_of("something_v2", "Stacking number of something"),
    )
    assert lines_of(tmp_path / "out" / "train.txt") == [f"10.webm {closing}", f"2.webm {stacking}"]
    assert lines_of(tmp_path / "out" / "val.txt") == [f"3.webm {closing}"]
    assert (report["extra"], report["num_unlisted"]) == ([], 1)


def test_something_records_of_another_form_are_named(tmp_path):
    videos = touch(tmp_path / "20bn", "1.webm")
    path = write(tmp_path / "train.json", json.dumps([{"id": "1", "template": "Closing [something]"}, {"id": "2"}]))
    with pytest.raises(ValueError, match=r"train\.json: record 1: expected an object with id and template"):
        prepare("something-v2", videos, tmp_path / "out", path)
    path.write_text('[{"id": ')
    with pytest.raises(ValueError, match=r"train\.json:1: not JSON"):
        prepare("something-v2", videos, tmp_path / "out", path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"train\.json: expected a list, found dict"):
        prepare("something-v2", videos, tmp_path / "out", path)


@pytest.mark.parametrize(
    ("dataset", "name", "content"),
    [
        ("something-v2", "train.json", '[{"id": "1", "template": 5}]'),
        ("something-v2", "train.json", "[" * 100_000),
        ("something-v2", "train.json", '[{"id": ' + "9" * 5000 + "}]"),
        ("activitynet", "activity_net.json", '{"database": {"a": []}}'),
        ("activitynet", "activity_net.json", '{"database": {"a": {"subset": ["training"]}}}'),
        ("activitynet", "activity_net.json", '{"database": {"a": {"subset": "training", "annotations": 5}}}'),
        ("activitynet", "activity_net.json", '{"database": {"a": {"subset": "training", "annotations": [{}]}}}'),
        ("activitynet", "activity_net.json", '{"database": {"a": ' + "[" * 100_000),
    ],
)  # fmt: skip
def test_hostile_annotations_are_one_line_that_names_the_file(tmp_path, dataset, name, content):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=name) as error:
        prepare(dataset, touch(tmp_path / "videos", "1.webm"), tmp_path / "out", path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


# --- ActivityNet


def test_activitynet_labels_a_video_with_the_class_of_most_seconds(tmp_path):
    def segments(*triples):
        return [{"label": label, "segment": [start, end]} for label, start, end in triples]

    database = {
        "QOlSCBRmfWY": {
            "subset": "training",
            "annotations": segments(("Archery", 0, 5), ("Zumba", 5, 9), ("Zumba", 20, 25)),
        },
        "-tieOneVideo": {"subset": "training", "annotations": segments(("Zumba", 5, 9), ("Archery", 0, 4))},
        "validation1": {"subset": "validation", "annotations": segments(("Archery", 0.5, 5.5))},
        "testing1234": {"subset": "testing", "annotations": []},
    }
    annotations = write(tmp_path / "activity_net.v1-3.min.json", json.dumps({"database": database, "version": "1.3"}))
    videos = touch(
        tmp_path / "anet", "v_QOlSCBRmfWY.mp4", "x/v_-tieOneVideo.mkv", "validation1.webm", "v_testing1234.mp4"
    )
    report = prepare("activitynet", videos, tmp_path / "out", annotations)
    zumba, archery = label_of("activitynet", "Zumba"), label_of("activitynet", "Archery")
    assert lines_of(tmp_path / "out" / "train.txt") == [f"v_QOlSCBRmfWY.mp4 {zumba}", f"x/v_-tieOneVideo.mkv {archery}"]
    assert lines_of(tmp_path / "out" / "val.txt") == [f"validation1.webm {archery}"]
    assert lines_of(tmp_path / "out" / "all.txt") == [
        f"v_QOlSCBRmfWY.mp4 {zumba}", f"validation1.webm {archery}", f"x/v_-tieOneVideo.mkv {archery}"
    ]  # fmt: skip
    assert report["num_unlisted"] == 1


def test_activitynet_all_starts_from_the_folder_of_both_parts(tmp_path):
    segment = {"label": "Archery", "segment": [0, 5]}
    database = {"a": {"subset": "training", "annotations": [segment]}, "b": {"subset": "validation"}}
    database["b"]["annotations"] = [segment]
    annotations = write(tmp_path / "activity_net.v1-3.min.json", json.dumps({"database": database}))
    videos = touch(tmp_path / "anet", "train/v_a.mp4", "val/v_b.mp4")
    report = prepare("activitynet", videos, tmp_path / "out", annotations)
    archery = label_of("activitynet", "Archery")
    assert lines_of(tmp_path / "out" / "train.txt") == [f"v_a.mp4 {archery}"]
    assert lines_of(tmp_path / "out" / "all.txt") == [f"train/v_a.mp4 {archery}", f"val/v_b.mp4 {archery}"]
    assert report["lists"]["all.txt"]["root"] == str(videos)


# --- a folder per class, and what goes wrong everywhere


def test_a_folder_per_class_gets_lists_and_a_label_file(tmp_path, capsys):
    videos = touch(
        tmp_path / "mine", *(f"{name}/v {i}.mp4" for name in ("cat_jumping", "cat sleeping") for i in range(5))
    )
    main(["folder", "--videos", str(videos), "--out", str(tmp_path / "out"), "--val_share", "0.4", "--seed", "3"])
    assert read_class_names(tmp_path / "out" / "labels.csv") == ["cat sleeping", "cat jumping"]
    assert [len(lines_of(tmp_path / "out" / name)) for name in ("train.txt", "val.txt")] == [6, 4]
    assert "2 of 2" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--val_share: expected a share between 0 and 1, found 1\.5"):
        main(["folder", "--videos", str(videos), "--out", str(tmp_path / "out"), "--val_share", "1.5"])


def test_nothing_found_shows_what_was_expected_and_what_is_there(tmp_path, kinetics_csv):
    videos = touch(tmp_path / "videos", "some/other.mp4")
    for name, annotations in (("ucf101", None), ("kinetics400", kinetics_csv)):
        with pytest.raises(
            ValueError, match=rf"no video of {name} is here; expected .*\.(avi|mp4).*found some/other\.mp4"
        ):
            prepare(name, videos, tmp_path / "out", annotations)
    with pytest.raises(ValueError, match=r"found no file with \.3gp"):
        prepare("ucf101", touch(tmp_path / "empty", "notes.txt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name, official in OFFICIAL.items() if official.needs_annotations])
def test_missing_annotations_are_named_with_what_was_expected(tmp_path, name):
    videos = touch(tmp_path / "videos", "a.mp4")
    with pytest.raises(FileNotFoundError, match=r"--annotations .*: expected "):
        prepare(name, videos, tmp_path / "out", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"--annotations .*nowhere: expected "):
        prepare(name, videos, tmp_path / "out", tmp_path / "nowhere")


def test_incomplete_classes_are_listed_worst_first_and_not_all(tmp_path, capsys):
    classes = read_class_names(REPOSITORY / "lists" / "kinetics400" / "labels.csv")[:14]
    rows = [f"{name},id{i:02d}{j:07d},0,10,val" for i, name in enumerate(classes) for j in range(i + 1)]
    annotations = write(tmp_path / "val.csv", KINETICS_HEADER, *rows)
    videos = touch(tmp_path / "videos", *(f"id{i:02d}0000000.mp4" for i in range(14)))
    prepare("kinetics400", videos, tmp_path / "out", annotations)
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("incomplete class")) + 1
    assert lines[first].split() == [*classes[13].split(), "val.txt", "1", "13"]
    assert lines[first + 10] == "... and 3 more"
    assert lines[first + 11].startswith("classes without any video in val.txt: 386; ")
