"""The tests of the proxy world's rows, read back: which videos were right, in which form, in which run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from engine.protocols.accuracy import topk_hits
from engine.results import Results, read_results
from modules.build import load_config
from tools.proxy.evaluate import CLOSE, DONE, SCORES, ZERO_SHOT
from tools.proxy.rows import SETS, Planned, Row
from utils.config import changes
from utils.files import no_file

Hits = dict[str, np.ndarray]  # of a row in one form: list -> bool [R, N], R runs of N videos
RESULTS = "results.json"
NEVER_COMPARED = "resume"  # a run that was stopped and went on is the same run


class Measured(NamedTuple):
    """All runs of one row."""

    row: Row
    forms: dict[str, Hits]
    tests: tuple[dict[str, Results], ...]  # list -> results, of all runs and forms


def is_complete(runs: Iterable[Planned]) -> bool:
    """Whether all of these runs were tested."""
    return all((planned.results / DONE).exists() for planned in runs)


def measured(row: Row, runs: Sequence[Planned]) -> Measured:
    """Read the tests of one row.

    Args:
        runs: in the order that all rows share.

    Raises:
        FileNotFoundError, ValueError: a test is missing or damaged; a run has not the settings that its row has now.
    """
    forms: dict[str, list[dict[str, np.ndarray]]] = {form: [] for form in row.forms}
    tests = []
    for planned in runs:
        _check_run(planned)
        for form, found in forms.items():
            results, hits = _read_form(planned.results / form)
            tests.append(results)
            found.append(hits)
    return Measured(row, {form: _stacked(found) for form, found in forms.items()}, tuple(tests))


def _stacked(runs: list[dict[str, np.ndarray]]) -> Hits:
    return {name: np.stack([hits[name] for hits in runs]) for name in runs[0]}


def check_alike(rows: Iterable[Measured]) -> Results:
    """See that all tests were of the same videos in the same way; returns one of them.

    Raises:
        ValueError: names a row that was tested otherwise than the first.
    """
    facts: dict[str, tuple] = {}
    first = None
    for row in rows:
        for tests in row.tests:
            for name, test in tests.items():
                first = first or test
                how = test.list_fingerprint, test.num_clips, test.num_crops, test.dense, test.precision
                if facts.setdefault(name, how) != how:
                    raise ValueError(
                        f"{row.row.name}: {name} was tested with other videos, views or precision than those before: "
                        f"{how}, expected {facts[name]}"
                    )
    return first


def _check_run(planned: Planned) -> None:
    """A run folder is known by its name, and the row of that name may have been another one when it was trained."""
    if planned.run is None:
        return
    path = planned.run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {no_file(path)}")
    found = changes(path.read_text(encoding="utf-8"), load_config(planned.config, planned.overrides))
    if found := [change for change in found if change.partition(":")[0] != NEVER_COMPARED]:
        raise ValueError(f"{planned.run} was trained with other settings than its row: {'; '.join(found)}; remove it")


def _read_form(folder: Path) -> tuple[dict[str, Results], dict[str, np.ndarray]]:
    """Results and hits [N] of all lists."""
    results = {CLOSE: read_results(folder / CLOSE / RESULTS)}
    splits = read_results(folder / ZERO_SHOT / RESULTS).splits or {}
    arrays = {CLOSE: folder / CLOSE / SCORES}
    for name in SETS:
        if name not in splits:
            raise ValueError(f"{folder / ZERO_SHOT / RESULTS}: expected results of {name}, found {', '.join(splits)}")
        results[name] = splits[name]
        scores = folder / ZERO_SHOT / SCORES
        arrays[name] = scores.with_name(f"{scores.stem}_{name}{scores.suffix}")
    return results, {name: _hits(path, results[name]) for name, path in arrays.items()}


def _hits(path: Path, results: Results) -> np.ndarray:
    """Which videos of a list were right, bool [N].

    Raises:
        ValueError: they are not those that the results count.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {no_file(path)}")
    with np.load(path) as tables:
        hits = topk_hits(torch.from_numpy(tables["scores"]), torch.from_numpy(tables["labels"]), 1).numpy()
    if results.top1 is None or abs(100 * hits.mean() - results.top1) > 1e-6:
        raise ValueError(f"{path}: {100 * hits.mean():.2f} % are right, but {RESULTS} beside it says {results.top1}")
    return hits
