"""The films of the built-in shapes set: videos of several acts, their captions and transcripts."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import av
import numpy as np
import pytest

from datasets.decode.pyav_reader import PyAVReader
from datasets.shapes.__main__ import main
from datasets.shapes.captions import ONE_MOTION, PUNCTUATION, TOLD, TWO_MOTIONS
from datasets.shapes.films import (
    ACT_SECONDS,
    FILM_PARTS,
    REST_SECONDS,
    RETRIEVAL,
    STORIES,
    film_transcript,
    films_of,
    render_film,
    write_films,
)
from datasets.shapes.videos import ShapesSpec, videos_of
from datasets.shapes.world import MOTIONS, OBJECTS, PARTS, classes_of

SPEC = ShapesSpec(seed=3, scale=0.02)
WHOLE = ShapesSpec(seed=0)


@pytest.fixture(scope="module")
def films_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    write_films(root, SPEC)
    return root


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def captions_of(root, name: str) -> dict[str, str]:
    return dict(line.split("\t") for line in (root / "lists" / f"{name}.txt").read_text().splitlines())


def test_a_killed_run_is_completed_to_the_same_files(films_root, tmp_path):
    write_films(tmp_path, SPEC)
    (tmp_path / "films_complete.json").unlink()
    (tmp_path / "videos" / "story_val" / "data" / "0001.mp4").unlink()
    (tmp_path / "lists" / "retrieval.txt").write_text("half")
    write_films(tmp_path, SPEC)
    assert contents(tmp_path) == contents(films_root)


def test_the_command_writes_them_beside_the_other_parts(films_root, tmp_path):
    main(["--out", str(tmp_path), "--seed", "3", "--scale", "0.02", "--workers", "1", "--films"])
    written, films = contents(tmp_path), contents(films_root)
    assert {name: written[name] for name in films} == films
    assert {part for part in PARTS if f"lists/{part}.txt" in written} == set(PARTS)


def test_films_of_other_settings_are_refused(films_root):
    with pytest.raises(ValueError, match=r"was made with other settings: .*seed was 3, is 4"):
        write_films(films_root, ShapesSpec(seed=4, scale=0.02))


def test_a_folder_of_an_older_set_is_refused_in_one_line(repo_root, tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"version": 0}))
    command = [sys.executable, "-m", "datasets.shapes", "--films", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: .* was made with other settings: .*; choose a new folder or remove this one", last)
    assert "Traceback" not in done.stderr


def test_training_has_a_caption_for_every_video_in_several_phrasings(films_root):
    captions = captions_of(films_root, "captions_train")
    assert list(captions) == [v.path for part in (videos_of, films_of) for v in part(NAMES[part], SPEC)]
    assert len({re.sub(r"\b(an?) \w+", "X", text) for text in captions.values()}) > 10
    for video in videos_of("train", SPEC):
        for words in (OBJECTS[video.shape_class.object_id], MOTIONS[video.shape_class.motion_id].name):
            assert words in captions[video.path]


NAMES = {videos_of: "train", films_of: "duo_train"}


@pytest.mark.parametrize(("name", "part"), [("captions_val", "duo_val"), *RETRIEVAL.items()])
def test_lists_of_captions_name_the_videos_of_their_part(films_root, name, part):
    captions = captions_of(films_root, name)
    assert list(captions) == [film.path for film in films_of(part, SPEC)]
    for film in films_of(part, SPEC):
        first, second = (MOTIONS[act.motion_id].name for act in film.acts)
        assert re.search(f"{first}.*{second}", captions[film.path])
        assert OBJECTS[film.acts[0].object_id] in captions[film.path]
        assert (films_root / "videos" / film.path).is_file()


@pytest.mark.parametrize("part", RETRIEVAL.values())
def test_a_caption_of_a_retrieval_test_fits_one_video_and_the_reverse_order_another(part):
    films = films_of(part, WHOLE)
    acts = {film.acts for film in films}
    assert len(acts) == len(films) == 96
    assert {of_film[::-1] for of_film in acts} == acts
    assert all(first.object_id == second.object_id for first, second in acts)


def test_one_retrieval_test_has_the_pairs_of_object_and_motion_that_training_has_and_the_other_none():
    trained = {act for part in ("duo_train", *STORIES) for film in films_of(part, WHOLE) for act in film.acts}
    assert trained == set(classes_of("seen"))
    assert trained.isdisjoint(act for film in films_of("duo_test", WHOLE) for act in film.acts)
    assert trained == {act for film in films_of("duo_seen", WHOLE) for act in film.acts}


def test_films_of_the_same_acts_in_two_parts_are_others():
    first, second = (render_film(films_of(part, WHOLE)[0], SPEC.seed) for part in ("duo_val", "duo_seen"))
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_stories_have_four_different_acts_and_differ_between_training_and_validation():
    train, val = ([film.acts for film in films_of(part, WHOLE)] for part in STORIES)
    assert all(len(set(acts)) == 4 for acts in (*train, *val))
    assert len(set(train)) == len(train)
    assert set(train).isdisjoint(val)


@pytest.mark.parametrize("part", STORIES)
def test_words_are_told_in_order_each_while_its_act_lasts(films_root, part):
    names = (films_root / "lists" / f"{part}.csv").read_text().splitlines()
    assert names == ["Name", *(film.path for film in films_of(part, SPEC))]
    for film in films_of(part, SPEC):
        content = json.loads((films_root / "videos" / part / "annotations" / f"{film.index:04d}.json").read_text())
        words, times = zip(*(entry.values() for entry in content["subtitles"]), strict=True)
        assert all(before < after for before, after in pairwise(times))
        assert content["info"]["duration"] == 4 * (ACT_SECONDS + REST_SECONDS)
        for place, act in enumerate(film.acts):
            start = place * (ACT_SECONDS + REST_SECONDS)
            told = [word for word, time in zip(words, times, strict=True) if start < time < start + ACT_SECONDS]
            assert f"{OBJECTS[act.object_id]}" in " ".join(told)
            assert f"{MOTIONS[act.motion_id].name}" in " ".join(told)
            written = content["denoised"][place]["cleanasr"]
            assert told == written.translate(str.maketrans("", "", PUNCTUATION)).lower().split()


def test_no_words_tell_the_place_of_an_act():
    assert not any(word in form.lower() for form in TOLD for word in ("first", "then", "next", "after", "end", "last"))
    assert all(len(set(forms)) == len(forms) >= 5 for forms in (ONE_MOTION, TWO_MOTIONS, TOLD))


@pytest.mark.parametrize("part", FILM_PARTS)
def test_a_film_shows_its_acts_one_after_the_other(films_root, part):
    film = films_of(part, SPEC)[-1]
    rendered = render_film(film, SPEC.seed)
    decoded = PyAVReader(films_root / "videos" / film.path)
    frames = decoded.read(np.arange(decoded.num_frames)).permute(0, 2, 3, 1).numpy()
    assert frames.shape == rendered.shape
    assert np.abs(frames.astype(float) - rendered).mean() < 20  # noise and colour are compressed away
    assert len(rendered) % len(film.acts) == 0
    # Between two acts there is a cut, the largest change of all.
    changes = np.abs(np.diff(rendered.astype(float), axis=0)).mean(axis=(1, 2, 3))
    cuts = np.arange(1, len(film.acts)) * (len(rendered) // len(film.acts)) - 1
    assert set(np.argsort(changes)[-len(cuts) :]) == set(cuts)


@pytest.mark.parametrize("part", ["duo_val", "story_val"])
def test_scenes_of_a_film_are_those_of_its_acts_in_their_order(monkeypatch, part):
    film = films_of(part, SPEC)[0]

    def numbered(scenes, instants, hints, size, generator):
        assert scenes.object_ids.tolist() == [act.object_id for act in film.acts]
        assert (instants[:, 0] < instants[:, -1]).all()
        return np.broadcast_to(np.arange(len(film.acts))[:, None, None, None, None], (*instants.shape, *size, 3))

    monkeypatch.setattr("datasets.shapes.films.render", numbered)
    shown = render_film(film, seed=0)[:, 0, 0, 0]
    assert shown.tolist() == sorted(shown)
    assert set(shown) == set(range(len(film.acts)))


def test_a_story_lasts_as_long_as_its_transcript_says(films_root):
    film = films_of("story_val", SPEC)[0]
    with av.open(str(films_root / "videos" / film.path)) as container:
        stream = container.streams.video[0]
        assert stream.frames / stream.average_rate == 4 * (ACT_SECONDS + REST_SECONDS)
    assert film_transcript(film, seed=3) == film_transcript(film, seed=3)
    assert film_transcript(film, seed=3) != film_transcript(film, seed=4)
