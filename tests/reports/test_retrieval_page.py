"""The page of a search: its figures, and the queries that it shows."""

import numpy as np
import pytest
import torch

from engine.protocols.retrieval import ranks_of, report_of
from engine.protocols.similarities import Cosines
from engine.results import RetrievalResults
from reports.retrieval_page import Search, write_retrieval_page
from reports.tables import retrieval_table

JPEG = b"\xff\xd8 a picture"
NUM_VIDEOS = 40


@pytest.fixture
def search() -> Search:
    """Forty videos with two texts each; the texts of video 7 are those of video 8, and video 3 cannot be read."""
    generator = torch.Generator().manual_seed(0)
    videos = torch.randn(NUM_VIDEOS, 16, generator=generator)
    owners = torch.arange(2 * NUM_VIDEOS) // 2
    texts = videos[owners] + 0.3 * torch.randn(2 * NUM_VIDEOS, 16, generator=generator)
    texts[[14, 15]] = -videos[[7, 7]] + videos[[8, 8]]
    videos[3] = torch.nan
    ranks = ranks_of(Cosines(texts, videos), owners, dual_softmax=20.0)
    failures = {"v3.mp4": "cut <off>"}
    results = RetrievalResults(
        **report_of(ranks, "mean"), dataset="toy", num_clips=1, num_crops=1, weights="w.pt",
        list_fingerprint="0123abcd", precision="fp32", decoder="pyav", cut_texts=5, failed_videos=list(failures),
    )  # fmt: skip
    captions = [f"text <{text}> of {owner}" for text, owner in enumerate(owners.tolist())]
    paths = [f"v{video}.mp4" for video in range(NUM_VIDEOS)]
    vectors = {"texts": texts, "videos": videos}
    return Search(
        results, captions, owners.numpy(), paths, ranks, **vectors, failures=failures, film_strip=lambda i: JPEG
    )


def test_the_page_shows_figures_and_the_worst_and_best_queries(search, tmp_path):
    text = write_retrieval_page(tmp_path, search).read_text(encoding="utf-8")
    for title, figures in search.results.rows.items():
        assert title in text
        assert f"{figures['r1']:.2f}" in text
    worst, rest = text.split("find their video last")[1].split("most clearly")
    best, videos = rest.split("The videos that find their texts last")
    assert "text &lt;14&gt; of 7" in worst or "text &lt;15&gt; of 7" in worst
    assert worst.count("of 7") == 1  # one text a video
    assert "v7.mp4" in worst
    assert "v8.mp4" in worst  # what it found instead
    assert best.count("<figure>") == 12
    assert "of 7" not in best
    assert "v7.mp4" in videos
    assert "cut &lt;off&gt;" in videos
    assert "<off>" not in text
    assert "of 3<" not in text  # a text whose video could not be read is no mistake of the model
    assert "data:image/png" in text
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


def test_the_clearest_finds_come_first(search, tmp_path):
    text = write_retrieval_page(tmp_path, search).read_text(encoding="utf-8")
    cosines = search.cosines(np.arange(2 * NUM_VIDEOS))
    found = np.flatnonzero(search.ranks[0.0].t2v == 1)
    best, second = cosines[found].topk(2).values.T
    clearest = search.captions[found[(best - second).argmax()]]
    place = text.index("most clearly")
    assert text.index("<figcaption><b>", place) + len("<figcaption><b>") == text.index(
        clearest.replace("<", "&lt;").replace(">", "&gt;"), place
    )


def test_the_table_has_a_line_a_direction(search):
    lines = retrieval_table(search.results).splitlines()
    assert lines[1] == "toy: 80 texts, 40 videos, 1 failed, 5 texts cut"
    assert [line.split("  ")[0] for line in lines[3:7]] == list(search.results.rows)
    assert lines[-1].endswith("v3.mp4")
