"""tools/search.py ranks by cosine with the query, and knows embeddings of other weights."""

import shutil

import numpy as np
import pytest

import predict
from commands.classifier import VideoClassifier
from tools import search

FP32 = ["--precision", "fp32"]


@pytest.fixture(scope="module")
def model(debug_data) -> list[str]:
    return ["--arch", str(debug_data / "tiny_clip.pt"), *FP32]


@pytest.fixture(scope="module")
def folder(debug_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    for number in range(4):
        shutil.copy(debug_data / "videos" / f"val 0{number}.mp4", folder)
    return folder


def test_a_folder_and_its_embeddings_give_the_ranking_of_the_cosines(folder, model, debug_data, tmp_path, capsys):
    predict.main([str(folder), "--embed", str(tmp_path / "e.npz"), *model])
    live = search.main(["a red bar", str(folder), *model])
    stored = search.main(["a red bar", str(tmp_path / "e.npz"), *model])
    assert [path for path, _ in live] == [path for path, _ in stored]
    classifier = VideoClassifier.load(arch=str(debug_data / "tiny_clip.pt"), precision="fp32")
    query = classifier.class_features(["a red bar"])[0].numpy()
    cosines = {p.path: float(p.embedding @ query) for p in classifier.embed(folder)}
    assert dict(live) == pytest.approx(cosines, abs=1e-5)
    np.testing.assert_allclose([c for _, c in stored], sorted(cosines.values(), reverse=True), atol=1e-5)
    assert capsys.readouterr().out.splitlines()[-4].endswith(live[0][0])


def test_an_empty_query_is_refused(folder, model, capsys):
    with pytest.raises(SystemExit):
        search.main([" ", str(folder), *model])
    assert "query: expected a text" in capsys.readouterr().err


def test_top_limits_the_list(folder, model):
    assert len(search.main(["x", str(folder), "--top", "2", *model])) == 2


def test_embeddings_of_other_weights_are_refused(folder, model, debug_data, tmp_path):
    from tools.make_debug_data import write_debug_data

    write_debug_data(tmp_path / "other", 1, 1, seed=1)
    predict.main([str(folder), "--embed", str(tmp_path / "e.parquet"), *model])
    with pytest.raises(ValueError, match="made with other weights"):
        search.main(["x", str(tmp_path / "e.parquet"), "--arch", str(tmp_path / "other" / "tiny_clip.pt"), *FP32])


def test_unreadable_videos_are_named_and_the_others_ranked(folder, model, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "mixed")
    (tmp_path / "mixed" / "bad.mp4").write_text("not a video")
    with pytest.raises(SystemExit, match=r"bad\.mp4: text, not a video"):
        search.main(["x", str(tmp_path / "mixed"), *model])
    assert len([line for line in capsys.readouterr().out.splitlines() if line.endswith(".mp4")]) == 4


def test_a_query_that_clip_cannot_read_is_an_error(folder, model):
    with pytest.raises(ValueError, match="too long"):
        search.main(["spinning " * 80, str(folder), *model])
