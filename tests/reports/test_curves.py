import json

import numpy as np
from PIL import Image

from reports.curves import draw_curves, read_curves
from reports.tables import summary


def write_metrics(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_of_a_repeated_step_the_last_value_counts(tmp_path):
    rows = [{"step": 1, "train/loss": 3.0}, {"step": 2, "train/loss": 9.0}, {"step": 2, "train/loss": 2.0}]
    assert read_curves(write_metrics(tmp_path / "m.jsonl", rows))["train/loss"] == {1: 3.0, 2: 2.0}


def test_rows_that_a_full_disk_cut_are_left_out(tmp_path):
    file = write_metrics(tmp_path / "m.jsonl", [{"step": 1, "train/loss": 3.0}])
    file.write_text('{"step": 7, "tra' + file.read_text() + file.read_text())
    assert read_curves(file)["train/loss"] == {1: 3.0}


def test_curves_become_a_picture(tmp_path):
    rows = [{"step": step, "train/loss": 1 / (1 + step), "train/grad_norm": 2.0} for step in range(50)]
    write_metrics(tmp_path / "m.jsonl", [*rows, {"step": 49, "val/top1": 80.0, "val/top5": 95.0}])
    draw_curves(tmp_path / "m.jsonl", tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("L"))
    assert min(picture.shape) > 600
    assert (picture < 128).mean() > 0.001  # something is drawn


def test_a_summary_names_what_there_is_and_the_command_that_tests_it(tmp_path):
    figures = {"best_top1": 81.25, "best_epoch": 3, "top1": 80.0, "top5": 95.0, "ema_top1": 82.0, "ema_top5": 96.0}
    assert summary(tmp_path, figures)[-1].endswith("last_model.pt")  # the best one is in the folder resumed from
    (tmp_path / "model_best.pt").touch()
    lines = summary(tmp_path, figures)
    assert lines[-1].endswith(f"bash scripts/run_test.sh {tmp_path}/config.yaml {tmp_path}/model_best.pt")
    text = "\n".join(lines)
    for part in ("81.25 (epoch 3)", "80.00 top5 95.00", "82.00 top5 96.00", "ema_model.pt"):
        assert part in text
    assert len(summary(tmp_path, {"best_top1": 1.0, "best_epoch": 1})) == 4  # nothing was left to train


def test_a_summary_of_a_run_on_texts_names_its_first_figure_and_the_search(tmp_path):
    figures = {"t2v_r1": 40.0, "order_accuracy": 25.0, "ema_t2v_r1": 41.0, "best_top1": 42.5, "best_epoch": 2}
    lines = summary(tmp_path, figures)
    assert lines[1].split()[1:3] == ["t2v_r1", "42.50"]
    assert lines[3].split()[:3] == ["averaged", "t2v_r1", "41.00"]
    assert "scripts/run_test_retrieval.sh" in lines[-1]
