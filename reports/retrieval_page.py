"""A search's results as one HTML page for people: figures, and the queries that were found best and worst."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.protocols.retrieval import Ranks
from engine.results import RetrievalResults
from reports.page import render_page, write_picture
from reports.page_plots import draw_recall
from reports.style import data_uri

NUM_SHOWN = 12  # queries of each kind
CHUNK = 1024  # queries whose cosines are held at once
# Rows of the table of facts: title, and how the results say it.
FACTS: tuple[tuple[str, Callable[[RetrievalResults], object]], ...] = (
    ("data set", lambda results: results.dataset),
    ("texts", lambda results: results.num_texts),
    ("cut texts", lambda results: results.cut_texts),
    ("videos", lambda results: results.num_videos),
    ("failed videos", lambda results: len(results.failed_videos)),
    ("views", lambda results: results.views),
    ("equal similarities", lambda results: results.tie_rule),
    ("weights", lambda results: results.weights),
    ("list fingerprint", lambda results: results.list_fingerprint),
    ("decoder", lambda results: results.decoder or "none: not video files"),
    ("precision", lambda results: results.precision),
)


@dataclass(frozen=True)
class Search:
    """N texts and M videos that looked for each other."""

    results: RetrievalResults
    captions: list[str]  # N
    owners: np.ndarray  # int64 [N], the video of each text
    paths: list[str]  # M
    ranks: dict[float, Ranks]  # by lambda of dual softmax; 0: none
    texts: Tensor  # embeddings [N, D]
    videos: Tensor  # embeddings [M, D]; NaN where the video could not be read
    failures: dict[str, str]  # path -> reason
    film_strip: Callable[[int], bytes | None]  # a video's index -> JPEG of a few frames, if there is one

    def cosines(self, texts: np.ndarray) -> Tensor:
        """Of some texts with all videos, [n, M]; -inf where the video could not be read."""
        found = F.normalize(self.texts[texts].float(), dim=-1) @ F.normalize(self.videos.float(), dim=-1).T
        return found.masked_fill(found.isnan(), -torch.inf)

    def cosines_of_video(self, video: int) -> Tensor:
        """Of a video with all texts, [N]."""
        return F.normalize(self.texts.float(), dim=-1) @ F.normalize(self.videos[video].float(), dim=-1)


def write_retrieval_page(folder: Path, search: Search) -> Path:
    """Write ``index.html`` and the picture in it as a PNG file, too."""
    results, plain = search.results, search.ranks[0.0]
    picture = cache(lambda index: data_uri(strip, "jpeg") if (strip := search.film_strip(index)) else "")
    is_read = ~search.videos.isnan().any(dim=1).numpy()
    by_place = np.argsort(plain.t2v, kind="stable")
    late = [text for text in by_place[::-1] if is_read[search.owners[text]] and plain.t2v[text] > 1]
    late_videos = [v for v in np.argsort(-plain.v2t, kind="stable") if is_read[v] and plain.v2t[v] > 1]
    curves = {title: places for ranks in search.ranks.items() for title, places in _curves(*ranks)}
    return render_page(
        folder,
        "retrieval_page.html.jinja",
        title=f"{results.dataset}, text to video R@1 {results.t2v['r1']:.2f} %",
        results=results,
        facts=[(title, show(results)) for title, show in FACTS],
        curves=write_picture(draw_recall(curves), folder / "recall.png"),
        worst=[_text_query(search, text, picture) for text in _one_a_video(search, late)],
        best=[_text_query(search, text, picture) for text in _one_a_video(search, _clearest(search))],
        worst_videos=[_video_query(search, int(video), picture) for video in late_videos[:NUM_SHOWN]],
        failures=sorted(search.failures.items()),
    )


def _curves(scale: float, ranks: Ranks) -> list[tuple[str, np.ndarray]]:
    ending = f", dual softmax {scale:g}" if scale else ""
    return [(f"text to video{ending}", ranks.t2v), (f"video to text{ending}", ranks.v2t[~np.isnan(ranks.v2t)])]


def _one_a_video(search: Search, texts: list[int]) -> list[int]:
    """The first few texts, of each video the first."""
    first: dict[int, int] = {}
    for text in texts:
        first.setdefault(int(search.owners[text]), int(text))
    return list(first.values())[:NUM_SHOWN]


def _clearest(search: Search) -> list[int]:
    """Texts that find their video at once, those first that are far from all other videos."""
    found = np.flatnonzero(search.ranks[0.0].t2v == 1)
    if not len(found) or len(search.paths) == 1:
        return found.tolist()
    pairs = [search.cosines(some).topk(2).values for some in np.array_split(found, -(-len(found) // CHUNK))]
    best, second = torch.cat(pairs).T
    return found[(second - best).argsort(stable=True).numpy()].tolist()


def _text_query(search: Search, text: int, picture: Callable[[int], str]) -> dict[str, Any]:
    """A text, its video and, where that is another, the video that it found."""
    cosines, own = search.cosines(np.array([text]))[0], int(search.owners[text])
    first = int(cosines.argmax())
    shown = [("true", own)] + [("found", first)] * (first != own)
    return {
        "text": search.captions[text],
        "rank": search.ranks[0.0].t2v[text],
        "videos": [
            {"kind": kind, "path": search.paths[v], "cosine": float(cosines[v]), "picture": picture(v)}
            for kind, v in shown
        ],
    }


def _video_query(search: Search, video: int, picture: Callable[[int], str]) -> dict[str, Any]:
    """A video, the nearest of its texts and the text that it found."""
    cosines = search.cosines_of_video(video)
    own = np.flatnonzero(search.owners == video)
    nearest, first = int(own[cosines[own].argmax()]), int(cosines.argmax())
    return {
        "path": search.paths[video],
        "rank": search.ranks[0.0].v2t[video],
        "picture": picture(video),
        "texts": [
            {"kind": kind, "text": search.captions[t], "cosine": float(cosines[t])}
            for kind, t in (("true", nearest), ("found", first))
        ],
    }
