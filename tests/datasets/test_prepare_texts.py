"""From the annotations of videos and texts, official and published, to lists."""

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from datasets.lists.captions import TextList, read_captions, read_choices
from datasets.prepare.__main__ import main
from datasets.prepare.texts import TEXT_SETS


@pytest.fixture
def prepare(tmp_path):
    """Prepare a set whose video files, empty here, have the given paths; returns the list and the report."""

    def prepare(name: str, annotations: Path, paths: list[str]) -> tuple[TextList, dict]:
        for path in paths:
            place = tmp_path / "videos" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        arguments = ["--videos", tmp_path / "videos", "--annotations", annotations, "--out", tmp_path / "lists"]
        report = main([name, *map(str, arguments)])
        read = read_choices if name == "ssv2_mc" else read_captions
        return read(tmp_path / "lists" / TEXT_SETS[name].list_name, tmp_path / "videos", "data.val_"), report

    return prepare


def paths_of(found: TextList) -> list[str]:
    return [found.videos.path(index) for index in found.video_of_line]


@pytest.mark.parametrize(("name", "key"), [("msrvtt", "MSRVTT"), ("didemo", "DiDeMo"), ("lsmdc", "LSMDC")])
def test_published_files_become_the_published_pairs(tvtsv2_golden, prepare, name, key):
    with np.load(tvtsv2_golden / "retrieval_b32.npz") as saved:
        paths, captions = saved[f"{key}/paths"].tolist(), saved[f"{key}/captions"].tolist()
    found, report = prepare(name, tvtsv2_golden / "annotations" / name, paths)
    assert paths_of(found) == paths
    assert [caption.split() for caption in found.captions] == [caption.split() for caption in captions]
    (entry,) = report["lists"].values()
    assert (entry["num_videos"], entry["num_missing"]) == (len(paths), 0)


def test_published_choices(tvtsv2_golden, prepare):
    lines = (tvtsv2_golden / "annotations" / "ssv2" / "mc" / "val.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    found, _ = prepare("ssv2_mc", tvtsv2_golden / "annotations", [record["clip_name"] for record in records])
    assert found.answers.tolist() == [int(record["answer"]) for record in records]
    assert [list(options) for options in found.texts] == [record["options"] for record in records]


SENTENCES = [
    ("video9", "nine a"),
    ("video10", "ten a"),
    ("video9", "nine b"),
    ("video10", "ten b"),
    ("video7", "seven"),
]


@pytest.fixture
def msrvtt(tmp_path) -> Path:
    """All captions, the list of test videos and the number of each one's caption."""
    folder = tmp_path / "msrvtt"
    folder.mkdir()
    records = [{"video_id": video, "caption": caption} for video, caption in SENTENCES]
    (folder / "train_val_videodatainfo.json").write_text(json.dumps({"sentences": records}))
    (folder / "val_list_jsfusion.txt").write_text("video9\nvideo10\n")
    (folder / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps({"video9": 1, "video10": 0}))
    return folder


def test_official_msrvtt(msrvtt, prepare):
    found, _ = prepare("msrvtt", msrvtt, ["a/video10.mp4", "a/video9.mp4", "video7.mp4"])
    assert list(zip(paths_of(found), found.captions, strict=True)) == [
        ("a/video10.mp4", "ten a"),
        ("a/video9.mp4", "nine b"),
    ]


def test_missing_videos_are_named(msrvtt, prepare, capsys):
    found, report = prepare("msrvtt", msrvtt, ["video9.mp4"])
    assert paths_of(found) == ["video9.mp4"]
    assert report["lists"]["test_1ka.tsv"]["missing"] == {"videos": ["video10"]}
    assert "videos missing, whose lines test_1ka.tsv lacks: 1; video10" in capsys.readouterr().out


class Code:
    """What a pickle may run."""

    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Code()), "builtins.print"),
        (pickle.dumps({"video9": np.int64(1)}), "numpy"),
        (pickle.dumps(OrderedDict(video9=1)), "collections.OrderedDict"),
        (pickle.dumps(["video9"]), "expected a dict of texts"),
        (pickle.dumps({"video9": True}), "expected a dict of texts"),
        (pickle.dumps({"video9": 1})[:-3], "not a pickled dict"),
        (b"", "not a pickled dict"),
        (pickle.dumps({"video9": 7, "video10": 0}), "video9 has 2 captions in .* names number 7"),
        (pickle.dumps({"video10": 0}), "video9 has 2 captions in .* names number None"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(msrvtt, prepare, capsys, content, message):
    (msrvtt / "jsfusion_val_caption_idx.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prepare("msrvtt", msrvtt, ["video9.mp4"])
    assert "run" not in capsys.readouterr().out


def test_official_didemo_has_its_sentences_joined(tmp_path, prepare):
    sentences = [("1@N_a.mov", "it begins"), ("2@N_b.mp4", "a dog"), ("1@N_a.mov", "it ends ")]
    annotations = tmp_path / "test_data.json"
    annotations.write_text(json.dumps([{"video": video, "description": text} for video, text in sentences]))
    found, _ = prepare("didemo", annotations, ["x/1@N_a.mp4", "2@N_b.mp4"])
    assert paths_of(found) == ["x/1@N_a.mp4", "2@N_b.mp4"]
    assert found.captions == ["it begins it ends", "a dog"]


@pytest.mark.parametrize("header", ["", "caption\tvideo\n"])
def test_didemo_with_and_without_a_header(tmp_path, prepare, header):
    (tmp_path / "DiDeMo_test.tsv").write_text(
        f'{header}"a ""big"" dog"\tvideos/1.mp4\nSOMEONE says "no"\tvideos/2.mp4\n'
    )
    found, _ = prepare("didemo", tmp_path / "DiDeMo_test.tsv", ["videos/1.mp4", "videos/2.mp4"])
    assert found.captions == ['a "big" dog', 'SOMEONE says "no"']


CLIPS = ("0001_A.B._00.00.51.926-00.00.54.129", "1004_Juno_00.10.51.926-00.10.54.129")


@pytest.mark.parametrize("header", ["", "clip\tstart_aligned\tsentence\n"])
def test_lsmdc_loses_no_pair(tmp_path, prepare, header):
    rows = f'{CLIPS[0]}\t0\t"SOMEONE waits\n{CLIPS[1]}\t0\tHe says "no"\n'
    (tmp_path / "LSMDC16_challenge_1000_publictect.csv").write_text(header + rows)
    files = [f"0001_A.B/{CLIPS[0]}.avi", f"1004_Juno/{CLIPS[1]}.avi"]
    found, _ = prepare("lsmdc", tmp_path, files)
    assert paths_of(found) == files
    assert found.captions == ['"SOMEONE waits', 'He says "no"']


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", "key,video\nret0,video9\n", "video_id,sentence"),
        ("didemo", "DiDeMo_test.tsv", "a dog videos/1.mp4\n", r":1: expected 'caption TAB path'"),
        ("didemo", "test_data.json", '[{"video": 1}]', "record 0: expected an object with video and description"),
        (
            "lsmdc",
            "LSMDC16_challenge_1000_publictect.csv",
            f"{CLIPS[0]}\tx\nother\ty\n",
            ":2: expected MOVIE_START-END",
        ),
        ("ssv2_mc", "val.jsonl", '{"clip_name": "1.mp4", "options": ["a"], "answer": 1}\n', ":1: expected an object"),
        ("ssv2_mc", "val.jsonl", "[" * 100_000, ":1: expected an object"),
    ],
)
def test_what_is_not_as_expected_is_named(tmp_path, prepare, name, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(name, tmp_path, ["x.mp4"])


@pytest.mark.parametrize("name", TEXT_SETS)
def test_annotations_that_are_missing_are_named(tmp_path, prepare, name):
    with pytest.raises(FileNotFoundError, match=r"--annotations .*expected"):
        prepare(name, tmp_path, ["x.mp4"])


def test_no_video_of_the_set_is_an_error(msrvtt, prepare):
    with pytest.raises(ValueError, match=r"no video of msrvtt is here; expected video7010.mp4, found x.mp4"):
        prepare("msrvtt", msrvtt, ["x.mp4"])
