"""Lists of WebVid and YT-Temporal, from the files as they are published."""

import pytest

from datasets.lists.captions import read_captions
from datasets.prepare.__main__ import main

CAPTIONS = "000001_000050/"


def touch(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_webvids_published_table_becomes_a_list_of_the_videos_that_are_there(tvtsv2_golden, tmp_path, capsys):
    touch(tmp_path / "videos/train", [f"{CAPTIONS}{number}.mp4" for number in range(1000, 1017)])
    arguments = ["--videos", str(tmp_path / "videos"), "--annotations", str(tvtsv2_golden / "annotations")]
    report = main(["webvid", *arguments, "--out", str(tmp_path / "lists")])
    entry = report["lists"]["train.tsv"]
    assert (entry["num_videos"], entry["missing"]) == (17, [f"{CAPTIONS}1017.mp4"])
    assert entry["root"] == str(tmp_path / "videos" / "train")
    listed = read_captions(tmp_path / "lists" / "train.tsv", entry["root"], "data.train_")
    assert listed.videos.path(0) == f"{CAPTIONS}1000.mp4"
    assert listed.captions[0].startswith("a red ball rolls slowly")
    assert listed.captions[8] == "someone ties a knot &amp; pulls it tight"  # as it is; the tokenizer reads entities
    assert "17 videos, 1 missing" in capsys.readouterr().out


def test_webvids_official_table_too(tmp_path):
    (tmp_path / "results_2M_val.csv").write_text(
        "videoid,contentUrl,duration,page_dir,name\n"
        '21,u,PT00H00M20S,000001_000050,"One, two"\n5,u,PT00H00M09S,000051_000100,Three\n'
    )
    touch(tmp_path / "v", ["000001_000050/21.mp4", "000051_000100/5.mp4"])
    arguments = ["--videos", str(tmp_path / "v"), "--annotations", str(tmp_path / "results_2M_val.csv")]
    report = main(["webvid", *arguments, "--out", str(tmp_path / "lists")])
    assert report["lists"]["val.tsv"]["num_missing"] == 0
    assert (tmp_path / "lists/val.tsv").read_text() == "000001_000050/21.mp4\tOne, two\n000051_000100/5.mp4\tThree\n"


def test_yttemporal_lists_videos_with_annotations(tvtsv2_golden, tmp_path):
    touch(tmp_path / "v", [f"subset_{n}/data/case{n}.mp4" for n in range(5)])
    touch(tmp_path / "v", [f"subset_{n}/annotations/case{n}.json" for n in (0, 1, 2, 5)])
    source = tvtsv2_golden / "annotations/yttemporal"
    report = main(
        ["yttemporal", "--videos", str(tmp_path / "v"), "--annotations", str(source), "--out", str(tmp_path / "lists")]
    )
    assert (tmp_path / "lists/train.txt").read_text().split() == [f"subset_{n}/data/case{n}.mp4" for n in range(3)]
    assert report["lists"]["train.txt"]["num_missing"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caption\tpath\n \ta/1\n", r"webvid_train\.tsv:2: expected a caption and a video"),
        ("caption\tpath\na b c\n", r"webvid_train\.tsv:2: expected 2 fields"),
        ("caption\tpath\nx\ta/2\n", "no video of webvid is here; expected a/2.mp4, found a/1.mp4"),
    ],
)
def test_wrong_tables_are_named(content, message, tmp_path):
    (tmp_path / "webvid_train.tsv").write_text(content)
    touch(tmp_path / "v", ["a/1.mp4"])
    arguments = ["--videos", str(tmp_path / "v"), "--annotations", str(tmp_path), "--out", str(tmp_path / "lists")]
    with pytest.raises(ValueError, match=message):
        main(["webvid", *arguments])
    with pytest.raises(FileNotFoundError, match=r"expected yttemporal_train\.csv"):
        main(["yttemporal", *arguments])
