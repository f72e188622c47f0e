"""A test's results as one HTML page for people: figures, confusions, every class, the worst mistakes.

The page holds everything it shows, pictures too, and no scripts. All text from data passes through ``html.escape``.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np
from torch import Tensor

from reports import confusion
from reports.page_plots import draw_class_accuracy, draw_confusion
from reports.style import CSS

NUM_PAIRS, NUM_MISTAKES = 30, 24
# Rows of the figures' table: title, and how a result (see ``results.json``) is shown.
FIGURES: tuple[tuple[str, Callable[[dict], object]], ...] = (
    ("data set", lambda result: result["dataset"]),
    ("top-1, %", lambda result: f"{result['top1']:.2f}"),
    ("top-5, %", lambda result: f"{result['top5']:.2f}"),
    ("half-class top-1, %", lambda result: _half_class(result.get("half_class"))),
    ("videos", lambda result: result["num_videos"]),
    ("failed videos", lambda result: len(result["failed_videos"])),
    ("views", lambda result: f"{result['num_clips']} clips x {result['num_crops']} crops{', dense' * result['dense']}"),
    ("fusion", lambda result: result["fusion"]),
    ("weights", lambda result: result["weights"]),
    ("list fingerprint", lambda result: result["list_fingerprint"]),
    ("decoder", lambda result: result.get("decoder", "none: not video files")),
    ("precision", lambda result: result["precision"]),
)


@dataclass(frozen=True)
class TestedSplit:
    """One tested list: what the model said, and what is known of its N videos and K classes."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    name: str
    result: dict  # its part of results.json
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


def write_report(folder: Path, results: dict, splits: list[TestedSplit]) -> Path:
    """Write ``index.html`` and the pictures in it as PNG files, too.

    Args:
        results: what ``results.json`` holds, of one split or several.
    """
    sections = [_section(split, folder) for split in splits]
    title = f"{results['dataset']}: top-1 {results['top1']:.2f} %"
    body = [f"<h1>{escape(title)}</h1>", _cards(results), _figures(splits), *sections]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{CSS}</style>'
    page = folder / "index.html"
    text = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"
    # Names of files that are not UTF-8 come as surrogates.
    page.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    return page


def _half_class(figures: dict | None) -> str:
    return f"{figures['top1_mean']:.2f} ± {figures['top1_std']:.2f}" if figures else ""


def _cards(results: dict) -> str:
    """The main figures in large type."""
    spread = f" ± {results['top1_std']:.2f}" if "top1_std" in results else ""
    cards = [
        (f"{results['top1']:.2f}{spread}", "top-1, %" + ", mean of splits" * bool(spread)),
        (f"{results['top5']:.2f}", "top-5, %"),
        (results["num_videos"], "videos"),
        (len(results["failed_videos"]), "failed, counted as wrong"),
    ]
    return (
        '<div class="cards">'
        + "".join(f"<div><b>{escape(str(value))}</b>{escape(name)}</div>" for value, name in cards)
        + "</div>"
    )


def _figures(splits: list[TestedSplit]) -> str:
    """What must agree before two results compare, a column a split."""
    rows = [[title, *(show(split.result) for split in splits)] for title, show in FIGURES]
    rows = [row for row in rows if any(str(cell) for cell in row[1:])]
    heads = ["", *(_link(split) for split in splits)] if len(splits) > 1 else None
    return _table(heads, [[escape(str(cell)) for cell in row] for row in rows], kind="figures")


def _link(split: TestedSplit) -> str:
    return f'<a href="#{escape(_file_stem(split))}">{escape(split.name)}</a>'


def _section(split: TestedSplit, folder: Path) -> str:
    """Everything about one split."""
    accuracy, num_videos = split.class_accuracy
    num_absent = int((num_videos == 0).sum())
    facts = f"{len(split.class_names)} classes"
    facts += f", {num_absent} of them without a video" * bool(num_absent)
    parts = [
        f'<section id="{escape(_file_stem(split))}"><h2>{escape(split.name)}</h2><p>{facts}.</p>',
        "<h3>Accuracy of each class</h3>",
        _picture(draw_class_accuracy(accuracy, split.class_names), folder / f"{_file_stem(split)}_classes.png"),
        _every_class(split),
        "<h3>What is taken for what</h3>",
    ]
    if split.counts.any():
        parts += [
            _picture(draw_confusion(split.counts, split.class_names), folder / f"{_file_stem(split)}_confusion.png"),
            _pairs(split),
        ]
    else:
        parts.append("<p>No video could be read.</p>")
    parts += ["<h3>The worst mistakes</h3>", _mistakes(split), _failures(split), "</section>"]
    return "\n".join(parts)


def _file_stem(split: TestedSplit) -> str:
    return split.name.replace("/", "_")


def _picture(png: bytes, path: Path) -> str:
    path.write_bytes(png)
    return f'<img class="plot" alt="{escape(path.stem)}" src="{_data_uri(png, "png")}">'


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _table(heads: list[str] | None, rows: list[list[str]], kind: str) -> str:
    """Heads and cells are HTML."""
    head = "<thead><tr>" + "".join(f"<th>{cell}</th>" for cell in heads) + "</tr></thead>" if heads else ""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<table class="{kind}">{head}<tbody>' + "\n".join(lines) + "</tbody></table>"


def _every_class(split: TestedSplit) -> str:
    """Table of all classes that have videos, the worst first."""
    accuracy, num_videos = split.class_accuracy
    num_failed = np.bincount(split.labels[split.predicted == confusion.FAILED], minlength=len(accuracy))
    mistaken = split.counts - np.diag(split.counts.diagonal())
    rows = []
    for label in np.argsort(accuracy, kind="stable").tolist():
        if num_videos[label] == 0:
            continue
        other = int(mistaken[label].argmax())
        count = int(mistaken[label, other])
        rows.append(
            [
                str(label),
                escape(split.class_names[label]),
                str(num_videos[label]),
                str(num_failed[label] or ""),
                f'<i style="width:{accuracy[label]:.0f}px"></i>{accuracy[label]:.1f}',
                f"{escape(split.class_names[other])} ({count})" if count else "",
            ]
        )
    heads = ["label", "class", "videos", "failed", "top-1, %", "most often taken for"]
    table = _table(heads, rows, kind="classes")
    return f"<details><summary>All {len(rows)} classes as a table</summary>{table}</details>"


def _pairs(split: TestedSplit) -> str:
    """Table of the most confused pairs of classes."""
    pairs = confusion.confused_pairs(split.counts, split.class_accuracy[1], NUM_PAIRS)
    if not pairs:
        return "<p>No class was taken for another.</p>"
    rows = [
        [
            escape(split.class_names[pair.true]),
            escape(split.class_names[pair.predicted]),
            str(pair.count),
            f'<i style="width:{100 * pair.share:.0f}px"></i>{100 * pair.share:.0f}',
            str(pair.reverse_count or ""),
        ]
        for pair in pairs
    ]
    heads = ["true class", "taken for", "videos", "% of the class", "the other way round"]
    return f"<h4>The most confused pairs ({len(pairs)})</h4>" + _table(heads, rows, kind="pairs")


def _mistakes(split: TestedSplit) -> str:
    """Pictures of the videos that the model was most wrong about."""
    chosen = confusion.worst_mistakes(split.log_probabilities, split.labels, split.predicted, NUM_MISTAKES)
    if not chosen:
        return "<p>None.</p>"
    note = (
        "By how much more probable the wrong class was than the true one: softmax of the mean cosine over views times "
        "the model's logit scale. At most two of a pair of classes."
    )
    return f'<p>{note}</p><div class="mistakes">' + "\n".join(_mistake(split, index) for index in chosen) + "</div>"


def _mistake(split: TestedSplit, index: int) -> str:
    true, predicted = int(split.labels[index]), int(split.predicted[index])
    probability = split.log_probabilities[index].exp()
    strip = split.film_strip(index)
    picture = f'<img alt="" src="{_data_uri(strip, "jpeg")}">' if strip else '<div class="none">no picture</div>'
    return (
        f"<figure>{picture}<figcaption>"
        f'<span class="true">{escape(split.class_names[true])}</span> {_percent(probability[true])}<br>'
        f'<span class="wrong">{escape(split.class_names[predicted])}</span> {_percent(probability[predicted])}<br>'
        f"<code>{escape(split.paths[index])}</code></figcaption></figure>"
    )


def _percent(probability: Tensor) -> str:
    percent = 100 * probability.item()
    return f"{percent:.1f} %" if percent >= 0.1 else "&lt; 0.1 %"


def _failures(split: TestedSplit) -> str:
    """Every video that could not be read, and why."""
    if not split.failures:
        return ""
    rows = [[f"<code>{escape(path)}</code>", escape(reason)] for path, reason in sorted(split.failures.items())]
    table = _table(["video", "reason"], rows, kind="failures")
    title = f"{len(rows)} videos could not be read and count as wrong"
    return f"<h3>Failed videos</h3><details><summary>{title}</summary>{table}</details>"
