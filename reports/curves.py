"""A run's metrics as a picture."""

import json
from collections import defaultdict
from pathlib import Path

from reports.style import new_figure

LOSSES = (
    "train/loss", "train/expert_ce", "train/merged_ce", "train/feature_mse", "train/contrastive", "train/sorting",
    "train/distill", "train/head_mse", "train/relations",
)  # fmt: skip
FIGURES = (
    "val/top1", "val/top5", "val/ema_top1", "val/ema_top5", "val/average_top1", "val/average_top5", "val/t2v_r1",
    "val/v2t_r1", "val/order_accuracy",
)  # fmt: skip
# Panels of the picture: title, unit, and the metrics that they show where a run has them.
PANELS = (
    ("training loss", "", LOSSES),
    ("validation accuracy", "%", FIGURES),
    ("learning rate", "", ("train/lr_head", "train/lr_new", "train/lr_clip")),
    ("gradient norm", "", ("train/grad_norm",)),
    ("logit scale", "", ("train/logit_scale",)),
    ("speed", "videos/s", ("train/videos_per_s",)),
)
LOGARITHMIC = ("gradient norm",)


def draw_curves(metrics_file: Path, picture: Path) -> None:
    """Draw ``metrics.jsonl`` over the training step; steps that a resumed run repeated are drawn once."""
    curves = read_curves(metrics_file)
    figure = new_figure(13, 6.5)
    for axis, (title, unit, names) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        for name in names:
            if points := curves.get(name):
                marker = "o" if len(points) < 40 else None
                axis.plot(list(points), list(points.values()), label=name.split("/")[1], marker=marker, markersize=3)
        if title in LOGARITHMIC:
            axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.set_ylabel(unit)
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(fontsize="small")
    figure.savefig(picture)


def read_curves(metrics_file: Path) -> dict[str, dict[int, float]]:
    """Name -> step -> value, by step; of a repeated step the last value. Rows that a full disk cut are left out."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for line in metrics_file.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        for name, value in row.items():
            curves[name][row["step"]] = value
    return {name: dict(sorted(points.items())) for name, points in curves.items()}
