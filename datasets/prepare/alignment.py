"""Words that somebody cleaned, aligned to the words that speech recognition heard and timed: dynamic time warping.

The recognised words carry the times, the cleaned ones the spelling. Costs, band and ties are those of TVTSv2's
published code, where this ran at every visit of a video. Here it runs once: ``python -m datasets.prepare transcripts``.
"""

import string

import numpy as np

BAND_SHARE, LEAST_BAND = 0.1, 32  # width of the band on either side: a share of the recognised words, or this
FAR = 1 << 40  # a cost that no path has
PAIRS = 1 << 18  # words compared at a time
DIAGONAL, UP, LEFT = 0, 1, 2  # steps back to (i - 1, j - 1), (i - 1, j), (i, j - 1); of equal ones the first is taken
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def aligned_words(recognised: list[str], cleaned: list[str]) -> list[str]:
    """The cleaned words that belong to each recognised one, joined by blanks; empty where there are none.

    Each cleaned word belongs to the first recognised word that the path matches it with; those beyond the number of
    recognised ones and the band are dropped.

    Args:
        recognised: N words, at least one.
        cleaned: words, at least one.

    Returns:
        N texts.
    """
    radius = max(int(BAND_SHARE * len(recognised)), LEAST_BAND)
    cleaned = cleaned[: len(recognised) + radius]
    texts: list[list[str]] = [[] for _ in recognised]
    last = -1
    for i, j in _path(recognised, cleaned, radius):
        if j > last:
            texts[i].append(cleaned[j])
            last = j
    return [" ".join(words) for words in texts]


def _path(first: list[str], second: list[str], radius: int) -> list[tuple[int, int]]:
    """The cheapest path of steps (1, 1), (1, 0), (0, 1) from (0, 0) to the last words of both.

    A pair costs its edit distance, and 9999 in the published code where |i - j| is not below ``radius``. That is more
    than any detour within the band, so a path leaves the band only if its end lies outside, at the last moment and
    straight towards it: only pairs within the band are computed, and the straight rest is added.
    """
    n, m = len(first), len(second)
    end_i, end_j = min(n, m + radius - 1) - 1, min(m, n + radius - 1) - 1
    steps = _steps_back(*_costs(first, second), end_i, radius)
    path = [(end_i, end_j)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        step = steps[i, j - i + radius - 1]
        path.append((i - (step != LEFT), j - (step != UP)))
    rest = [(i, end_j) for i in range(end_i + 1, n)] + [(end_i, j) for j in range(end_j + 1, m)]
    return path[::-1] + rest


def _steps_back(costs: np.ndarray, rows: np.ndarray, columns: np.ndarray, end: int, radius: int) -> np.ndarray:
    """Where the cheapest path to each pair of the band comes from, uint8 [end + 1, 2 radius - 1].

    Column k of row i is the pair (i, i + k - radius + 1). The sum over a row is that of its costs from where the path
    came down, so a row is a running minimum and no loop.
    """
    width, m = 2 * radius - 1, len(columns)
    steps = np.zeros((end + 1, width), dtype=np.uint8)
    before = np.full(width + 1, FAR)  # sums of the row before, and one beyond its end
    for i in range(end + 1):
        start, stop = max(0, radius - 1 - i), min(width, m - i + radius - 1)
        row = costs[rows[i], columns[i + start - radius + 1 : i + stop - radius + 1]]
        diagonal, up = before[start:stop], before[start + 1 : stop + 1]
        came = np.minimum(diagonal, up)
        if i == 0:
            came = np.where(np.arange(stop - start) == 0, 0, FAR)
        summed = np.cumsum(row)
        sums = summed + np.minimum.accumulate(came - (summed - row))
        left = np.concatenate([[FAR], sums[:-1]])
        steps[i, start:stop] = np.where((diagonal <= up) & (diagonal <= left), DIAGONAL, np.where(up <= left, UP, LEFT))
        if i == 0:
            steps[0, start:stop] = LEFT
        before = np.full(width + 1, FAR)
        before[start:stop] = sums
    return steps


def _costs(first: list[str], second: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edit distances of all different words, and the row and the column of each word: int64 [U, V], [N], [M]."""
    bare = [[word.lower().translate(NO_PUNCTUATION) for word in words] for words in (first, second)]
    (a, rows), (b, columns) = (np.unique(np.array(words, dtype=object), return_inverse=True) for words in bare)
    at_once = max(1, PAIRS // len(b))
    parts = [edit_distances(list(a[start : start + at_once]), list(b)) for start in range(0, len(a), at_once)]
    return np.concatenate(parts), rows, columns


def edit_distances(first: list[str], second: list[str]) -> np.ndarray:
    """Levenshtein's distances of all pairs, int64 [U, V]: the table of each pair, filled for all pairs at once."""
    a, b = _letters(first, filler=-1), _letters(second, filler=-2)
    ends = np.array([len(word) for word in second])[None]
    lengths = np.array([len(word) for word in first])
    table = np.broadcast_to(np.arange(b.shape[1] + 1)[:, None, None], (b.shape[1] + 1, len(first), len(second)))
    found = np.broadcast_to(ends, table.shape[1:]).astype(np.int64)  # of words without letters
    for i in range(a.shape[1]):
        above, table = table, np.empty(table.shape, dtype=np.int32)
        table[0] = i + 1
        for j in range(b.shape[1]):
            differs = a[:, i, None] != b[None, :, j]
            table[j + 1] = np.minimum(np.minimum(above[j + 1], table[j]) + 1, above[j] + differs)
        if len(whole := np.flatnonzero(lengths == i + 1)):
            found[whole] = np.take_along_axis(table[:, whole], np.broadcast_to(ends, (1, len(whole), ends.size)), 0)[0]
    return found


def _letters(words: list[str], filler: int) -> np.ndarray:
    """Code points, int32 [number of words, letters of the longest]."""
    letters = np.full((len(words), max(map(len, words))), filler, dtype=np.int32)
    for row, word in zip(letters, words, strict=True):
        row[: len(word)] = [ord(letter) for letter in word]
    return letters
