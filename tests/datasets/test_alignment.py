"""Cleaned words aligned to recognised ones: against tables that are filled pair by pair."""

import random

import numpy as np
import pytest

from datasets.prepare import alignment
from datasets.prepare.alignment import aligned_words, edit_distances


def levenshtein(first: str, second: str) -> int:
    before = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        row = [i]
        for j, other in enumerate(second, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other)))
        before = row
    return before[-1]


def whole_path(first: list[str], second: list[str], radius: int) -> list[tuple[int, int]]:
    """The published rule on the whole table, with its 9999 outside the band."""
    n, m = len(first), len(second)
    sums = np.full((n + 1, m + 1), np.inf)
    sums[0, 0] = 0
    for i in range(n):
        for j in range(m):
            cost = levenshtein(first[i], second[j]) if abs(i - j) < radius else 9999
            sums[i + 1, j + 1] = cost + min(sums[i, j], sums[i, j + 1], sums[i + 1, j])
    path = [(n - 1, m - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        step = int(np.argmin([sums[i, j], sums[i, j + 1], sums[i + 1, j]]))  # the first of equal ones
        path.append([(i - 1, j - 1), (i - 1, j), (i, j - 1)][step])
    return path[::-1]


def test_the_path_is_that_of_the_whole_table_whatever_the_band_and_the_ties():
    rng = random.Random(0)
    for _ in range(150):
        radius, n = rng.randint(1, 6), rng.randint(1, 25)
        m = rng.randint(1, n + radius)
        first, second = (["".join(rng.choices("ab", k=rng.randint(0, 3))) for _ in range(size)] for size in (n, m))
        assert alignment._path(first, second, radius) == whole_path(first, second, radius)


def test_of_equal_steps_back_the_diagonal_comes_first_then_the_recognised_word():
    assert alignment._path(["a"] * 3, ["a"] * 2, 9) == [(0, 0), (1, 0), (2, 1)]
    assert alignment._path(["a"] * 2, ["a"] * 3, 9) == [(0, 0), (0, 1), (1, 2)]


def test_distances_are_levenshteins():
    first, second = ["", "kitten", "a", "flaw", "straße"], ["sitting", "", "lawn", "strasse", "a", "b" * 300]
    expected = [[levenshtein(a, b) for b in second] for a in first]
    assert edit_distances(first, second).tolist() == expected


def test_words_compare_without_case_and_punctuation_and_each_is_given_once():
    assert aligned_words(["well", "hello", "you", "there"], ["Well,", "Hello!", "There."]) == [
        "Well,", "Hello!", "", "There.",
    ]  # fmt: skip
    assert aligned_words(["one"], ["One", "two", "three"]) == ["One two three"]


def test_cleaned_words_far_beyond_the_recognised_ones_are_dropped():
    assert aligned_words(["a"], ["a"] * 100) == [" ".join(["a"] * 33)]  # as many as there are, and the band's 32


@pytest.mark.parametrize(("recognised", "cleaned"), [(60, 20), (20, 60), (400, 300)])
def test_an_end_outside_the_band_is_reached_straight(recognised, cleaned):
    rng = random.Random(recognised)
    words = ["".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(recognised + cleaned)]
    first, second = words[:recognised], words[recognised:]
    radius = max(int(0.1 * recognised), 32)
    second = second[: recognised + radius]
    if recognised < 100:
        assert alignment._path(first, second, radius) == whole_path(first, second, radius)
    given = " ".join(filter(None, aligned_words(first, second))).split()
    assert given == second
