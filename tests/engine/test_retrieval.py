"""Recall and ranks: the published figures, both tie rules, unreadable videos, and blocks against the whole."""

import json

import numpy as np
import pytest
import torch

from engine.protocols.retrieval import (
    figures,
    figures_of_embeddings,
    fused_views,
    owners_of,
    ranks_of,
)
from engine.protocols.similarities import TILE, Cosines, Table

KEYS = {"r1": "R1", "r5": "R5", "r10": "R10", "r50": "R50", "median_rank": "MedR", "mean_rank": "MeanR"}
MATRICES = ("plain", "ties", "constant", "captions3", "captions3_ties", "large")


@pytest.fixture(scope="module")
def published(tvtsv2_golden) -> tuple[dict, dict]:
    """Matrices, and the figures that the published code has for them."""
    with np.load(tvtsv2_golden / "metrics.npz") as matrices:
        return dict(matrices), json.loads((tvtsv2_golden / "metrics.json").read_text())


def check(found: dict, expected: dict) -> None:
    for direction in ("t2v", "v2t"):
        reference = expected[f"{direction}_metrics"]
        assert found[direction] == pytest.approx({key: reference[name] for key, name in KEYS.items()}, rel=1e-12)


@pytest.mark.parametrize("name", MATRICES)
def test_published_figures(published, name):
    matrices, expected = published
    num_texts, num_videos = matrices[name].shape
    found = figures(matrices[name], np.arange(num_texts) // (num_texts // num_videos), tie_rule="published")
    check(found, expected[name])
    assert (found["num_texts"], found["num_videos"], found["tie_rule"]) == (num_texts, num_videos, "published")
    assert "dual_softmax" not in found


def test_missing_captions_are_rows_left_out(published):
    matrices, expected = published
    is_there = np.array(expected["captions3_masked"]["mask"]).ravel() > 0
    owners = np.arange(30) // 3
    check(figures(matrices["captions3"][is_there], owners[is_there], "published"), expected["captions3_masked"])


def test_dual_softmax(published):
    matrices, expected = published
    for key, reference in expected["dual_softmax_of_a_tenth"].items():
        name, scale = key.split("/")
        found = figures(matrices[name] / 10, tie_rule="published", dual_softmax=float(scale))
        check(found["dual_softmax"], reference)
        check(found, expected[name])
        assert found["dual_softmax"]["lambda"] == float(scale)


def test_the_mean_rule_is_one_rule_for_both_directions():
    found = figures(np.ones((4, 4)))
    assert found["t2v"] == found["v2t"]
    assert found["t2v"]["mean_rank"] == 2.5
    assert figures(np.ones((4, 4)), tie_rule="published")["t2v"]["mean_rank"] == 1.0


@pytest.mark.parametrize("kind", [bool, int, np.float16, np.float64])
def test_similarities_may_be_of_any_kind(kind):
    found = figures(np.eye(4).astype(kind)[:, ::-1], np.array([3, 2, 1, 0]), dual_softmax=2.0)
    assert found["t2v"] == found["v2t"] == found["dual_softmax"]["t2v"]
    assert found["t2v"]["mean_rank"] == 1.0


def test_unreadable_videos_are_found_last_and_find_last():
    similarity = np.eye(4)
    for column in ([-np.inf] * 4, [np.nan] * 4):
        similarity[:, 2] = column
        for tie_rule in ("mean", "published"):
            ranks = ranks_of(Table(torch.from_numpy(similarity)), torch.arange(4), tie_rule, 50)
            for each in ranks.values():
                assert each.t2v.tolist() == [1, 1, 4, 1]
                assert each.v2t.tolist() == [1, 1, 4, 1]
    with_failed, without = figures(similarity, dual_softmax=20.0), figures(np.eye(3), dual_softmax=20.0)
    assert with_failed["t2v"]["r1"] == pytest.approx(0.75 * without["t2v"]["r1"])


def test_a_video_without_texts_is_found_and_looks_for_none():
    found = figures(np.array([[0.1, 0.9], [0.2, 0.3]]), np.array([0, 0]))
    assert found["t2v"]["mean_rank"] == 2.0
    assert found["v2t"] == {"r1": 100, "r5": 100, "r10": 100, "r50": 100, "median_rank": 1, "mean_rank": 1}


@pytest.fixture
def embeddings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of 150 texts and 70 videos, some of them equal and one unreadable; and whose the texts are."""
    rng = np.random.default_rng(0)
    videos = rng.standard_normal((70, 16)).astype(np.float32)
    videos[10:20] = videos[20:30]
    owners = rng.integers(70, size=150)
    texts = videos[owners] + 2 * rng.standard_normal((150, 16)).astype(np.float32)
    texts[50:60] = texts[60:70]
    videos[3] = np.nan
    return texts, videos, owners


@pytest.mark.parametrize("tie_rule", ["mean", "published"])
@pytest.mark.parametrize("tile", [25, 23 * 23, TILE])
def test_tiles_have_the_figures_of_the_whole(embeddings, tile, tie_rule):
    texts, videos, owners = embeddings
    similarity = Cosines(*map(torch.from_numpy, (texts, videos))).whole().numpy()
    expected = figures(similarity, owners, tie_rule, dual_softmax=30.0)
    assert figures_of_embeddings(texts, videos, owners, tie_rule, 30.0, tile) == expected
    assert expected["dual_softmax"]["t2v"] != expected["t2v"]


def test_places_are_those_of_sorting(embeddings):
    texts, videos, owners = embeddings
    cosines = Cosines(*map(torch.from_numpy, (texts, videos)), most=400)
    found = ranks_of(cosines, owners_of(owners, 150, 70))[0.0]
    similarity = np.nan_to_num(cosines.whole().numpy(), neginf=-2.0)
    for text, video in enumerate(owners):
        row = np.sort(similarity[text])[::-1]
        expected = 70 if video == 3 else 1 + np.flatnonzero(row == similarity[text, video]).mean()
        assert found.t2v[text] == expected
    for video in set(owners.tolist()) - {3}:
        column = np.sort(similarity[:, video])[::-1]
        own = similarity[owners == video, video]
        assert found.v2t[video] == min(1 + np.flatnonzero(column == score).mean() for score in own)
    assert np.isnan(found.v2t[sorted(set(range(70)) - set(owners.tolist()))]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((3, 2)),), "no pairs"),
        ((np.ones(3),), r"expected \[texts, videos\]"),
        ((np.ones((0, 2)),), "at least one"),
        ((np.ones((3, 2)), np.array([0, 1, 2])), "3 numbers from 0 to 1"),
        ((np.ones((3, 2)), np.array([0, 1])), "3 numbers from 0 to 1"),
        ((np.ones((2, 2)), None, "best"), "eval.tie_rule"),
        ((np.ones((2, 2)), None, "mean", -1.0), "eval.dual_softmax"),
        ((np.ones((2, 2)), None, "mean", np.nan), "eval.dual_softmax"),
    ],
)
def test_what_makes_no_sense_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        figures(*arguments)


def test_embeddings_of_different_widths_are_an_error():
    with pytest.raises(ValueError, match="embeddings"):
        figures_of_embeddings(np.ones((2, 3)), np.ones((2, 4)))


def test_views_count_as_unit_vectors_and_one_view_stays_as_it_is():
    views = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 5.0], [0.0, 5.0]]])
    assert torch.allclose(fused_views(views), torch.tensor([[2.0, 2.0], [0.0, 5.0]]) / torch.tensor([[2**0.5], [1.0]]))
    single = torch.randn(3, 1, 8)
    assert torch.allclose(fused_views(single), single[:, 0])


@pytest.mark.parametrize(("count", "most"), [(10, 9), (33, 256), (65, 1024), (101, 2500), (130, 2**20)])
def test_equal_vectors_have_equal_cosines_at_every_place_of_a_tile(count, most):
    vector, other = torch.randn(2, 1, 512, generator=torch.Generator().manual_seed(0))
    table = Cosines(vector.repeat(count, 1), other.repeat(count // 2, 1), most).whole()
    assert table.unique().numel() == 1


def test_equal_vectors_have_equal_cosines_in_all_tiles():
    generator = torch.Generator().manual_seed(0)
    texts, videos = torch.randn(101, 64, generator=generator), torch.randn(97, 64, generator=generator)
    texts[77:101], videos[60:97] = texts[:24], videos[:37]
    cosines = Cosines(texts, videos, most=300)
    assert len(list(cosines.tiles())) > 30
    table = cosines.whole()
    assert torch.equal(table[77:101], table[:24])
    assert torch.equal(table[:, 60:97], table[:, :37])
    places = ranks_of(cosines, torch.arange(97).repeat(2)[:101])[0.0].t2v
    assert ((places[:37] % 1) == 0.5).all()  # between its own video and the other one like it
