"""The benchmark page: what was measured, and what is kept by hand."""

from benchmarks.all import INTRODUCTION, NOTES, PAGE, page
from benchmarks.harness import Measurement


def test_the_page_keeps_what_is_written_by_hand():
    measured = Measurement("head, test", "ours", "clips", 4.0, 0.25, 0.2, 0.3, 2.0, 100.0)
    text = page({"head": [measured]}, 3, "what a block keeps")
    parts = ("## head", "| ours | 4.00 |", "what a block keeps", NOTES.read_text())
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert text == text.rstrip() + "\n"


def test_the_page_of_the_repository_has_what_is_written_by_hand_as_it_is():
    assert PAGE.read_text().startswith(INTRODUCTION)
    assert NOTES.read_text() in PAGE.read_text()
