"""Odd files in a training run and in a test, with every decoder: the broken ones are named, the others count."""

import json
import runpy
from pathlib import Path

import pytest

import train
from datasets.decode.decoders import DECODERS, installed_decoders

READABLE = ("good.mp4", "half.mkv", "mp4 as.avi", "one.mp4", "ten bits.mp4", "turned.mp4", "variable.mp4")


@pytest.fixture(params=list(DECODERS))
def decoder(request) -> str:
    if request.param not in installed_decoders():
        pytest.skip(f"{request.param} does not work here")
    return request.param


def overrides(folder: Path, root: Path, lines: list[str], decoder: str) -> list[str]:
    (folder / "list.txt").write_text("\n".join(lines))
    lists = [f"data.{part}_{key}={value}" for part in ("train", "val")
             for key, value in (("root", root), ("list", folder / "list.txt"))]  # fmt: skip
    return [*lists, f"data.decoder={decoder}", f"data.output_path={folder}", "--precision", "fp32"]


def test_a_test_names_the_broken_ones_and_counts_all(
    debug_config, debug_data, odd_videos, broken_names, repo_root, tmp_path, decoder
):
    close_set = runpy.run_path(str(repo_root / "test.py"))["main"]
    broken = set(broken_names)
    if decoder == "torchcodec":
        broken.remove("half.mp4")  # it reads the frames that are there
    names = [*READABLE, *broken]
    changes = overrides(tmp_path, odd_videos, [f"{name} {i % 4}" for i, name in enumerate(names)], decoder)
    arguments = ["--config", str(debug_config), "--weights", "clip", "--output", str(tmp_path)]
    results = close_set([*arguments, *changes, "data.workers=2"])
    assert results["failed_videos"] == sorted(broken)
    assert results["num_videos"] == len(names)
    assert json.loads((tmp_path / "results.json").read_text())["decoder"] == decoder


def test_training_goes_on_beyond_a_broken_one_and_stops_at_many(
    debug_config, odd_videos, broken_names, tmp_path, decoder
):
    good = [f"{name} {i % 4}" for i, name in enumerate(READABLE)] * 6
    arguments = ["--config", str(debug_config), "solver.epochs=1", "data.batch_size=6", "data.random_shift=True"]
    few = overrides(tmp_path, odd_videos, [*good[:41], "zero.mp4 0"], decoder)
    train.main([*arguments, "--log_time", "few", *few])
    run = tmp_path / "debug" / "tiny_clip" / "few"
    assert "zero.mp4" in (run / "log.txt").read_text()
    assert json.loads((run / "environment.json").read_text())["decoder"] == decoder
    many = overrides(tmp_path, odd_videos, [*good[:34], *(f"{name} 0" for name in broken_names)], decoder)
    with pytest.raises((RuntimeError, ValueError), match="could not be read, more than"):
        train.main([*arguments, "--log_time", "many", *many])
