"""Videos with texts that cannot be trained on or searched among: captions, transcripts, sources, a linear probe."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from datasets.lists.transcripts import Transcript, write_transcripts
from tests.bad_inputs.kinds import Bad, Make, Places, text

SAID = {
    "info": {"duration": 30},
    "subtitles": [{"word": word, "time": float(second)} for second, word in enumerate("abcdefgh")],
    "denoised": [{"cleanasr": "a b c d e f g h"}],
}


def annotated(content: Any, listed: str = "s/data/v.mp4\n") -> Make:
    """A list of videos, and annotations of the one ``s/data/v.mp4``; bytes stay as they are."""

    def make(folder: Path, _: Places) -> None:
        (folder / "s" / "annotations").mkdir(parents=True)
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / "s" / "annotations" / "v.json").write_bytes(encoded)
        (folder / "l.txt").write_text(listed)

    return make


# Annotations of the only video of a list, and what the message must say beside its name.
ANNOTATIONS: dict[str, tuple[Any, str]] = {
    "empty": (b"", "not JSON"),
    "half a file": (json.dumps(SAID).encode()[:60], "not JSON"),
    "bytes": (bytes(range(128, 256)), "not JSON"),
    "a list": ([SAID], "expected an object"),
    "a word without a time": (SAID | {"subtitles": [{"word": "a"}]}, r"subtitles\[0\]"),
    "a time that is none": (SAID | {"subtitles": [{"word": "a", "time": float("nan")}]}, r"subtitles\[0\]"),
    "no words": (SAID | {"subtitles": []}, "no words in subtitles"),
    "blank texts": (SAID | {"denoised": [{"cleanasr": " "}]}, "no words in denoised"),
    "no duration": (SAID | {"info": None}, r"info\.duration"),
}
# Lists of videos with transcripts.
VIDEO_LISTS = {
    "empty": ("", "no videos"),
    "a video twice": ("s/data/v.mp4\ns/data/v.mp4\n", ":2.*line 1"),
    "captions": ("s/data/v.mp4\ta bar\n", ":1.*path of a video"),
    "labels": ("s/data/v.mp4 3\n", ":1.*path of a video"),
    "names": ("s/data/v.mp4\nv\n", ":2.*path of a video"),
}


def spoken(duration: int, num_words: int, num_videos: int = 8) -> Make:
    """A folder of transcripts beside a list of captions, both of the debug data's videos."""

    def make(folder: Path, places: Places) -> None:
        names = sorted(path.name for path in (places.data / "videos").glob("*.mp4"))
        said = Transcript(duration, np.linspace(0, duration, num_words + 2)[1:-1], ["word"] * num_words)
        write_transcripts(folder / "t", [(name, said) for name in names[:num_videos]], {})
        (folder / "c.tsv").write_text("".join(f"{name}\ta bar\n" for name in names))
        (folder / "labels.tsv").write_text("".join(f"{name}\t1\n" for name in names))
        (folder / "gone.tsv").write_text("".join(f"gone {name}\ta bar\n" for name in names))

    return make


def broken(name: str, change: str) -> Make:
    """As ``spoken``, with one of its files away, or cut."""

    def make(folder: Path, places: Places) -> None:
        spoken(30, 90)(folder, places)
        path = folder / "t" / name
        if change == "away":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-8])

    return make


TVTS = ["network.system=tvtsv2", "network.sim_header=None", "network.fix_text=False", "solver.loss_type=contrast",
        "tvtsv2.sorter_heads=4", "data.train_root=", "data.train_list=", "data.label_list=", "data.num_classes=0",
        "data.val_list={w}/c.tsv", "solver.epochs=1"]  # fmt: skip
TRAIN = ["--config", "{config}", "--log_time", "x", "--precision", "fp32", "data.output_path={w}/runs", *TVTS]
GOOD = "{kind: captions, root: '{data}/videos', list: '{w}/c.tsv'}"
SPOKEN = "{kind: transcripts, root: '{data}/videos', list: '{w}/t'}"
# Sources, and what the message must say.
SOURCES: dict[str, tuple[list[str], str]] = {
    "no list": (["data.sources=[{kind: captions}]"], r"data\.sources\[0\]\.list is not set"),
    "none": (["data.sources=[]"], r"data\.sources"),
    "an unknown kind": (["data.sources=[{kind: words}]"], r"data\.sources\[0\]\.kind.*captions, transcripts.*words"),
    "an unknown key": (["data.sources=[{kind: captions, rot: x}]"], r"data\.sources\.rot.*data\.sources\.root"),
    "a word": (["data.sources=captions"], r"data\.sources: expected a list of sections"),
    "a list that is away": (["data.sources=[{kind: captions, list: '{w}/no.tsv'}]"], r"sources\[0\].*no\.tsv"),
    "a root that is away": ([f"data.sources=[{GOOD.replace('{data}', '{w}/no')}]"], r"sources\[0\]\.root.*no"),
    "labels": ([f"data.sources=[{GOOD.replace('c.tsv', 'labels.tsv')}]"], r"labels\.tsv.*found labels"),
    "no video is there": ([f"data.sources=[{SPOKEN}, {GOOD.replace('c.tsv', 'gone.tsv')}]"], r"sources\[1\].*gone"),
    "captions for transcripts": ([f"data.sources=[{SPOKEN.replace('/t', '/c.tsv')}]"], r"sources\[0\].*transcripts"),
    "transcripts for captions": ([f"data.sources=[{GOOD.replace('/c.tsv', '/t')}]"], r"sources\[0\]\.list.*not a file"),
    "beside a list": ([f"data.sources=[{GOOD}]", "data.train_list={data}/train.txt"], r"data\.train_list"),
    "beside labels": ([f"data.sources=[{GOOD}]", "data.label_list={data}/labels.csv"], r"data\.label_list"),
    "another number of places": ([f"data.sources=[{SPOKEN}]", "tvtsv2.sorter_places=3"], r"sources\[0\]\.num_texts"),
    "more text blocks than there are": (
        [f"data.sources=[{GOOD}]", "tvtsv2.text_layers=9"], r"tvtsv2\.text_layers: expected at most \d",
    ),
    "fewer videos than a batch": ([f"data.sources=[{GOOD}]", "data.batch_size=1000"], r"sources\[0\]\.list.*1000"),
    "nothing to validate": ([f"data.sources=[{GOOD}]", "data.val_list="], r"data\.val_list"),
    "for a system of labels": ([f"data.sources=[{GOOD}]", "solver.loss_type=CE"], r"data\.sources"),
    "frames for videos": ([f"data.sources=[{GOOD.replace('}', ', modality: RGB}')}]"], r"data\.sources\.modality"),
    "validated with captions in order": (
        [f"data.sources=[{GOOD}]", f"data.val_transcripts={GOOD}"], r"data\.val_transcripts\.kind",
    ),
}  # fmt: skip
# Folders of transcripts that training starts from.
FOLDERS: dict[str, tuple[Make, str]] = {
    "not finished": (broken("transcripts.json", "away"), "transcripts.json"),
    "an array is away": (broken("times.npy", "away"), "times.npy"),
    "an array is cut": (broken("word_ends.npy", "cut"), "word_ends.npy"),
    "text is cut": (broken("text.npy", "cut"), r"(text\.npy|/t)"),
    "videos shorter than their spans": (spoken(3, 20), "video"),
    "nobody speaks": (spoken(60, 1), "video"),
}

PROBE = ["--config", "{config}", "--weights", "clip", "--precision", "fp32", "--output", "{w}/out"]
ONE_CLASS = text("one.txt", "train 00.mp4 0\ntrain 04.mp4 0\n")
LOST = text("lost.txt", "gone.mp4 0\nlost.mp4 1\n")
PROBES: dict[str, tuple[list[str], str, Make | None]] = {
    "an unknown solver": (["--solver", "svm"], r"probe\.solver.*logistic, linear.*svm", None),
    "one class": (["data.train_list={w}/one.txt"], "at least 2 classes", ONE_CLASS),
    "no training video": (["data.train_list={w}/lost.txt"], r"data\.train_list.*gone\.mp4", LOST),
    "no test video": (["data.val_list={w}/lost.txt"], r"data\.val_list.*gone\.mp4", LOST),
    "no training list": (["data.train_list="], r"data\.train_list", None),
    "captions": (["data.train_list={w}/c.tsv"], r"c\.tsv:1", text("c.tsv", "train 00.mp4\ta bar\n")),
    "no shots": (["--shots", "0"], "--shots", None),
    "more shots than videos": (["--shots", "9"], r"data\.shot", None),
    "a negative value": (["probe.values=[-1]"], r"probe\.values", None),
    "all videos held out": (["probe.held_out=1.0"], r"probe\.held_out", None),
    "vectors in a file": (["--vectors", "{w}/one.txt"], r"one\.txt", ONE_CLASS),
    "a page": (["--report", "{w}/page"], "--report", None),
}

RETRIEVE = ["--config", "{config}", "--weights", "clip", "--precision", "fp32", "--output", "{w}/out"]
CAPTIONS = text("l.tsv", "val 00.mp4\ta bar\n")
RETRIEVALS: dict[str, tuple[list[str], str, Make]] = {
    "a negative lambda": (["--dual_softmax=-1"], r"eval\.dual_softmax", CAPTIONS),
    "a lambda that is none": (["--dual_softmax", "nan"], r"eval\.dual_softmax", CAPTIONS),
    "an unknown rule for ties": (["eval.tie_rule=best"], r"eval\.tie_rule.*mean, published.*best", CAPTIONS),
    "choices with a lambda": (["--choices", "--dual_softmax", "3"], "--choices", CAPTIONS),
    "choices without their option": ([], r"l\.tsv:1.*--choices", text("l.tsv", "val 00.mp4\t0\ta bar\ta cross\n")),
    "labels behind tabs": ([], r"l\.tsv.*found labels", text("l.tsv", "val 00.mp4\t0\nval 01.mp4\t1\n")),
    "a header": ([], r"l\.tsv:1.*no header", text("l.tsv", "path\tcaption\nval 00.mp4\ta bar\n")),
    "blanks for tabs": ([], r"l\.tsv:1.*TAB", text("l.tsv", "val 00.mp4    a bar\n")),
    "one option": (["--choices"], r"l\.tsv:1.*two options", text("l.tsv", "val 00.mp4\t0\ta bar\n")),
    "an answer in words": (["--choices"], r"l\.tsv:1.*number.*one", text("l.tsv", "val 00.mp4\tone\ta bar\ta cross\n")),
}


def _table(name: str, content: str) -> Make:
    def make(folder: Path, places: Places) -> None:
        shutil.copytree(places.data / "videos", folder / "v")
        (folder / name).write_text(content)

    return make


TABLES: dict[str, tuple[list[str], str, Make]] = {
    "webvid, no table": (["webvid"], "--annotations", _table("other.txt", "")),
    "webvid, another table": (["webvid"], r"webvid_train\.tsv", _table("webvid_train.tsv", "")),
    "webvid, no caption": (["webvid"], r"webvid_train\.tsv:2", _table("webvid_train.tsv", "caption\tpath\n \tx\n")),
    "webvid, none is there": (["webvid"], "no video.*x.mp4", _table("webvid_train.tsv", "caption\tpath\na bar\tx\n")),
    "yttemporal, no column": (["yttemporal"], "name", _table("yttemporal_train.csv", "video\ns/data/v.mp4\n")),
    "msrvtt, no table": (["msrvtt"], "--annotations", _table("other.txt", "")),
    "ssv2_mc, no options": (["ssv2_mc"], r"val\.jsonl:1", _table("val.jsonl", '{"clip_name": "a.mp4"}\n')),
}


def _transcripts(kind: str, says: str, make: Make) -> Bad:
    arguments = ["transcripts", "{w}/l.txt", "--annotations", "{w}", "--out", "{w}/out", "--workers", "0"]
    return Bad(f"transcripts: {kind}", "datasets.prepare", arguments, says, make)


TEXT_KINDS = (
    [_transcripts(kind, rf"(?=.*l\.txt)(?=.*v\.json).*({says})", annotated(content))
     for kind, (content, says) in ANNOTATIONS.items()]
    + [_transcripts(f"list, {kind}", rf"(?=.*l\.txt).*({says})", annotated(SAID, listed))
       for kind, (listed, says) in VIDEO_LISTS.items()]
    + [Bad(f"sources: {kind}", "train", [*TRAIN, *overrides], says, spoken(30, 90))
       for kind, (overrides, says) in SOURCES.items()]
    + [Bad(f"sources: transcripts, {kind}", "train", [*TRAIN, f"data.sources=[{SPOKEN}]"], says, make)
       for kind, (make, says) in FOLDERS.items()]
    + [Bad(f"probe: {kind}", "probe", [*PROBE, *arguments], says, make)
       for kind, (arguments, says, make) in PROBES.items()]
    + [Bad(f"retrieval: {kind}", "test_retrieval", [*RETRIEVE, "data.val_list={w}/l.tsv", *arguments], says, make)
       for kind, (arguments, says, make) in RETRIEVALS.items()]
    + [Bad(f"prepare: {kind}", "datasets.prepare", [*arguments, "--videos", "{w}/v", "--annotations", "{w}", "--out",
                                                    "{w}/out"], says, make)
       for kind, (arguments, says, make) in TABLES.items()]
)  # fmt: skip
