"""A test's results as one HTML page for people: figures, confusions, every class, the worst mistakes."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from engine.results import Results
from reports import confusion
from reports.page_plots import draw_class_accuracy, draw_confusion

NUM_PAIRS, NUM_MISTAKES = 30, 24
# Rows of the figures' table, what must agree before two results compare: title, and how a result is shown.
FIGURES: tuple[tuple[str, Callable[[Results], object]], ...] = (
    ("data set", lambda result: result.dataset),
    ("top-1, %", lambda result: f"{result.top1:.2f}"),
    ("top-5, %", lambda result: f"{result.top5:.2f}"),
    ("half-class top-1, %", lambda result: _half_class(result.half_class)),
    ("videos", lambda result: result.num_videos),
    ("failed videos", lambda result: len(result.failed_videos)),
    ("views", lambda result: result.views),
    ("fusion", lambda result: result.fusion),
    ("weights", lambda result: result.weights),
    ("list fingerprint", lambda result: result.list_fingerprint),
    ("decoder", lambda result: result.decoder or "none: not video files"),
    ("precision", lambda result: result.precision),
)


@dataclass(frozen=True)
class TestedSplit:
    """One tested list: what the model said, and what is known of its N videos and K classes."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    name: str
    result: Results
    class_names: list[str]
    labels: np.ndarray  # [N] int64
    paths: list[str]
    scores: Tensor  # [N, K]; NaN where the video could not be read
    log_probabilities: Tensor  # [N, K]
    failures: dict[str, str]  # path -> reason
    film_strip: Callable[[int], bytes | None]  # a video's index -> JPEG of a few frames, if there is one

    @cached_property
    def predicted(self) -> np.ndarray:
        """[N] int64, see ``reports.confusion.predictions``."""
        return confusion.predictions(self.scores)

    @cached_property
    def counts(self) -> np.ndarray:
        """Confusion counts [K, K]."""
        return confusion.confusion_counts(self.labels, self.predicted, len(self.class_names))

    @cached_property
    def class_accuracy(self) -> tuple[np.ndarray, np.ndarray]:
        """Top-1 of each class in percent [K], and its number of videos [K]."""
        return confusion.class_accuracy(self.labels, self.predicted, len(self.class_names))


def write_page(folder: Path, results: Results, splits: list[TestedSplit]) -> Path:
    """Write ``index.html`` and the pictures in it as PNG files, too.

    Args:
        results: of one split or several.
    """
    rows = [[title, *(str(show(split.result)) for split in splits)] for title, show in FIGURES]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        title=f"{results.dataset}: top-1 {results.top1:.2f} %",
        results=results,
        figures=[row for row in rows if any(row[1:])],
        sections=[_section(split, folder) for split in splits],
    )
    page = folder / "index.html"
    # Names of files that are not UTF-8 come as surrogates.
    page.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    return page


def _half_class(figures: dict[str, float] | None) -> str:
    return f"{figures['top1_mean']:.2f} ± {figures['top1_std']:.2f}" if figures else ""


def _section(split: TestedSplit, folder: Path) -> dict[str, Any]:
    """What the template shows of one split."""
    accuracy, num_videos = split.class_accuracy
    anchor, names = split.name.replace("/", "_"), split.class_names
    confusion_picture = ""
    if split.counts.any():
        confusion_picture = _picture(draw_confusion(split.counts, names), folder / f"{anchor}_confusion.png")
    pairs = confusion.confused_pairs(split.counts, num_videos, NUM_PAIRS)
    mistakes = confusion.worst_mistakes(split.log_probabilities, split.labels, split.predicted, NUM_MISTAKES)
    return {
        "name": split.name,
        "anchor": anchor,
        "num_classes": len(names),
        "num_absent": int((num_videos == 0).sum()),
        "accuracy_picture": _picture(draw_class_accuracy(accuracy, names), folder / f"{anchor}_classes.png"),
        "classes": _classes(split),
        "confusion_picture": confusion_picture,
        "pairs": [(names[pair.true], names[pair.predicted], pair) for pair in pairs],
        "mistakes": [_mistake(split, index) for index in mistakes],
        "failures": sorted(split.failures.items()),
    }


def _classes(split: TestedSplit) -> list[dict[str, Any]]:
    """All classes that have videos, the worst first."""
    accuracy, num_videos = split.class_accuracy
    num_failed = np.bincount(split.labels[split.predicted == confusion.FAILED], minlength=len(accuracy))
    mistaken = split.counts - np.diag(split.counts.diagonal())
    return [
        {
            "label": label,
            "name": split.class_names[label],
            "num_videos": int(num_videos[label]),
            "num_failed": int(num_failed[label]),
            "accuracy": float(accuracy[label]),
            "taken_for": split.class_names[mistaken[label].argmax()],
            "num_taken": int(mistaken[label].max()),
        }
        for label in np.argsort(accuracy, kind="stable").tolist()
        if num_videos[label]
    ]


def _mistake(split: TestedSplit, index: int) -> dict[str, Any]:
    """A video that was taken for another class; probabilities from 0 to 1."""
    true, predicted = (
        {"name": split.class_names[label], "probability": split.log_probabilities[index, label].exp().item()}
        for label in (split.labels[index], split.predicted[index])
    )
    strip = split.film_strip(index)
    picture = _data_uri(strip, "jpeg") if strip else ""
    return {"true": true, "predicted": predicted, "path": split.paths[index], "picture": picture}


def _picture(png: bytes, path: Path) -> str:
    """Write a PNG file; returns it for the page."""
    path.write_bytes(png)
    return _data_uri(png, "png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
