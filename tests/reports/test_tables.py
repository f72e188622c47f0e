"""The printed table names the rule, the figures, and every failure."""

from engine.results import Results
from reports.tables import table


def result(**changes) -> Results:
    figures = {
        "dataset": "ucf101", "top1": 83.456, "top5": 96.0, "num_videos": 3783, "num_clips": 3, "num_crops": 1,
        "fusion": "mean of cosines", "weights": "w.pt", "precision": "fp32", "failed_videos": [],
    }  # fmt: skip
    return Results(**(figures | changes))


def test_one_result_is_one_line_below_weights_views_precision_and_rule():
    printed = table({"ucf101": result()})
    title, heads, line = printed.splitlines()
    assert title == "w.pt  (3 clips x 1 crops, fp32, mean of cosines)"
    assert heads.split() == ["videos", "failed", "top1", "top5"]
    assert line.split() == ["ucf101", "3783", "0", "83.46", "96.00"]


def test_half_class_figures_have_a_column():
    half = {"top1_mean": 54.148, "top1_std": 14.154, "top5_mean": 97.738, "top5_std": 4.716}
    printed = table({"a": result(half_class=half)})
    assert printed.splitlines()[-1].endswith("54.15 ± 14.15")


def test_several_splits_end_with_their_mean():
    printed = table({"a": result(), "b": result()}, mean=result(top1=82.0, top5=93.0, top1_std=2.0))
    assert printed.splitlines()[-1].split() == ["mean", "82.00", "93.00", "(std", "2.00)"]


def test_failed_videos_are_counted_and_named():
    printed = table({"a": result(failed_videos=["x.mp4"]), "b": result(failed_videos=["y.mp4"])})
    assert printed.splitlines()[-1] == ("2 unreadable videos count as wrong; the first: x.mp4, y.mp4")
