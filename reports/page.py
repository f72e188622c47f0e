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
    ("top-1, %", lambda result: _figure(result, "top-1")),
    ("top-5, %", lambda result: _figure(result, "top-5")),
    ("mAP, %", lambda result: _figure(result, "mAP")),
    ("half-class top-1, %", lambda result: _half_class(result.half_class)),
    ("videos", lambda result: result.num_videos),
    ("failed videos", lambda result: len(result.failed_videos)),
    ("views", lambda result: result.views),
    ("fusion", lambda result: result.fusion),
    ("weights", lambda result: result.weights),
    ("list fingerprint", lambda result: result.list_fingerprint),
    ("class texts", lambda result: result.class_texts),
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
    labels: np.ndarray  # [N] int64; of no meaning where videos have several
    paths: list[str]
    scores: Tensor  # [N, K]; NaN where the video could not be read
    log_probabilities: Tensor  # [N, K]
    failures: dict[str, str]  # path -> reason
    film_strip: Callable[[int], bytes | None]  # a video's index -> JPEG of a few frames, if there is one
    targets: Tensor  # [N, K] bool, which classes each video shows
    precisions: np.ndarray | None = None  # [K] average precision in percent, where it was asked for


def write_page(folder: Path, results: Results, splits: list[TestedSplit]) -> Path:
    """Write ``index.html`` and the pictures in it as PNG files, too.

    Args:
        results: of one split or several.
    """
    first = list(results.figures.items())[:1]
    rows = [[title, *(str(show(split.result)) for split in splits)] for title, show in FIGURES]
    return render_page(
        folder,
        "page.html.jinja",
        title=", ".join([results.dataset, *(f"{title} {mean:.2f} %" for title, (mean, _) in first)]),
        results=results,
        figures=[row for row in rows if any(row[1:])],
        sections=[_section(split, folder) for split in splits],
    )


def render_page(folder: Path, template: str, **values: Any) -> Path:
    """Write ``index.html`` from a template of this folder, in which text from data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(values)
    page = folder / "index.html"
    # Names of files that are not UTF-8 come as surrogates.
    page.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    return page


def _figure(result: Results, title: str) -> str:
    return f"{result.figures[title][0]:.2f}" if title in result.figures else ""


def _half_class(figures: dict[str, float] | None) -> str:
    return f"{figures['top1_mean']:.2f} ± {figures['top1_std']:.2f}" if figures else ""


def _section(split: TestedSplit, folder: Path) -> dict[str, Any]:
    """What the template shows of one split: where videos have several labels, nothing of what is taken for what."""
    has_one_label = "top-1" in split.result.figures
    anchor, targets = split.name.replace("/", "_"), split.targets.numpy()
    predicted = confusion.predictions(split.scores)
    num_videos, num_failed = targets.sum(axis=0), targets[predicted == confusion.FAILED].sum(axis=0)
    if has_one_label:
        figure, mistakes = "top-1", _mistakes(split, predicted, folder, anchor)
        values, _ = confusion.class_accuracy(split.labels, predicted, len(split.class_names))
    else:
        figure, mistakes = "average precision", {}
        values = np.where(num_videos > 0, split.precisions, np.nan)
    picture = draw_class_accuracy(values, split.class_names, figure)
    taken = mistakes.get("taken", [("", 0)] * len(split.class_names))
    return {
        "name": split.name,
        "anchor": anchor,
        "num_classes": len(split.class_names),
        "num_absent": int((num_videos == 0).sum()),
        "figure": figure,
        "accuracy_picture": write_picture(picture, folder / f"{anchor}_classes.png"),
        "classes": [  # that have videos, the worst first
            {
                "label": label,
                "name": split.class_names[label],
                "num_videos": int(num_videos[label]),
                "num_failed": int(num_failed[label]),
                "accuracy": float(values[label]),
                "taken_for": taken[label][0],
                "num_taken": taken[label][1],
            }
            for label in np.argsort(values, kind="stable").tolist()
            if num_videos[label]
        ],
        "has_one_label": has_one_label,
        "failures": sorted(split.failures.items()),
        **mistakes,
    }


def _mistakes(split: TestedSplit, predicted: np.ndarray, folder: Path, anchor: str) -> dict[str, Any]:
    """Of a list with one label a video: what is taken for what, and the worst of it; ``predicted``: [N]."""
    names, labels = split.class_names, split.labels
    counts = confusion.confusion_counts(labels, predicted, len(names))
    mistaken = counts - np.diag(counts.diagonal())
    pairs = confusion.confused_pairs(counts, np.bincount(labels, minlength=len(names)), NUM_PAIRS)
    worst = confusion.worst_mistakes(split.log_probabilities, labels, predicted, NUM_MISTAKES)
    picture = write_picture(draw_confusion(counts, names), folder / f"{anchor}_confusion.png") if counts.any() else ""
    return {
        "taken": [(names[row.argmax()], int(row.max())) for row in mistaken],  # for which class, the most of each
        "confusion_picture": picture,
        "pairs": [(names[pair.true], names[pair.predicted], pair) for pair in pairs],
        "mistakes": [_mistake(split, index, predicted[index]) for index in worst],
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


def write_picture(png: bytes, path: Path) -> str:
    """Write a PNG file; returns it for the page."""
    path.write_bytes(png)
    return data_uri(png, "png")
