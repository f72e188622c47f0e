"""Several lists in turn: which batches come when, what a sample holds, and what is refused."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clip.tokenizer import tokenize
from datasets.check.__main__ import main as check
from datasets.clips.samplers import TrainBatches
from datasets.clips.video import collate
from datasets.decode.readers import UnreadableVideo
from datasets.lists.transcripts import Transcript, read_transcripts, write_transcripts
from datasets.pack.__main__ import main as pack
from datasets.sources.batches import SourceBatches
from datasets.sources.build import build_order_loader, build_source_loader, fingerprint_of, read_order, read_sources
from datasets.sources.kinds import Transcripts
from datasets.sources.videos import MAY_FLIP, UPRIGHT
from modules.build import load_config
from utils.config import to_yaml

TOKENS = {word: tokenize([word])[0] for word in ("a bar that goes on", "a bar that goes away")}


def turns(lengths: tuple[int, ...], batch_sizes: tuple[int, ...] = (2, 3), rank: int = 0, world: int = 1):
    return SourceBatches([
        TrainBatches(length, size, rank, world, seed=number)
        for number, (length, size) in enumerate(zip(lengths, batch_sizes, strict=False))
    ])  # fmt: skip


def batches(sampler: SourceBatches, epochs: int) -> list[list[tuple[int, ...]]]:
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += list(sampler)
    return found


@pytest.mark.parametrize("lengths", [(8, 12), (8, 6), (8, 50), (8, 13), (4, 3)])
def test_sources_come_in_turn_and_each_goes_through_passes_of_its_own(lengths):
    sampler = turns(lengths)
    assert len(sampler) == 2 * (lengths[0] // 2)
    found = batches(sampler, epochs=5)
    assert [batch[0][0] for batch in found] == [0, 1] * (len(found) // 2)
    for source, (length, size) in enumerate(zip(lengths, (2, 3), strict=True)):
        mine = [key for batch in found for key in batch if key[0] == source]
        per_pass = length // size * size
        for number, start in enumerate(range(0, len(mine), per_pass)):
            of_pass = mine[start : start + per_pass]
            assert {key[1] for key in of_pass} == {number}
            assert len({key[2] for key in of_pass}) == len(of_pass)  # no video twice in a pass


@pytest.mark.parametrize("lengths", [(8, 6), (8, 50), (9, 12)])
def test_a_place_follows_from_epoch_and_step_alone(lengths):
    whole = batches(turns(lengths), epochs=4)
    per_epoch = len(turns(lengths))
    for place in range(len(whole)):
        sampler = turns(lengths)
        sampler.set_epoch(*divmod(place, per_epoch))
        assert list(sampler) == whole[place : place - place % per_epoch + per_epoch]


def test_processes_share_each_batch():
    one = batches(turns((12, 18), (4, 6)), 2)
    parts = [batches(turns((12, 18), (2, 3), rank, world=2), 2) for rank in range(2)]
    assert [left + right for left, right in zip(*parts, strict=True)] == one


def test_three_sources_take_turns_too():
    sampler = turns((4, 6, 2), (2, 3, 1))
    assert [batch[0][0] for batch in sampler] == [0, 1, 2, 0, 1, 2]
    assert (sampler.turns, sampler.num_videos, sampler.videos_per_step) == (3, 12, 2)


def test_a_source_of_less_than_a_batch_is_named(debug_config, debug_texts):
    data = load_config(debug_config, debug_texts).data
    few = replace(data, sources=(data.sources[0], replace(data.sources[1], batch_size=13)))
    message = r"data\.sources\[1\]\.list has 12 videos.*lower data\.sources\[1\]\.batch_size"
    with pytest.raises(ValueError, match=message):
        build_source_loader(few, read_sources(few), tokenize, 0, 0, 1)


@pytest.fixture
def data(debug_config, debug_texts):
    return load_config(debug_config, debug_texts).data


@pytest.fixture
def videos(data):
    return build_source_loader(data, read_sources(data), tokenize, 0, 0, 1).dataset


def test_a_caption_is_one_of_its_video_the_same_at_each_call(videos):
    samples = [videos[1, number, 3] for number in range(12)]
    assert all(sample.clips.shape == (1, 4, 3, 32, 32) for sample in samples)
    kinds = [next(text for text, row in TOKENS.items() if torch.equal(row, sample.texts[0])) for sample in samples]
    assert set(kinds) == TOKENS.keys()
    again = videos[1, 5, 3]
    assert torch.equal(again.clips, samples[5].clips)
    assert torch.equal(again.texts, samples[5].texts)
    assert not torch.equal(samples[4].clips, samples[5].clips)


def test_transcripts_keep_their_order_and_copies_draw_alike(videos):
    sample = videos[0, 2, 1]
    texts = videos.sources[0].texts
    spoken = texts.transcripts.transcript(1)
    assert sample.texts.shape == (3, 77)
    visit = texts.visit(1, videos.sources[0].rule, np.random.default_rng((videos.sources[0].seed, 2, 1)))
    assert torch.equal(tokenize(visit.texts), sample.texts)
    assert " ".join(visit.texts[0].split()) in " ".join(" ".join(spoken.words).split())
    copied = pickle.loads(pickle.dumps(videos))[0, 2, 1]
    assert torch.equal(copied.texts, sample.texts)
    assert torch.equal(copied.clips, sample.clips)


def test_a_batch_has_the_texts_of_its_clips_and_counts_those_that_were_cut(data):
    sources = read_sources(data)
    long = replace(sources[1].texts, text=np.frombuffer(b"x " * 5000, np.uint8), ends=np.arange(1, 25) * 400)
    loader = build_source_loader(data, [replace(sources[1], texts=long)], tokenize, 0, 0, 1)
    batch = collate([loader.dataset[0, 0, index] for index in range(3)])
    assert batch.texts.shape == (3, 1, 77)
    assert batch.num_cut == 3
    assert (batch.texts[:, 0, -1] == tokenize([""])[0, 1]).all()  # the end token
    exact = "x " * 75
    whole = replace(long, text=np.frombuffer(exact.encode() * 24, np.uint8), ends=np.arange(1, 25) * 150)
    loader = build_source_loader(data, [replace(sources[1], texts=whole)], tokenize, 0, 0, 1)
    assert loader.dataset[0, 0, 0].num_cut == 0


@pytest.mark.parametrize(("kind", "expected"), [(UPRIGHT, {False}), (MAY_FLIP, {False, True})])
def test_clips_are_mirrored_only_where_no_word_says_a_direction(data, kind, expected):
    still = replace(data, crop_area=(1.0, 1.0), transforms="mote")
    transform = build_source_loader(still, read_sources(still), tokenize, 0, 0, 1).dataset.sources[0].transform
    frames, found = torch.arange(0, 256, 32, dtype=torch.uint8).repeat(1, 3, 8, 1), set()
    for seed in range(20):
        torch.manual_seed(seed)
        clip, _ = transform(frames, kind)
        found.add(bool(clip[0, 0, 0, 0] > clip[0, 0, 0, -1]))
    assert found == expected


@pytest.mark.parametrize(("text", "kind"), [("goes left.", UPRIGHT), ("goes on now", MAY_FLIP)])
def test_directions_are_found_in_texts(videos, monkeypatch, text, kind):
    seen = []
    captions = videos.sources[1]

    def transform(frames, label):
        seen.append(label)
        return captions.transform(frames, label)

    texts = replace(captions.texts, text=np.frombuffer(text.encode() * 24, np.uint8), ends=np.arange(1, 25) * len(text))
    replace(captions, texts=texts, transform=transform)[0, 0]
    assert seen == [kind]


def test_unreadable_videos_and_silent_ones_are_replaced_and_named(data, tmp_path, debug_data):
    said = Transcript(30, np.arange(0.25, 30, 0.5), ["go"] * 60)
    silent = Transcript(30, np.array([1.0]), ["go"])
    short = said._replace(duration=2)
    names = ["train 00.mp4", "train 01.mp4", "train 02.mp4", "gone.mp4"]
    write_transcripts(tmp_path / "t", zip(names, (said, silent, short, said), strict=True), {})
    source = replace(data.sources[0], list=str(tmp_path / "t"))
    one = replace(data, sources=(source,))
    dataset = build_source_loader(one, read_sources(one), tokenize, 0, 0, 1).dataset
    found = {}
    for index in range(1, 4):
        sample = dataset[0, 0, index]
        assert sample.index == 0
        assert sample.failures[0].path == names[index]
        found |= dict(sample.failures)
    assert "no words in some of 3 spans, however they were drawn" in found["train 01.mp4"]
    assert "2 s are too short for 3 spans" in found["train 02.mp4"]
    assert "no such file" in found["gone.mp4"]


def test_few_frames_in_a_long_video_are_a_failure(tmp_path):
    write_transcripts(tmp_path / "t", [("a.mp4", Transcript(60, np.arange(0.5, 60, 0.5), ["go"] * 119))], {})
    texts = Transcripts(read_transcripts(tmp_path / "t", "", "k."), 4)
    rng = np.random.default_rng(0)
    visit = texts.visit(0, lambda num_frames, rng: np.arange(num_frames), rng)
    assert 0 < len(visit.indices_of(600, rng=rng)) < 600
    with pytest.raises(UnreadableVideo, match="2 frames in 60 s: none in the spans"):
        visit.indices_of(2, rng=rng)


def test_damaged_words_are_a_failure(tmp_path):
    write_transcripts(tmp_path / "t", [("a.mp4", Transcript(60, np.arange(0.5, 60, 0.5), ["caf\u00e9"] * 119))], {})
    ends = np.load(tmp_path / "t" / "word_ends.npy")
    np.save(tmp_path / "t" / "word_ends.npy", np.where(np.arange(119) == 50, ends - 1, ends))
    texts = Transcripts(read_transcripts(tmp_path / "t", "", "k."), 4)
    with pytest.raises(UnreadableVideo, match="damaged words of its transcript"):
        texts.visit(0, lambda num_frames, rng: np.arange(num_frames), np.random.default_rng(0))


def test_order_is_asked_with_the_same_visit_each_time(data):
    ordered = read_order(data)
    loader = build_order_loader(ordered, tokenize, 0, 0, 1)
    first, second = (list(loader) for _ in range(2))
    assert sum(len(batch.indices) for batch in first) == len(ordered.texts.videos)
    for batch, again in zip(first, second, strict=True):
        assert torch.equal(batch.texts, again.texts)
        assert torch.equal(batch.clips, again.clips)
    share = build_order_loader(ordered, tokenize, 0, 1, 2)
    assert torch.cat([batch.indices for batch in share]).tolist() == list(range(1, len(ordered.texts.videos), 2))


def test_padding_is_told_in_training_and_where_order_is_asked(data):
    short = replace(data, transforms="tvts", num_segments=77)  # more than the videos have
    training = build_source_loader(short, read_sources(short), tokenize, 0, 0, 1).dataset
    order = build_order_loader(read_order(short), tokenize, 0, 0, 1).dataset
    for sample in (training[0, 0, 0], training[1, 0, 0], order[0]):
        (length,), ((clip,),) = sample.lengths, sample.clips[None]
        assert 0 < length < 77
        assert clip[:length].flatten(1).any(dim=1).all()
        assert not clip[length:].any()


def test_lists_are_told_apart_by_their_fingerprint(data, tmp_path):
    sources = read_sources(data)
    assert fingerprint_of(sources) == fingerprint_of(read_sources(data))
    assert fingerprint_of(sources) != fingerprint_of(sources[::-1])
    other_order = tmp_path / "other_order.tsv"
    other_order.write_text("".join(reversed(Path(data.sources[1].list).read_text().splitlines(keepends=True))))
    changed = replace(data, sources=(data.sources[0], replace(data.sources[1], list=str(other_order))))
    assert fingerprint_of(sources) != fingerprint_of(read_sources(changed))  # other videos come at the same step


WRONG = {
    "no kind": ({"kind": ""}, ValueError, r"data\.sources\[0\]\.kind: expected one of captions, transcripts"),
    "kind": ({"kind": "subtitles"}, ValueError, r"data\.sources\[0\]\.kind: expected one of captions, transcripts"),
    "no list": ({"kind": "captions", "list": ""}, ValueError, r"data\.sources\[0\]\.list is not set"),
    "no file": ({"kind": "captions", "list": "gone.tsv"}, FileNotFoundError, r"data\.sources\[0\]\.list 'gone\.tsv'"),
    "no folder": ({"list": "gone"}, FileNotFoundError, r"data\.sources\[0\]\.list 'gone'.*transcripts\.json"),
    "no root": ({"root": "gone"}, FileNotFoundError, r"data\.sources\[0\]\.root 'gone': no such folder"),
    "no pack": ({"modality": "shards"}, FileNotFoundError, "no packed videos here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sources_are_named(data, name):
    changes, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        read_sources(replace(data, sources=(replace(data.sources[0], **changes),)))


def test_an_empty_list_of_captions_is_named_by_its_key(data, tmp_path):
    (tmp_path / "empty.tsv").write_text("\n")
    empty = replace(data, sources=(replace(data.sources[1], list=str(tmp_path / "empty.tsv")),))
    with pytest.raises(ValueError, match=r"^data\.sources\[0\]\.list .*empty\.tsv: the list is empty"):
        read_sources(empty)


def test_a_wrong_line_is_named_and_other_keys_that_mean_the_same_are_refused(data, tmp_path):
    path = tmp_path / "captions.tsv"
    path.write_text("a.mp4\ta caption\nb.mp4 another\n")
    wrong = replace(data, sources=(replace(data.sources[1], list=str(path)),))
    with pytest.raises(ValueError, match=r"captions\.tsv:2: expected 'path TAB caption'"):
        read_sources(wrong)
    with pytest.raises(ValueError, match=r"data\.sources takes the place of data\.train_list"):
        read_sources(replace(data, train_list="train.txt"))
    with pytest.raises(ValueError, match=r"data\.modality features: data\.sources reads videos"):
        read_sources(replace(data, modality="features"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.sources=[{kind: captions, batch_size: -1}]",
            r"data\.sources\.batch_size: expected 0 to 65536, found -1",
        ),
        ("data.sources=[{kind: 3}]", r"data\.sources\.kind: expected str, found 3"),
        ("data.sources=[{kind: captions, lists: a}]", r"unknown key data\.sources\.lists"),
        ("data.sources=[{kind: captions, rot: a}]", r"data\.sources\.rot; the nearest is data\.sources\.root"),
        ("data.sources=captions", r"data\.sources: expected a list of sections, found 'captions'"),
        ("data.sources=[{kind: captions, modality: RGB}]", r"data\.sources\.modality: expected one of video, shards"),
    ],
)
def test_settings_of_sources_are_checked(debug_config, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(debug_config, [override])


def test_captions_of_packed_videos(data, debug_data, tmp_path):
    captions = Path(data.sources[1].list)
    pack([str(captions), "--root", str(debug_data / "videos"), "--out", str(tmp_path / "p"), "--workers", "0"])
    places = {"root": str(tmp_path / "p"), "list": str(tmp_path / "p" / "list.txt")}
    one = replace(data, sources=(replace(data.sources[1], modality="shards", **places),))
    sample = build_source_loader(one, read_sources(one), tokenize, 0, 0, 1).dataset[0, 0, 3]
    assert sample.clips.shape == (1, 4, 3, 32, 32)
    assert (tmp_path / "p" / "list.txt").read_text() == captions.read_text()


def test_packed_videos_of_transcripts(data, debug_data, tmp_path):
    source = data.sources[0]
    pack([source.list, "--root", str(debug_data / "videos"), "--out", str(tmp_path / "p"), "--workers", "0"])
    one = replace(data, sources=(replace(source, modality="shards", root=str(tmp_path / "p")),))
    sample = build_source_loader(one, read_sources(one), tokenize, 0, 0, 1).dataset[0, 0, 3]
    assert sample.clips.shape == (1, 4, 3, 32, 32)


def test_captions_of_videos_that_cannot_be_packed_are_left_out(debug_data, tmp_path):
    (tmp_path / "c.tsv").write_text("train 00.mp4\tone\ngone.mp4\ttwo\ntrain 01.mp4\tthree\n")
    with pytest.raises(SystemExit):
        pack(
            [
                str(tmp_path / "c.tsv"),
                "--root",
                str(debug_data / "videos"),
                "--out",
                str(tmp_path / "p"),
                "--workers",
                "0",
            ]
        )
    assert (tmp_path / "p" / "list.txt").read_text() == "train 00.mp4\tone\ntrain 01.mp4\tthree\n"


def test_the_lists_of_sources_are_checked_like_others(debug_config, debug_texts, tmp_path, capsys):
    config = tmp_path / "texts.yaml"
    config.write_text(to_yaml(load_config(debug_config, debug_texts)))
    assert check([str(config), "--out", str(tmp_path / "out"), "--workers", "2", "--frames", "sample"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {name: entry["num_videos"] for name, entry in report["lists"].items()} == {
        "source_0": 10, "source_1": 12, "val": 8,
    }  # fmt: skip
    assert not list((tmp_path / "out").glob("*_clean.txt"))


@pytest.mark.parametrize("lines", ["{}\ta caption\n", "{}\t1\tone option\tanother\n"])
def test_a_list_of_texts_is_checked_alone_and_through_a_configuration(debug_config, debug_data, lines, tmp_path):
    path, root = tmp_path / "texts.tsv", str(debug_data / "videos")
    path.write_text("".join(lines.format(name) for name in ("train 00.mp4", "gone.mp4")))
    config = tmp_path / "texts.yaml"
    config.write_text(f"data: {{dataset: d, val_root: {root}, val_list: {path}}}\n")
    for name, arguments in {"list": [str(path), "--root", root], "val": [str(config)]}.items():
        assert check([*arguments, "--out", str(tmp_path / name), "--workers", "1", "--frames", "sample"]) == 1
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["lists"][name]["num_videos"] == 2
        assert [problem["path"] for problem in report["problems"]] == ["gone.mp4"]


def test_a_pack_keeps_a_list_of_choices(debug_data, tmp_path):
    listed = tmp_path / "choices.tsv"
    listed.write_text("val 00.mp4\t1\ta bar\ta cross\nval 01.mp4\t0\ta bar\ta cross\n")
    pack([str(listed), "--root", str(debug_data / "videos"), "--out", str(tmp_path / "p"), "--workers", "0"])
    assert (tmp_path / "p" / "list.txt").read_text() == listed.read_text()
