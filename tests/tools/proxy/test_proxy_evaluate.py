"""A row of the proxy world from training to its figures, on debug data: real commands, a pack, four forms."""

import json
from pathlib import Path

import numpy as np
import pytest

import train
from datasets.pack.__main__ import main as pack
from tools.proxy.evaluate import DONE, main
from tools.proxy.measured import is_complete, measured
from tools.proxy.rows import SETS, Planned, rows_of


@pytest.fixture
def packed_world(small_world, debug_data) -> Path:
    """``small_world`` with its videos as shards."""
    lists = [(debug_data / f"{part}.txt").read_text() for part in ("train", "val")]
    Path("all.txt").write_text("".join(lists))
    pack(["all.txt", "--root", str(debug_data / "videos"), "--out", "exps/proxy/pack", "--workers", "0"])
    return small_world


@pytest.mark.slow
def test_a_row_is_trained_and_tested_in_all_its_forms(packed_world, close_set, zero_shot):
    (row,) = rows_of("mote")
    planned, fixed = Planned(row, clip=0, seed=7, half="dev"), ["--precision", "fp32"]
    strong = ["solver.lr=0.05", "solver.clip_ratio=1.0"]  # far from CLIP's weights, so that forms differ
    train.main(["--config", str(planned.config), "--log_time", planned.name, *fixed, *planned.overrides, *strong])
    assert planned.run.joinpath("last_model.pt").is_file()
    assert not is_complete([planned])
    main(["--row", "mote", "--seed", "7", "--half", "dev", *fixed])
    assert is_complete([planned])

    tables = {}
    for form in row.forms:
        with np.load(planned.results / form / "zero_shot" / "scores_styles.npz") as saved:
            tables[form] = saved["scores"]
    forms = list(tables)
    pairs = [(a, b) for place, a in enumerate(forms) for b in forms[place + 1 :]]
    assert all(np.abs(tables[a] - tables[b]).max() > 1e-3 for a, b in pairs)

    # The figures are those of the commands.
    arguments = ["--weights", str(planned.run / "last_model.pt"), "--output", "expected", *fixed, *planned.overrides]
    arguments += ["eval.weight_average=0.5", "mote.modulation=true"]
    parts = [str(planned.results / "configs" / f"{name}.yaml") for name in SETS]
    expected = zero_shot(["--config", *parts, *arguments])
    found = json.loads((planned.results / "both" / "zero_shot" / "results.json").read_text())
    assert found["top1"] == expected["top1"]
    assert {split["dataset"] for split in found["splits"].values()} == {f"proxy_{name}" for name in SETS}
    close = close_set(["--config", str(planned.config), *arguments])
    assert json.loads((planned.results / "both" / "close" / "results.json").read_text())["top1"] == close["top1"]

    with pytest.raises(ValueError, match=r"solver\.lr: 0\.001, was 0\.05"):
        measured(row, [planned])
    settings = planned.run / "config.yaml"
    text = settings.read_text().replace("lr: 0.05", "lr: 0.001").replace("clip_ratio: 1.0", "clip_ratio: 0.1")
    settings.write_text(text)
    hits = measured(row, [planned]).forms["both"]
    assert hits["close"].mean() * 100 == pytest.approx(close["top1"])


@pytest.mark.slow
def test_a_frozen_row_is_tested_once_for_all_seeds(packed_world):
    main(["--row", "frozen", "--half", "dev", "--precision", "fp32"])
    (row,) = rows_of("frozen")
    runs = [Planned(row, 0, seed, "dev") for seed in (1, 2)]
    assert (runs[0].results / DONE).is_file()
    hits = measured(row, runs).forms["raw"]["motions"]
    assert hits.shape[0] == 2
    np.testing.assert_array_equal(hits[0], hits[1])
