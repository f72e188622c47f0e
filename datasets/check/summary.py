"""The checker's findings: problems, tables, report.json, report.md and the lists without unreadable videos."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.decode.probe import Facts
from datasets.lists.label_sets import NO_LABEL
from datasets.lists.records import VideoList, write_video_list
from utils.files import write_text
from utils.text import render

TEMPLATE = Path(__file__).with_name("report.md.jinja")
KINDS = ("unreadable", "too short", "twice in the list", "in both lists", "same content", "note")
UNREADABLE, TOO_SHORT, TWICE, ACROSS, SAME, NOTE = KINDS


@dataclass
class Examined:
    """One video, or why it is unreadable."""

    facts: Facts = field(default_factory=Facts)
    reason: str = ""


class Problem(NamedTuple):
    """Something that is wrong or unusual."""

    kind: str
    list: str  # name of the list
    path: str  # as written in the list
    detail: str


class Findings(NamedTuple):
    """All that was found."""

    lists: dict[str, VideoList]
    examined: dict[str, Examined]  # by place
    same_content: list[list[str]]  # groups of places


def place(videos: VideoList, index: int) -> str:
    """The path of a video on this machine: what tells whether two lines mean the same file."""
    return os.path.abspath(Path(videos.root, videos.path(index)))


def _labels(videos: VideoList, index: int) -> str:
    return ",".join(map(str, videos.labels_of(index)))


def _problems_of_videos(found: Findings, num_segments: int) -> Iterator[Problem]:
    for name, videos in found.lists.items():
        for index in range(len(videos)):
            video, path = found.examined[place(videos, index)], videos.path(index)
            if video.reason:
                yield Problem(UNREADABLE, name, path, video.reason)
                continue
            if video.facts.num_frames < num_segments:
                yield Problem(TOO_SHORT, name, path, f"frames: {video.facts.num_frames}, needed: {num_segments}")
            yield from (Problem(NOTE, name, path, note) for note in video.facts.notes)


def _repeated_lines(found: Findings) -> Iterator[Problem]:
    """A file that one list names twice, or that two lists name."""
    first_list: dict[str, str] = {}
    for name, videos in found.lists.items():
        labels: dict[str, str] = {}
        for index in range(len(videos)):
            where, label = place(videos, index), _labels(videos, index)
            if where in labels:
                yield Problem(TWICE, name, videos.path(index), f"labels {labels[where]} and {label}")
            elif first_list.get(where, name) != name:
                yield Problem(ACROSS, name, videos.path(index), f"also in {first_list[where]}")
            labels.setdefault(where, label)
            first_list.setdefault(where, name)


def _copies(found: Findings) -> Iterator[Problem]:
    """Different files of the same content; the group is named at each file but the first."""
    uses: dict[str, tuple[str, str, str]] = {}
    for name, videos in reversed(found.lists.items()):
        for index in range(len(videos)):
            uses[place(videos, index)] = (name, videos.path(index), _labels(videos, index))
    for group in found.same_content:
        (name, path, label), *others = (uses[where] for where in group)
        for other_name, other_path, other_label in others:
            kind = SAME if other_name == name else ACROSS
            detail = f"same bytes as {path} in {name}, labels {other_label} and {label}"
            yield Problem(kind, other_name, other_path, detail)


def write_findings(
    out: Path, found: Findings, class_names: list[str], num_segments: int, run: dict[str, object]
) -> str:
    """Write ``report.json``, ``report.md`` and the cleaned lists to ``out``; returns the findings as text.

    Args:
        class_names: for the table of classes; empty: labels stand for themselves.
        run: what was done, and how fast; opens the text.
    """
    out.mkdir(parents=True, exist_ok=True)
    problems = [*_problems_of_videos(found, num_segments), *_repeated_lines(found), *_copies(found)]
    problems.sort(key=lambda problem: KINDS.index(problem.kind))
    lists = {name: _list_entry(found, name, class_names) for name in found.lists}
    content = {**run, "lists": lists, "problems": [problem._asdict() for problem in problems]}
    write_text(out / "report.json", json.dumps(content, indent=2) + "\n")
    for name, videos in found.lists.items():
        if not videos.has_label_sets and (videos.labels == NO_LABEL).all():
            continue  # of texts, which a list of paths would lose
        good = [index for index in range(len(videos)) if not found.examined[place(videos, index)].reason]
        write_video_list(out / f"{name}_clean.txt", videos.take(np.array(good, dtype=np.int64)))
    counts = Counter(problem.kind for problem in problems)
    text = render(TEMPLATE, run=run, lists=lists, problems=problems, counts=counts)
    write_text(out / "report.md", text)
    return text + f"\nwritten to {out}\n"


def _list_entry(found: Findings, name: str, class_names: list[str]) -> dict:
    """Figures of one list."""
    videos = found.lists[name]
    seen = [found.examined[place(videos, index)] for index in range(len(videos))]
    good = [video.facts for video in seen if not video.reason]
    failed = [index for index, video in enumerate(seen) if video.reason]
    total = Counter(videos.all_labels().tolist())
    unreadable = Counter(label for index in failed for label in videos.labels_of(index))
    num_classes = len(class_names) or max(total) + 1
    return {
        "num_videos": len(videos),
        "num_unreadable": len(failed),
        "fingerprint": videos.fingerprint(),
        "classes": {
            class_names[label] if class_names else str(label): [total[label], unreadable[label]]
            for label in range(num_classes)
            if class_names or total[label]
        },
        "resolutions": Counter(f"{facts.width}x{facts.height}" for facts in good).most_common(5),
        "frame_rates": Counter(f"{facts.fps:.4g}" for facts in good if facts.fps).most_common(5),
        "frames": _spread([facts.num_frames for facts in good]),
        "seconds": _spread([facts.seconds for facts in good if facts.seconds]),
        "bytes": _spread([facts.num_bytes for facts in good]),
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    figures = {"min": np.min(values), "median": np.median(values), "max": np.max(values), "total": np.sum(values)}
    return {name: round(float(value), 3) for name, value in figures.items()}
