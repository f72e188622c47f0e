"""The benchmark of a GPU, tried with a tiny model on the CPU: it goes on where it stopped, and writes its section."""

import json

import pytest
import torch

from benchmarks import gpu


@pytest.fixture
def paths(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n\n## head\n\nfigures\n")
    return tmp_path / "figures.json", page


def run(paths) -> dict:
    return gpu.main(["--tiny", "--minutes", "1", "--figures", str(paths[0]), "--page", str(paths[1])])


@pytest.fixture
def quick(monkeypatch):
    """One run of each case, none compiled."""
    monkeypatch.setattr(gpu, "WARM_UP", 0)
    monkeypatch.setattr(gpu, "RUNS", 1)
    every = gpu.cases
    monkeypatch.setattr(gpu, "cases", lambda towers: [case for case in every(towers) if "compiled" not in case[0]])


def test_every_case_is_measured_once_and_stands_on_the_page(paths, quick, monkeypatch):
    figures = run(paths)
    names = [name for name in figures if name != "hardware"]
    assert {name.partition(":")[0] for name in names} == {"tiny, training", "tiny, test 4 x 3", "tiny, ceiling"}
    assert all(figures[name]["per_s"] > 0 and figures[name]["tflop_per_s"] > 0 for name in names)
    text = paths[1].read_text()
    assert text.startswith("# Benchmarks\n\n## head\n\nfigures\n## GPU")
    assert all(f"| {name} | " in text for name in names)

    monkeypatch.setattr(gpu, "measured", lambda *args: pytest.fail("measured again"))
    assert run(paths) == figures
    assert paths[1].read_text() == text


def test_what_another_machine_gave_is_not_kept_and_what_is_missing_is_measured(paths, quick):
    figures = run(paths)
    _, *others = [name for name in figures if name != "hardware"]
    paths[0].write_text(json.dumps({name: figures[name] for name in ("hardware", *others)}))
    again = run(paths)
    assert again.keys() == figures.keys()
    assert all(again[name] == figures[name] for name in others)
    paths[0].write_text(json.dumps(figures | {"hardware": {"device": "another"}, "an old case": {"per_s": 1.0}}))
    assert "an old case" not in run(paths)


def test_a_case_that_does_not_fit_is_a_row_of_its_own():
    def too_much():
        raise torch.OutOfMemoryError("CUDA out of memory")

    figures = {"hardware": {"device": "a card"}, "big, training: ours": gpu.measured(lambda: too_much, 1, 1.0)}
    assert "| big, training: ours | out of memory |" in gpu.section(figures)
    assert gpu.section({}) == ""


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="expected a CUDA device, found none; --tiny"):
        gpu.main([])
