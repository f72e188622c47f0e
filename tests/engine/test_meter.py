import pytest
import torch

from engine.meter import Meter

CPU = torch.device("cpu")


def test_means_are_over_steps_and_matrices_are_named_by_index():
    meter = Meter(CPU)
    for step, value in enumerate((1.0, 2.0, 6.0)):
        meter.data_arrived()
        values = {"loss": torch.tensor(value), "draws": torch.eye(2)[[step % 2, 1]]}
        meter.add(4, values if step else values | {"grad_norm": torch.tensor(5.0)})
    metrics = meter.read()
    assert metrics["loss"] == pytest.approx(3.0)
    assert metrics["grad_norm"] == 5.0  # of the one step that had it
    assert [metrics[f"draws/0/{expert}"] for expert in (0, 1)] == pytest.approx([2 / 3, 1 / 3])
    assert [metrics[f"draws/1/{expert}"] for expert in (0, 1)] == [0.0, 1.0]
    assert metrics["videos_per_s"] > 0
    assert 0.0 <= metrics["data_share"] <= 1.0
    assert metrics["memory_gib"] > 0.05  # this process
    assert "mfu" not in metrics


def test_a_reading_starts_anew():
    meter = Meter(CPU)
    meter.add(1, {"loss": torch.tensor(1.0)})
    meter.read()
    meter.add(1, {"loss": torch.tensor(5.0)})
    assert meter.read()["loss"] == 5.0


def test_utilisation_is_operations_done_over_operations_possible():
    meter = Meter(CPU, video_flops=100.0, peak_flops=1000.0)
    meter.add(8, {"loss": torch.tensor(1.0)})
    metrics = meter.read()
    assert metrics["mfu"] == pytest.approx(metrics["videos_per_s"] * 100.0 / 1000.0)
