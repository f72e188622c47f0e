"""predict.py: own videos and own classes; the same numbers as a test, and no file is lost."""

import csv
import json
import runpy
import shutil
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import export
import predict
import train
from commands.classifier import KEPT_CLASS_SETS
from datasets.decode.decoders import DECODERS, installed_decoders
from datasets.features.embeddings import read_embeddings
from modules.formats.ours import read_checkpoint
from predict import VideoClassifier
from tools.make_debug_data import CLASS_NAMES

FP32 = ["--precision", "fp32"]
LABELS = "a bar moving left, a bar moving right, a dog"


@pytest.fixture(scope="module")
def weights(debug_config, tmp_path_factory) -> Path:
    """Checkpoint of one epoch on the debug data."""
    runs = tmp_path_factory.mktemp("runs")
    train.main(
        ["--config", str(debug_config), "--log_time", "first", *FP32, "solver.epochs=1", f"data.output_path={runs}"]
    )
    return runs / "debug" / "tiny_clip" / "first" / "last_model.pt"


@pytest.fixture(scope="module")
def classifier(weights) -> VideoClassifier:
    return VideoClassifier.load(weights, precision="fp32", overrides=["data.workers=0"])


@pytest.fixture(scope="module")
def videos(debug_data) -> list[str]:
    return sorted(map(str, (debug_data / "videos").glob("val *.mp4")))


def test_probabilities_are_those_of_the_cosines_that_a_test_saves(
    classifier, weights, debug_config, debug_data, repo_root, tmp_path
):
    test = runpy.run_path(str(repo_root / "test.py"))["main"]
    views = ["--test_clips", "3", "--test_crops", "3", "--save_logits", str(tmp_path / "logits.npz")]
    test(["--config", str(debug_config), "--weights", str(weights), *views, "--output", str(tmp_path), *FP32])
    saved = np.load(tmp_path / "logits.npz")
    paths = [debug_data / "videos" / path for path in saved["paths"]]
    predictions = classifier.predict(paths, num_clips=3, num_crops=3)
    scale = classifier.model.logit_scale.item()
    expected = torch.from_numpy(saved["view_logits"]).mean(dim=1).mul(scale).softmax(dim=-1)
    found = torch.tensor([[p.scores[name] for name in CLASS_NAMES] for p in predictions])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_exported_model_answers_like_the_one_it_was_made_from(classifier, weights, videos, tmp_path):
    export.main(["--weights", str(weights), "--out", str(tmp_path)])
    merged = VideoClassifier.load(tmp_path / "model.safetensors", precision="fp32", overrides=["data.workers=0"])
    for found, expected in zip(merged.predict(videos[:2]), classifier.predict(videos[:2]), strict=True):
        assert found.scores == pytest.approx(expected.scores, abs=1e-5)


def test_scores_are_sorted_probabilities_and_frames_are_in_the_order_of_time(classifier, videos):
    (prediction,) = classifier.predict(videos[0], LABELS, num_clips=2, num_crops=10)
    assert sum(prediction.scores.values()) == pytest.approx(1)
    assert list(prediction.scores.values()) == sorted(prediction.scores.values(), reverse=True)
    num_frames = 2 * classifier.num_frames
    assert prediction.frame_scores.shape == (num_frames, 3)
    np.testing.assert_allclose(prediction.frame_scores.sum(axis=1), 1, rtol=1e-5)
    assert prediction.frames.shape == (num_frames, 32, 32, 3)
    assert (np.diff(prediction.seconds) >= 0).all()
    assert prediction.seconds[0] == 0
    np.testing.assert_allclose(np.linalg.norm(prediction.embedding), 1, rtol=1e-5)


def test_frames_are_shown_with_their_own_times_and_scores(classifier, write_video, tmp_path):
    """A video of two halves: frames, times and scores change at the same place, whichever clip they are from."""
    path = write_video(tmp_path / "variable.mp4", num_frames=30, gaps=(1, 3), bf=2)
    one, many = (classifier.predict(path, LABELS, num_clips=n)[0] for n in (1, 3))
    frame_times = np.cumsum([0, *[1, 3] * 15])[:30] / 25
    starts = (30 / classifier.num_frames * np.arange(classifier.num_frames)).astype(int)
    np.testing.assert_allclose(one.seconds, frame_times[starts], atol=1e-6)
    assert set(many.seconds.round(6)) >= set(one.seconds.round(6))
    for second, frame in zip(one.seconds, one.frames, strict=True):
        place = np.abs(many.seconds - second).argmin()
        np.testing.assert_array_equal(many.frames[place], frame)


@pytest.mark.parametrize("num_crops", [1, 3])
def test_scores_of_frames_are_in_the_order_of_time(num_crops, debug_data, write_video, tmp_path):
    """Plain CLIP sees each frame by itself, so its scores do not depend on the clip that it is in."""
    path = write_video(tmp_path / "a.mp4", num_frames=30, width=160, height=64)
    plain = VideoClassifier.load(arch=str(debug_data / "tiny_clip.pt"), precision="fp32", overrides=["data.workers=0"])
    one, many = (plain.predict(path, LABELS, num_clips=n, num_crops=num_crops)[0] for n in (1, 3))
    assert len(np.unique(one.frame_scores[:, 0])) > 1
    for second, scores in zip(one.seconds, one.frame_scores, strict=True):
        place = np.abs(many.seconds - second).argmin()
        np.testing.assert_allclose(many.frame_scores[place], scores, atol=1e-5)


@pytest.mark.parametrize("num_clips", [1, 3])  # several videos a batch, one a batch
def test_the_order_and_the_company_of_videos_do_not_matter(num_clips, classifier, videos, odd_videos):
    unreadable = str(odd_videos / "text.mp4")
    asked = [unreadable, *videos]
    together = {p.path: p for p in classifier.predict(asked, LABELS, num_clips)}
    assert list(together) == asked
    assert len({tuple(p.scores.values()) for p in together.values()}) == len(asked)
    for path in videos[:3]:
        (alone,) = classifier.predict(path, LABELS, num_clips)
        assert alone.scores == pytest.approx(together[path].scores, rel=1e-4)
        np.testing.assert_array_equal(alone.frames, together[path].frames)
        np.testing.assert_allclose(alone.embedding, together[path].embedding, atol=1e-5)


def test_embeddings_do_not_depend_on_the_classes_asked_for(classifier, videos):
    asked, other, without = (
        classifier.predict(videos[:1], LABELS)[0],
        classifier.predict(videos[:1], "a cat")[0],
        next(classifier.embed(videos[:1])),
    )
    np.testing.assert_allclose(asked.embedding, other.embedding, atol=1e-6)
    np.testing.assert_allclose(asked.embedding, without.embedding, atol=1e-6)
    assert without.scores == {}


def test_the_time_of_a_pass_is_all_accounted_for(classifier, videos):
    pause_s = 0.1
    for _ in classifier.stream(videos[:2]):
        time.sleep(pause_s)  # what the caller does, such as pictures
    timing = classifier.timing
    assert timing.num_videos == 2
    assert timing.compute_s > 0
    assert timing.wait_s > 0
    assert timing.total_s >= timing.compute_s + timing.wait_s + 2 * pause_s


def test_class_features_are_encoded_once_for_each_set(classifier):
    assert classifier.class_features(["x", "y"]) is classifier.class_features(("x", "y"))
    assert len(classifier.class_features(["y"])) == 1


def test_class_features_of_the_last_sets_alone_are_kept(classifier):
    first = classifier.class_features(["the first"])
    kept = weakref.ref(first)
    assert classifier.class_features(["the first"]) is first
    del first
    for number in range(KEPT_CLASS_SETS):
        classifier.class_features([f"class {number}"])
    assert kept() is None


def test_good_videos_are_answered_and_bad_ones_listed(weights, odd_videos, broken_names, capsys):
    names = ["good.mp4", *broken_names, "turned.mp4", "one.mp4", "b frames.avi"]
    arguments = [*(str(odd_videos / name) for name in names), "--weights", str(weights), "--labels", LABELS, *FP32]
    with pytest.raises(SystemExit) as end:
        predict.main(arguments)
    message, lines = str(end.value.code), capsys.readouterr().out.splitlines()
    files = len(names) - 1  # the folder named folder.mp4 is searched, and empty
    assert f"{len(broken_names) - 1} of {files} videos could not be read" in message
    for name, reason in broken_names.items():
        if name != "folder.mp4":
            assert f"{name}: " in message
            assert reason.split(" (")[0] in message
    assert sum(" %" in line and "unreadable" not in line for line in lines) == 4
    assert f"{files} videos in" in lines[-1]


def test_files_folders_and_patterns_are_found_once(weights, debug_data, tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for place in ("a.mp4", "sub/b.MKV", "sub/deep/c.mp4", "sub/notes.txt"):
        shutil.copy(debug_data / "videos" / "val 00.mp4", tmp_path / place)
    places = [tmp_path / "a.mp4", tmp_path / "*.mp4", tmp_path / "sub"]
    found = predict.main([*map(str, places), "--weights", str(weights), "--test_clips", "1", *FP32])
    assert [p.path for p in found] == [str(tmp_path / name) for name in ("a.mp4", "sub/b.MKV", "sub/deep/c.mp4")]
    for other in found[1:]:  # the same video in other places of a batch: rounding may differ
        assert other.scores == pytest.approx(found[0].scores, abs=1e-6)


def test_written_files_hold_what_is_returned(weights, videos, tmp_path):
    out = {name: str(tmp_path / "out" / f"result.{name}") for name in ("json", "csv", "npz")}
    options = ["--json", out["json"], "--csv", out["csv"], "--embed", out["npz"], "--plot", str(tmp_path / "plots")]
    found = predict.main([*videos[:2], "--weights", str(weights), "--labels", LABELS, "--top", "2", *options, *FP32])
    content = json.loads(Path(out["json"]).read_text())
    assert content["weights"] == str(weights)
    assert [video["scores"] for video in content["videos"]] == [p.scores for p in found]
    rows = list(csv.DictReader(Path(out["csv"]).read_text().splitlines()))
    assert [(row["path"], row["label_1"]) for row in rows] == [(p.path, p.top(1)[0][0]) for p in found]
    assert "label_3" not in rows[0]
    embeddings = read_embeddings(Path(out["npz"]))
    assert embeddings.paths == videos[:2]
    np.testing.assert_allclose(embeddings.vectors, [p.embedding for p in found], atol=1e-6)
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == [Path(path).stem for path in videos[:2]]


def test_pictures_of_videos_of_one_name_do_not_overwrite_each_other(weights, debug_data, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        shutil.copy(debug_data / "videos" / "val 00.mp4", tmp_path / folder / "x.mp4")
    long = "a very long class name with $dollars$ that goes on and on and on until nobody can read it"
    arguments = [str(tmp_path / "?"), "--weights", str(weights), "--labels", f"a,{long}", "--plot", str(tmp_path / "p")]
    predict.main([*arguments, *FP32])
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["x.png", "x_2.png"]
    assert Image.open(tmp_path / "p" / "x.png").size[0] > 1000


def test_without_weights_plain_clip_averages_frames(debug_data, videos):
    classifier = VideoClassifier.load(arch=str(debug_data / "tiny_clip.pt"), precision="fp32")
    (prediction,) = classifier.predict(videos[0], LABELS, num_clips=1)
    assert classifier.class_names == []
    images = torch.from_numpy(prediction.frames).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        features = classifier.model.encode(images).frames[0]
    expected = torch.nn.functional.normalize(features.mean(dim=0), dim=-1)
    np.testing.assert_allclose(prediction.embedding, expected, atol=1e-5)


def test_predictions_that_are_not_finite_are_an_error(weights, videos):
    classifier = VideoClassifier.load(weights, precision="fp32", overrides=["data.workers=0"])
    with torch.no_grad():
        classifier.model.head.transformer.resblocks[0].ln_1.bias[0] = torch.nan
    for predict_one in (classifier.predict, lambda path: list(classifier.embed(path))):
        with pytest.raises(FloatingPointError, match="of a video are not finite: the weights are too large for fp32"):
            predict_one(videos[0])


def test_a_checkpoint_without_configuration_needs_one(weights, debug_config, videos, tmp_path):
    released = tmp_path / "released.pt"
    keys = ("epoch", "model_state_dict", "fusion_model_state_dict", "optimizer_state_dict")
    torch.save({key: value for key, value in read_checkpoint(weights).items() if key in keys}, released)
    with pytest.raises(ValueError, match=r"carries no configuration, and its image tower .* give its --config"):
        VideoClassifier.load(released)
    classifier = VideoClassifier.load(released, config=debug_config, precision="fp32")
    expected = VideoClassifier.load(weights, precision="fp32").predict(videos[:1])[0]
    assert classifier.predict(videos[:1], CLASS_NAMES)[0].scores == expected.scores
    with pytest.raises(ValueError, match="carries no class names"):
        classifier.predict(videos[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", ""], "no class names"),
        (["--labels", "a,a"], "there twice"),
        (["--labels", "spinning " * 80], "class name too long"),
        (["--embed", "e.txt"], r"ends in \.npz"),
        (["data.decoder=nosuch"], "data.decoder: expected one of auto, decord"),
        (["data.nosuch=1"], "unknown key data.nosuch"),
        (["--arch", "nosuch.pt"], "nosuch.pt"),
    ],
)
def test_a_mistake_is_an_error_before_the_first_video(arguments, message, weights, videos, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict.main([videos[0], "--weights", str(weights), *arguments, *FP32])


@pytest.mark.parametrize("decoder", installed_decoders())
def test_the_decoder_that_is_asked_for_reads_own_videos(decoder, weights, videos, monkeypatch):
    opened, reader = [], DECODERS[decoder]
    monkeypatch.setitem(DECODERS, decoder, lambda *arguments: opened.append(decoder) or reader(*arguments))
    found = VideoClassifier.load(weights, precision="fp32", overrides=[f"data.decoder={decoder}"])
    by_default = VideoClassifier.load(weights, precision="fp32").predict(videos[:1])[0]
    prediction = found.predict(videos[:1])[0]
    assert opened
    np.testing.assert_allclose(prediction.seconds, by_default.seconds)
    assert len(prediction.frames) == len(by_default.frames)


def test_a_place_without_videos_is_an_error(weights, tmp_path):
    for place in (tmp_path, tmp_path / "gone.mp4", tmp_path / "*.mp4"):
        with pytest.raises(FileNotFoundError, match="no video found in"):
            predict.main([str(place), "--weights", str(weights)])


def test_weights_of_another_kind_are_named(debug_data, videos, tmp_path):
    torch.save({"something": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"expected keys .* found a dict of something"):
        VideoClassifier.load(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"the weights of CLIP alone; a CLIP is given as network\.arch"):
        VideoClassifier.load(debug_data / "tiny_clip.pt")
