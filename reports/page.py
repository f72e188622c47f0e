"""A test's results as one HTML page for people: figures, confusions, every class, the worst mistakes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from engine.results import Results
from reports import confusion
from reports.page_plots import draw_class_accuracy, draw_confusion
from reports.style import data_uri

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
    anchor, names, labels = split.name.replace("/", "_"), split.class_names, split.labels
    predicted = confusion.predictions(split.scores)
    counts = confusion.confusion_counts(labels, predicted, len(names))
    accuracy, num_videos = confusion.class_accuracy(labels, predicted, len(names))
    num_failed = np.bincount(labels[predicted == confusion.FAILED], minlength=len(names))
    mistaken = counts - np.diag(counts.diagonal())
    confusion_picture = ""
    if counts.any():
        confusion_picture = _picture(draw_confusion(counts, names), folder / f"{anchor}_confusion.png")
    pairs = confusion.confused_pairs(counts, num_videos, NUM_PAIRS)
    mistakes = confusion.worst_mistakes(split.log_probabilities, labels, predicted, NUM_MISTAKES)
    return {
        "name": split.name,
        "anchor": anchor,
        "num_classes": len(names),
        "num_absent": int((num_videos == 0).sum()),
        "accuracy_picture": _picture(draw_class_accuracy(accuracy, names), folder / f"{anchor}_classes.png"),
        "classes": [  # that have videos, the worst first
            {
                "label": label,
                "name": names[label],
                "num_videos": int(num_videos[label]),
                "num_failed": int(num_failed[label]),
                "accuracy": float(accuracy[label]),
                "taken_for": names[mistaken[label].argmax()],
                "num_taken": int(mistaken[label].max()),
            }
            for label in np.argsort(accuracy, kind="stable").tolist()
            if num_videos[label]
        ],
        "confusion_picture": confusion_picture,
        "pairs": [(names[pair.true], names[pair.predicted], pair) for pair in pairs],
        "mistakes": [_mistake(split, index, predicted[index]) for index in mistakes],
        "failures": sorted(split.failures.items()),
    }


def _mistake(split: TestedSplit, index: int, predicted: int) -> dict[str, Any]:
    """A video that was taken for another class; probabilities from 0 to 1."""
    true, wrong = (
        {"name": split.class_names[label], "probability": split.log_probabilities[index, label].exp().item()}
        for label in (split.labels[index], predicted)
    )
    strip = split.film_strip(index)
    picture = data_uri(strip, "jpeg") if strip else ""
    return {"true": true, "predicted": wrong, "path": split.paths[index], "picture": picture}


def _picture(png: bytes, path: Path) -> str:
    """Write a PNG file; returns it for the page."""
    path.write_bytes(png)
    return data_uri(png, "png")
