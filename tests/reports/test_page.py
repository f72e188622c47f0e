"""The page of a test: one file that shows what is in the scores, whatever the classes are called."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from engine.protocols.accuracy import accuracy
from engine.results import Results, over_splits
from reports.page import TestedSplit, write_page

JPEG = b"\xff\xd8 a picture"


def split_of(scores: torch.Tensor, labels: list[int], class_names: list[str], **changes) -> TestedSplit:
    """A split of made-up figures around scores."""
    labels = np.array(labels)
    paths = [f"videos/{index}.mp4" for index in range(len(labels))]
    failures = {paths[index]: "cut <off>" for index in scores.isnan().any(dim=1).nonzero()[:, 0].tolist()}
    result = Results(
        dataset="toy", **accuracy(scores, torch.from_numpy(labels)), num_videos=len(labels), num_clips=4, num_crops=3,
        fusion="a <rule>", weights="w.pt", list_fingerprint="0123abcd", decoder="pyav", precision="fp32",
        failed_videos=sorted(failures),
    )  # fmt: skip
    parts = {"name": "toy", "result": result, "class_names": class_names, "labels": labels, "paths": paths,
             "scores": scores, "log_probabilities": scores.log_softmax(dim=1), "failures": failures,
             "film_strip": lambda index: JPEG,
             "targets": torch.from_numpy(labels)[:, None] == torch.arange(len(class_names))}  # fmt: skip
    return TestedSplit(**(parts | changes))


def random_split(num_classes: int, num_videos: int, **changes) -> TestedSplit:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num_videos,), generator=generator)
    scores = torch.randn(num_videos, num_classes, generator=generator)
    scores[torch.arange(num_videos), labels] += 2.0
    names = [f"class number {label}" for label in range(num_classes)]
    return split_of(scores, labels.tolist(), names, **changes)


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def sources(self) -> list[str]:
        return [attributes["src"] for _, attributes in self.tags if "src" in attributes]


@pytest.fixture
def page_of(tmp_path):
    """Write a page and read it back."""

    def write(*splits: TestedSplit) -> Page:
        several = len(splits) > 1
        results = over_splits({split.name: split.result for split in splits}) if several else splits[0].result
        return Page(write_page(tmp_path, results, list(splits)).read_text(encoding="utf-8"))

    return write


def test_the_page_shows_the_figures_of_the_results(page_of):
    page = page_of(random_split(3, 12))
    for text in ("4 clips x 3 crops", "a <rule>", "w.pt", "0123abcd", "pyav", "fp32"):
        assert text in page.texts


def test_a_list_with_several_labels_a_video_shows_average_precision_and_no_confusions(page_of, tmp_path):
    split = random_split(3, 12)
    split.scores[4] = torch.nan
    targets = torch.zeros(12, 3, dtype=torch.bool)
    targets[:, 0] = targets[3:6, 1] = True
    result = replace(split.result, top1=None, top5=None, mAP=61.25)
    page = page_of(replace(split, result=result, targets=targets, precisions=np.array([90.5, 33.25, 0.0])))
    assert {"Average precision of each class", "average precision, %", "61.25", "90.5", "33.2"} <= set(page.texts)
    assert not {"What is taken for what", "The worst mistakes", "top-1, %", "most often taken for"} & set(page.texts)
    assert "mAP 61.25 %" in page.texts[0] + "".join(page.texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "toy_classes.png"]
    cells = page.texts[page.texts.index("class number 1") :]
    assert cells[1:3] == ["3", "1"]  # videos, failed
    assert "class number 2" not in page.texts  # no video


def test_the_page_needs_no_other_file_and_runs_nothing(page_of):
    page = page_of(random_split(3, 12))
    assert page.sources()
    assert all(source.startswith("data:image/") for source in page.sources())
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "url(" not in "".join(page.texts)
    assert all(attributes["href"].startswith("#") for _, attributes in page.tags if "href" in attributes)


def test_pictures_are_files_too(page_of, tmp_path):
    page_of(random_split(3, 12))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "toy_classes.png", "toy_confusion.png"]
    assert (tmp_path / "toy_confusion.png").read_bytes().startswith(b"\x89PNG")


def test_text_from_data_is_never_markup(page_of):
    names = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b"]
    labels = [0, 0, 1, 1, 2]
    scores = torch.eye(3)[[1, 0, 0, 1, 1]]
    page = page_of(split_of(scores, labels, names, name="<b>split</b>", paths=[f"<i>{i}</i>.mp4" for i in range(5)]))
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert "b" in tags  # our own
    assert not any("onerror" in attributes for _, attributes in page.tags)
    for text in (*names, "<b>split</b>", "<i>2</i>.mp4"):
        assert text in page.texts


def test_mistakes_have_both_classes_the_path_and_a_picture(page_of):
    scores = torch.tensor([[5.0, 0.0], [0.0, 5.0], [1.0, 0.0]])
    page = page_of(split_of(scores, [0, 0, 1], ["walking", "running"]))
    figures = [tag for tag, _ in page.tags if tag == "figure"]
    assert len(figures) == 2
    assert "videos/1.mp4" in page.texts
    assert "videos/0.mp4" not in page.texts
    assert any(re.search(r"99\.3 %", text) for text in page.texts)
    assert sum(source.startswith("data:image/jpeg") for source in page.sources()) == 2


def test_without_frames_there_is_a_word_in_place_of_the_picture(page_of):
    page = page_of(random_split(3, 12, film_strip=lambda index: None))
    assert "no picture" in page.texts


def test_failed_videos_are_named_with_their_reason(page_of):
    split = random_split(3, 12)
    split.scores[4] = torch.nan
    page = page_of(split_of(split.scores, split.labels.tolist(), split.class_names))
    assert "videos/4.mp4" in page.texts
    assert "cut <off>" in page.texts


def test_a_list_of_failed_videos_only_has_a_page(page_of):
    page = page_of(split_of(torch.full((3, 2), torch.nan), [0, 1, 1], ["a", "b"]))
    assert "No video could be read." in page.texts


@pytest.mark.parametrize("num_videos", [1, 4])
def test_a_single_class_has_a_page(page_of, num_videos):
    page = page_of(split_of(torch.ones(num_videos, 1), [0] * num_videos, ["jumping"]))
    assert "No class was taken for another." in page.texts


def test_absent_classes_are_counted(page_of):
    page = page_of(split_of(torch.eye(5)[[1, 3, 3]], [1, 3, 1], list("abcde")))
    assert "5 classes, 3 of them without a video." in page.texts
    assert "All 2 classes as a table" in page.texts


def test_odd_class_names_are_drawn_without_complaint(page_of, recwarn):
    names = ["打篮球", "пение", "$x^2$ and $", "long " * 200, "\x07 bell", "\udcff"]
    page_of(split_of(torch.eye(6)[[1, 0, 3, 2, 5, 4]], list(range(6)), names))
    assert [str(warning.message) for warning in recwarn] == []


def test_several_splits_have_a_section_each_and_a_column_each(page_of, tmp_path):
    splits = [random_split(3, 12, name="ucf/one"), random_split(3, 12, name="hmdb/one")]
    page = page_of(*splits)
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == ["ucf_one", "hmdb_one"]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["#ucf_one", "#hmdb_one"]
    assert (tmp_path / "hmdb_one_confusion.png").exists()
    assert any("± 0.00" in text for text in page.texts)


def test_many_classes_have_a_page_with_all_of_them_in_the_table(page_of):
    page = page_of(random_split(130, 1500))
    assert "All 130 classes as a table" in page.texts
    assert "The most confused pairs (30)" in page.texts
    assert {f"class number {label}" for label in range(130)} <= set(page.texts)
