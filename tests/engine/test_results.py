"""``results.json``: what is written is read again; several lists have their mean; what is wrong is named."""

import json
from dataclasses import replace

import pytest

from engine.results import Results, over_splits, read_results, write_results

ONE = Results(
    dataset="ucf101", top1=80.0, top5=90.0, num_videos=10, num_clips=3, num_crops=1, fusion="mean", weights="w.pt",
    list_fingerprint="f", precision="fp32", decoder="pyav", failed_videos=[],
)  # fmt: skip
TWO = replace(ONE, top1=84.0, top5=96.0, num_videos=20, failed_videos=["x.mp4"])


def test_splits_are_summarised_as_mean_and_population_std():
    splits = {"one": ONE, "two": TWO}
    summary = over_splits(splits)
    assert summary.top1 == 82.0
    assert (summary.top1_std, summary.top5, summary.top5_std) == (2.0, 93.0, 3.0)
    assert (summary.dataset, summary.num_videos, summary.failed_videos) == ("ucf101", 30, ["x.mp4"])
    assert (summary.num_clips, summary.fusion, summary.weights, summary.decoder) == (3, "mean", "w.pt", "pyav")
    assert summary.splits == splits


def test_mean_average_precision_has_mean_and_std_and_may_be_the_only_figure():
    summary = over_splits(
        {"one": replace(ONE, mAP=50.0), "two": replace(TWO, mAP=60.0), "three": replace(ONE, mAP=55.0)}
    )
    assert (summary.mAP, round(summary.mAP_std, 4)) == (55.0, 4.0825)
    only = {name: replace(ONE, top1=None, top5=None, mAP=value) for name, value in (("one", 50.0), ("two", 60.0))}
    assert over_splits(only).figures == {"mAP": (55.0, 5.0)}
    assert not {"top1", "top1_std", "top5", "top5_std"} & over_splits(only).to_dict().keys()


def test_a_figure_that_a_list_lacks_has_no_mean():
    summary = over_splits({"one": ONE, "two": replace(TWO, top1=None, top5=None, mAP=60.0)})
    assert summary.figures == {}


def test_results_without_any_figure_are_damaged(tmp_path):
    for results, place in (
        (replace(ONE, top1=None, top5=None), "top1"),
        (over_splits({"a": ONE, "b": replace(TWO, top1=None, top5=None)}), "splits.b.top1"),
    ):
        write_results(tmp_path / "results.json", results)
        with pytest.raises(ValueError, match=f"results.json: damaged, missing {place}, or mAP"):
            read_results(tmp_path / "results.json")


def test_several_decoders_have_no_common_name_and_mismatches_come_together():
    other = replace(TWO, dataset="hmdb51", decoder="decord", frame_count_mismatches=["y.mp4"])
    summary = over_splits({"one": ONE, "two": other})
    assert (summary.dataset, summary.decoder, summary.frame_count_mismatches) == ("ucf101+hmdb51", None, ["y.mp4"])


@pytest.mark.parametrize(
    "results",
    [
        ONE,
        replace(TWO, half_class={"top1_mean": 1.5}),
        over_splits({"a": ONE, "b": TWO}),
        replace(ONE, top1=None, top5=None, mAP=31.5),
        over_splits({"a": ONE, "b": replace(TWO, top1=None, top5=None, mAP=60.0)}),
    ],
)
def test_what_is_written_is_read_again(results, tmp_path):
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_keys_that_do_not_apply_are_absent():
    assert not {"top1_std", "half_class", "splits", "frame_count_mismatches"} & ONE.to_dict().keys()
    one, two = over_splits({"a": ONE, "b": TWO}).to_dict()["splits"].values()
    assert (one, two) == (ONE.to_dict(), TWO.to_dict())


def test_keys_of_other_versions_are_left_out(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(ONE.to_dict() | {"later": 1}))
    assert read_results(tmp_path / "results.json") == ONE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top1": "high"}, "damaged, top1: .*number.*'high'"),
        ({"failed_videos": 3}, "failed_videos: .*list.*found 3"),
        ({"splits": {"a": {"top1": 1}}}, "missing splits.a.dataset, splits.a.num_videos"),
        ({"splits": [1]}, "splits: "),
    ],
)
def test_what_is_wrong_is_named_with_the_file(change, message, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(ONE.to_dict() | change))
    with pytest.raises(ValueError, match=f"results.json: .*{message}"):
        read_results(tmp_path / "results.json")
