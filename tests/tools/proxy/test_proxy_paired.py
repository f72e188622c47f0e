"""Paired errors against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from tools.proxy.paired import Claim, Difference, difference

LISTS = ("objects", "motions")


@pytest.fixture
def pair() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two models, four runs; lists of different lengths."""
    rng = np.random.default_rng(0)
    lengths = {"objects": 30, "motions": 50, "close": 20}
    return tuple({name: rng.random((4, n)) < share for name, n in lengths.items()} for share in (0.7, 0.4))


def test_the_error_over_runs_is_that_of_a_paired_t_test(pair):
    first, second = pair
    found = difference(first, second, LISTS)
    means = [100 * np.mean([model[name].mean(axis=1) for name in LISTS], axis=0) for model in pair]
    expected = stats.ttest_rel(*means)
    assert found.mean == pytest.approx(means[0].mean() - means[1].mean())
    assert found.mean / found.over_runs == pytest.approx(expected.statistic)


def test_the_error_over_videos_is_that_of_a_paired_t_test_where_there_is_one_list(pair):
    one_run = [{name: hits[:1] for name, hits in model.items()} for model in pair]
    found = difference(*one_run, ("motions",))
    expected = stats.ttest_rel(*(model["motions"][0].astype(float) for model in one_run))
    assert found.over_runs is None
    assert found.mean / found.error == pytest.approx(expected.statistic)
    # Several runs are one value a video, their mean.
    means = [model["motions"].mean(axis=0) for model in pair]
    several = difference(*pair, ("motions",))
    assert several.mean / several.over_videos == pytest.approx(stats.ttest_rel(*means).statistic)


def test_lists_count_alike_whatever_their_lengths():
    first = {"a": np.array([[True, True, False, False]]), "b": np.array([[True, False]])}
    second = {"a": np.array([[False, True, False, False]]), "b": np.array([[False, False]])}
    found = difference(first, second, ("a", "b"))
    assert found.mean == pytest.approx((25 + 50) / 2)
    # Variances of 0, 0, 0, 100 and 0, 100 with n - 1 are 2500 and 5000.
    assert found.over_videos == pytest.approx(((2500 / 4 + 5000 / 2) ** 0.5) / 2)


def test_pairing_takes_out_what_both_models_share(pair):
    first, _ = pair
    worse = {name: hits.copy() for name, hits in first.items()}
    for hits in worse.values():
        hits[:, 0] = False
    assert difference(first, worse, LISTS).over_videos < difference(first, None, LISTS).over_videos


def test_without_a_second_model_it_is_the_accuracy(pair):
    found = difference(pair[0], None, ("close",))
    assert found.mean == pytest.approx(100 * pair[0]["close"].mean())
    assert found.over_runs == pytest.approx(stats.sem(100 * pair[0]["close"].mean(axis=1)))


def test_the_larger_error_counts():
    assert Difference(5.0, 0.1, 3.0).error == 3.0
    assert Difference(5.0, 4.0, 3.0).error == 4.0
    assert Difference(5.0, None, 3.0).error == 3.0


@pytest.mark.parametrize(
    ("mean", "text"), [(5.0, "+5.0 ± 3.0"), (6.0, "**+6.0 ± 3.0**"), (-6.5, "**-6.5 ± 3.0**"), (-2.0, "-2.0 ± 3.0")]
)
def test_two_errors_are_bold(mean, text):
    assert Difference(mean, 1.0, 3.0).text == text


def test_models_that_agree_on_every_video_differ_in_nothing(pair):
    found = difference(pair[0], pair[0], LISTS)
    assert (found.mean, found.error, found.is_told) == (0.0, 0.0, False)
    assert Claim("", found).verdict == "cannot be told"


@pytest.mark.parametrize(
    ("mean", "verdict"), [(16.0, "holds"), (15.9, "cannot be told"), (4.1, "cannot be told"), (4.0, "does not hold")]
)
def test_a_claim_needs_two_errors_beyond_its_limit(mean, verdict):
    assert Claim("", Difference(mean, None, 3.0), least=10.0).verdict == verdict


def test_other_videos_or_runs_cannot_be_paired(pair):
    fewer = pair[1] | {"motions": pair[1]["motions"][:, :-1]}
    with pytest.raises(ValueError, match=r"motions: .*\(4, 49\)"):
        difference(pair[0], fewer, LISTS)
