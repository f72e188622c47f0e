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


def test_mean_average_precision_has_a_column_alone_or_beside_the_others():
    beside = table({"a": result(mAP=71.234)}).splitlines()
    assert beside[1].split() == ["videos", "failed", "top1", "top5", "mAP"]
    assert beside[2].split() == ["a", "3783", "0", "83.46", "96.00", "71.23"]
    alone = result(top1=None, top5=None, mAP=71.234)
    printed = table({"a": alone, "b": alone}, mean=result(top1=None, top5=None, mAP=70.0, mAP_std=2.5)).splitlines()
    assert printed[1].split() == ["videos", "failed", "mAP"]
    assert printed[-1].split() == ["mean", "70.00", "(std", "mAP", "2.50)"]


def test_lists_of_different_figures_have_no_mean_and_empty_cells():
    printed = table({"a": result(), "b": result(top1=None, top5=None, mAP=71.0)}, mean=result(top1=None, top5=None))
    head, first, last = printed.splitlines()[1:]
    assert head.index("mAP") + len("mAP") == len(last)
    assert (first.split()[-1], last.split()[-1]) == ("96.00", "71.00")


def test_failed_videos_are_counted_and_named():
    printed = table({"a": result(failed_videos=["x.mp4"]), "b": result(failed_videos=["y.mp4"])})
    assert printed.splitlines()[-1] == ("2 unreadable videos count as wrong; the first: x.mp4, y.mp4")
