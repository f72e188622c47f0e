"""Mean average precision through the commands: of one label a video and of several; and who refuses several."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import extract_features
import train
from engine.protocols.multilabel import average_precisions

SETS = ["0,2", "1", "2,3", "0,1,3"]  # the labels of videos, in turn


@pytest.fixture(scope="module")
def several(debug_data, tmp_path_factory) -> dict[str, Path]:
    """Lists of the debug data with several labels a video: ``train``, ``val``."""
    folder = tmp_path_factory.mktemp("lists")
    for part in ("train", "val"):
        paths = [line.rsplit(" ", 1)[0] for line in (debug_data / f"{part}.txt").read_text().splitlines()]
        lines = [f"{path} {SETS[number % len(SETS)]}\n" for number, path in enumerate(paths)]
        (folder / f"{part}.txt").write_text("".join(lines))
    return {part: folder / f"{part}.txt" for part in ("train", "val")}


@pytest.fixture
def run(debug_config, tmp_path) -> Callable[..., tuple[dict, dict]]:
    """Run a test command with plain CLIP; returns results and saved scores."""

    def run(main: Callable[[list[str]], dict], *arguments: str) -> tuple[dict, dict]:
        saved = tmp_path / "scores.npz"
        common = ["--config", str(debug_config), "--weights", "clip", "--precision", "fp32", "--output", str(tmp_path)]
        results = main([*common, "--save_logits", str(saved), *arguments])
        with np.load(saved) as file:
            return results, dict(file)

    return run


def test_it_stands_beside_the_accuracy_of_one_label_a_video(close_set, zero_shot, run):
    usual, saved = run(close_set)
    assert "mAP" not in usual
    targets = torch.from_numpy(saved["labels"])[:, None] == torch.arange(4)
    found, _ = run(close_set, "eval.mean_ap=True")
    expected = average_precisions(torch.from_numpy(saved["scores"]), targets).mean()
    assert found.pop("mAP") == pytest.approx(expected, rel=1e-4)
    assert found == usual
    again, _ = run(close_set, "eval.mean_ap=True", "eval.map_softmax=True")
    expected = average_precisions(torch.from_numpy(saved["scores"]), targets, with_softmax=True).mean()
    assert again["mAP"] == pytest.approx(expected, rel=1e-4)
    results, saved = run(zero_shot, "eval.mean_ap=True")
    probabilities = torch.from_numpy(saved["scores"]).softmax(dim=1)
    assert results["mAP"] == pytest.approx(average_precisions(probabilities, targets).mean(), rel=1e-4)


def test_several_configurations_have_its_mean_and_std(zero_shot, three_splits, tmp_path):
    results = zero_shot(
        ["--config", *three_splits, "--weights", "clip", "--precision", "fp32", "--output", str(tmp_path / "out"),
         "eval.mean_ap=True"]
    )  # fmt: skip
    values = [split["mAP"] for split in results["splits"].values()]
    assert len(set(values)) > 1
    assert (results["mAP"], results["mAP_std"]) == pytest.approx((np.mean(values), np.std(values)))


def test_it_is_the_only_figure_of_several_labels_a_video(close_set, run, several, tmp_path, capsys):
    arguments = [f"data.val_list={several['val']}", "eval.mean_ap=True", "--report", str(tmp_path / "page")]
    results, saved = run(close_set, *arguments)
    assert not {"top1", "top5"} & results.keys()
    assert "labels" not in saved
    expected = average_precisions(torch.from_numpy(saved["scores"]), torch.from_numpy(saved["targets"])).mean()
    assert results["mAP"] == pytest.approx(expected, rel=1e-4)
    assert np.flatnonzero(saved["targets"][3]).tolist() == [0, 1, 3]
    head, line = capsys.readouterr().out.splitlines()[1:3]
    assert (head.split()[-1], line.split()[-1]) == ("mAP", f"{results['mAP']:.2f}")
    assert f"mAP {results['mAP']:.2f} %" in (tmp_path / "page" / "index.html").read_text()


def test_unreadable_videos_lower_it(close_set, run, several, tmp_path):
    lines = several["val"].read_text().splitlines(keepends=True)
    figures = []
    for first in (lines[0], f"gone.mp4 {SETS[0]}\n"):
        (tmp_path / "list.txt").write_text("".join([first, *lines[1:]]))
        figures.append(run(close_set, f"data.val_list={tmp_path / 'list.txt'}", "eval.mean_ap=True")[0])
    assert figures[1]["failed_videos"] == ["gone.mp4"]
    assert figures[1]["mAP"] < figures[0]["mAP"]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("close_set", [], "a test without eval.mean_ap=True expects one label"),
        ("zero_shot", ["eval.mean_ap=True"], "accuracy among halves of the classes expects one label"),
        ("zero_shot", [], "accuracy among halves of the classes expects one label"),
    ],
)
def test_a_test_of_one_label_a_video_refuses_several(request, run, several, command, arguments, message):
    with pytest.raises(ValueError, match=rf"^debug: data\.val_list: {message} a video, found 'val 03\.mp4'.* 0,1,3$"):
        run(request.getfixturevalue(command), f"data.val_list={several['val']}", *arguments)


@pytest.mark.parametrize(
    ("part", "shot", "what"), [("train", 0, "training"), ("val", 0, "training"), ("train", 1, r"data\.shot")]
)
def test_training_refuses_several_labels_a_video(debug_config, several, tmp_path, part, shot, what):
    message = rf"^data\.{part}_list: {what} expects one label a video, found '{part} 03\.mp4' with the labels 0,1,3$"
    overrides = [f"data.output_path={tmp_path}", f"data.{part}_list={several[part]}", f"data.shot={shot}"]
    with pytest.raises(ValueError, match=message):
        train.main(["--config", str(debug_config), "--precision", "fp32", "--log_time", "x", *overrides])
    assert not list(tmp_path.rglob("*.pt"))


def test_features_of_several_labels_a_video_give_the_figure_of_the_videos(
    close_set, run, several, debug_config, tmp_path
):
    lists = [f"data.{part}_list={path}" for part, path in several.items()]
    arguments = ["--config", str(debug_config), "--weights", "clip", "--precision", "fp32", *lists]
    extract_features.main([*arguments, "--part", "val", "--out", str(tmp_path / "cache")])
    usual, _ = run(close_set, "eval.mean_ap=True", *lists)
    roots = [f"data.val_root={tmp_path / 'cache' / 'val'}", "data.modality=features", "network.fix_video=True"]
    cached, _ = run(close_set, "eval.mean_ap=True", *lists, *roots)
    assert cached["mAP"] == pytest.approx(usual["mAP"], abs=0.5)
    assert cached["list_fingerprint"] == usual["list_fingerprint"]
    with pytest.raises(ValueError, match="training on augmented views expects one label a video"):
        extract_features.main(
            [*arguments, "--part", "train", "--augmented_views", "2", "--out", str(tmp_path / "augmented")]
        )
