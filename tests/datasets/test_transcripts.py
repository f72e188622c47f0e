"""Transcripts: annotations to aligned words, what the folder holds, and what is wrong with either."""

import contextlib
import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.lists.transcripts import MANIFEST, Transcript, read_transcripts, write_part, write_transcripts
from datasets.prepare.__main__ import main
from datasets.prepare.transcripts import BadTranscript, annotations_of, read_annotations, read_paths, transcript_of
from datasets.sources.spans import Draws, Spans, draw, frames_of, spans_of, texts_of

SAID = {"subtitles": [{"word": "well", "time": 0.5}, {"word": "&gt;&gt;", "time": 1.0}, {"word": "done", "time": 2}],
        "denoised": [{"cleanasr": "Well done."}], "info": {"duration": 30.7}}  # fmt: skip


@pytest.fixture(scope="session")
def visits(tvtsv2_golden) -> list[dict]:
    """What the published data set made of six transcripts."""
    return json.loads((tvtsv2_golden / "sampling.json").read_text())["transcripts"]


@pytest.fixture
def annotations(tvtsv2_golden, tmp_path) -> Path:
    """The six transcripts as users have them: subset_N/annotations/caseN.json."""
    for number in range(6):
        folder = tmp_path / "videos" / f"subset_{number}" / "annotations"
        folder.mkdir(parents=True)
        shutil.copy(tvtsv2_golden / "annotations/yttemporal/annotations" / f"case{number}.json", folder)
    return tmp_path / "videos"


def test_words_spans_and_texts_of_a_visit_are_the_published_ones(tvtsv2_golden, visits):
    for visit in visits:
        content = json.loads((tvtsv2_golden / visit["file"]).read_text())
        duration, times, words = transcript_of(content)
        assert duration == visit["duration"]
        assert words == visit["aligned"]
        spans = spans_of(Draws(*(each[-1] for each in visit["draws"])), duration, 4)
        assert (spans.starts.tolist(), spans.ends.tolist()) == (visit["starts"], visit["ends"])
        assert texts_of(spans, times, words) == visit["texts"]


def test_frames_of_a_visit_are_those_of_the_published_ranges(visits):
    for visit in visits:
        spans = Spans(np.array(visit["starts"]), np.array(visit["ends"]))
        frames = frames_of(spans, visit["duration"], visit["frame_count"])
        borders = np.linspace(0, len(frames), 13).astype(int)
        assert frames.start == visit["first_frame"]
        # The last frame of each part is never drawn.
        assert [list(pair) for pair in zip(borders[:-1], borders[1:] - 1, strict=True)] == visit["frame_ranges"]


def test_draws_lie_within_the_published_limits(visits):
    for visit in visits:
        rng, names = np.random.default_rng(0), [each[0] for each in visit["draws"]]
        drawn = [draw(visit["duration"], 4, rng) for _ in range(2000)]
        assert {each.seconds for each in drawn} == {3, 4, 5}
        for seconds in (3, 4, 5):
            latest = visit["duration"] - (4 * seconds + 3) - 1
            starts = {each.start for each in drawn if each.seconds == seconds}
            assert starts == ({0} if latest < 0 else set(range(latest + 1)))
            if seconds == visit["draws"][0][-1] and "random" in names:
                assert visit["draws"][1][1:3] == [0, latest]
    assert min(each.fraction for each in drawn if each.seconds == 3 and latest >= 0) > 0 if latest >= 0 else True


def test_a_video_too_short_for_its_spans_is_refused():
    with pytest.raises(ValueError, match="4 s are too short for 4 spans"):
        spans_of(Draws(3), 4, 4)
    assert spans_of(Draws(3), 5, 4).ends[-1] == 4.0


def test_transcripts_are_prepared_once_and_read_back(annotations, visits, tvtsv2_golden, tmp_path, caplog):
    table = tvtsv2_golden / "annotations/yttemporal/yttemporal_train.csv"
    arguments = ["transcripts", str(table), "--annotations", str(annotations), "--out", str(tmp_path / "out")]
    report = main([*arguments, "--workers", "0"])
    assert (report["num_videos"], report["failed"]) == (6, {})
    found = read_transcripts(tmp_path / "out", annotations, "data.sources[0].")
    assert [found.videos.path(index) for index in range(6)] == [f"subset_{n}/data/case{n}.mp4" for n in range(6)]
    for index, visit in enumerate(visits):
        duration, times, words = found.transcript(index)
        assert (duration, words) == (visit["duration"], visit["aligned"])
        assert len(times) == len(words)
    assert pickle.loads(pickle.dumps(found)).transcript(3).words == visits[3]["aligned"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.npy")}
    shutil.rmtree(annotations)
    annotations.mkdir()
    main([*arguments, "--workers", "0"])  # nothing is left to do
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.npy")} == before


def test_what_is_left_of_a_killed_preparation_is_kept(annotations, tvtsv2_golden, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.prepare.transcripts.VIDEOS_A_PART", 2)
    table = tvtsv2_golden / "annotations/yttemporal/yttemporal_train.csv"
    arguments = ["transcripts", str(table), "--annotations", str(annotations), "--out", str(tmp_path / "out")]
    main([*arguments, "--workers", "0"])
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.npy")}
    (tmp_path / "out" / MANIFEST).unlink()
    (tmp_path / "out" / "parts" / "000001.npz").unlink()
    shutil.rmtree(annotations / "subset_0")  # of a part that is there
    main([*arguments, "--workers", "0"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.npy")} == expected
    other = tmp_path / "other.txt"
    other.write_text("subset_0/data/case0.mp4\n")
    with pytest.raises(ValueError, match="was made with other settings: list was"):
        main(["transcripts", str(other), "--annotations", str(annotations), "--out", str(tmp_path / "out")])


BAD = {
    "no time": ({"subtitles": [{"word": "a"}]}, r"subtitles\[0\]: expected a word and its time in seconds"),
    "a time that is text": ({"subtitles": [{"word": "a", "time": "1"}]}, r"subtitles\[0\]"),
    "a time that is none": ({"subtitles": [{"word": "a", "time": float("nan")}]}, r"subtitles\[0\]"),
    "no words": ({"subtitles": []}, "no words in subtitles"),
    "entities alone": ({"subtitles": [{"word": "&nbsp;", "time": 1}]}, "no words in subtitles"),
    "nothing cleaned": ({"denoised": [{"cleanasr": " "}]}, "no words in denoised"),
    "a word without end": ({"denoised": [{"cleanasr": "a" * 10**6}]}, "a word of 1000000 letters, at most 1000"),
    "texts of another kind": ({"denoised": ["a"]}, r"denoised\[0\]: expected a text cleanasr"),
    "no duration": ({"info": {}}, "info.duration: expected seconds, found None"),
    "a time without end": ({"subtitles": [{"word": "a", "time": 10**400}]}, r"subtitles\[0\]"),
    "a video without end": ({"info": {"duration": 1e300}}, r"info\.duration"),
    "a list": (None, "expected an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_wrong_annotations_are_named(name, tmp_path):
    changes, message = BAD[name]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([] if changes is None else SAID | changes))
    with pytest.raises(BadTranscript, match=message):
        read_annotations(path)


def test_annotations_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(SAID), encoding="utf-8-sig")
    assert read_annotations(tmp_path / "x.json").words


def test_whatever_a_file_holds_is_a_transcript_or_an_error(tmp_path):
    rng, whole, path = random.Random(0), json.dumps(SAID).encode(), tmp_path / "x.json"
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 3)] = rng.choice(
                [b"", b"9", b'"', b"null", b"{", b"\xff", b"\\ud800"]
            )
        path.write_bytes(content)
        with contextlib.suppress(BadTranscript):
            write_part(tmp_path / "p.npz", [("a.mp4", read_annotations(path))])


def test_videos_without_a_transcript_are_left_out_and_named(tmp_path, caplog):
    folder = tmp_path / "s" / "annotations"
    folder.mkdir(parents=True)
    (folder / "good.json").write_text(json.dumps(SAID))
    (folder / "cut.json").write_text(json.dumps(SAID)[:50])
    lines = tmp_path / "list.txt"
    lines.write_text("s/data/cut.mp4\ns/data/good.mp4\ns/data/gone.mp4\n")
    arguments = ["transcripts", str(lines), "--annotations", str(tmp_path), "--out", str(tmp_path / "out")]
    report = main([*arguments, "--workers", "2"])
    assert list(report["failed"]) == ["s/data/cut.mp4", "s/data/gone.mp4"]
    assert "not JSON" in report["failed"]["s/data/cut.mp4"]
    assert (tmp_path / "out" / "failed.txt").read_text().startswith("s/data/cut.mp4\t")
    assert read_transcripts(tmp_path / "out", "", "k.").videos.path(0) == "s/data/good.mp4"
    (folder / "good.json").unlink()
    with pytest.raises(ValueError, match="none of 3 videos has a transcript"):
        main([*arguments[:-1], str(tmp_path / "other"), "--workers", "0"])


def test_a_list_of_videos_is_checked(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.mp4\nb.mp4\na.mp4\n")
    with pytest.raises(ValueError, match=r"list\.txt:3: 'a.mp4' is there twice, first in line 1"):
        read_paths(path)
    for line in ("b.mp4\ta caption", "b.mp4 3", "b"):  # lists of other kinds, whose paths are no files
        path.write_text(f"a.mp4\n{line}\n")
        with pytest.raises(ValueError, match=r"list\.txt:2: expected the path of a video file alone, found 'b"):
            read_paths(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no videos, expected a path a line or a column Name"):
        read_paths(path)
    assert str(annotations_of("a/b/data/x y.mp4")) == "a/b/annotations/x y.json"


def test_damaged_transcripts_are_refused(tmp_path):
    said = Transcript(30, np.array([1.0, 2.0]), ["Well", ""])
    write_transcripts(tmp_path / "t", [("a.mp4", said), ("b.mp4", said)], {})
    assert read_transcripts(tmp_path / "t", "", "k.").transcript(1).words == ["Well", ""]
    with pytest.raises(FileNotFoundError, match=r"data\.sources\[1\]\.list .*found no transcripts\.json"):
        read_transcripts(tmp_path / "nothing", "", "data.sources[1].")
    with pytest.raises(FileNotFoundError, match=r"data\.sources\[1\]\.root .*no such folder"):
        read_transcripts(tmp_path / "t", tmp_path / "gone", "data.sources[1].")
    with pytest.raises(ValueError, match=r"b\.mp4: a transcript needs words"):
        write_transcripts(tmp_path / "u", [("b.mp4", Transcript(3, np.zeros(0), []))], {})
    times = tmp_path / "t" / "times.npy"
    times.write_bytes(times.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"times\.npy: damaged"):
        read_transcripts(tmp_path / "t", "", "k.")
    write_transcripts(tmp_path / "u", [("a.mp4", said)], {})
    write_transcripts(tmp_path / "t", [("a.mp4", said), ("b.mp4", said)], {})
    shutil.copy(tmp_path / "u" / "paths.npy", tmp_path / "t" / "paths.npy")
    with pytest.raises(ValueError, match=r"paths\.npy: damaged, expected 2 entries, found 1"):
        read_transcripts(tmp_path / "t", "", "k.")
