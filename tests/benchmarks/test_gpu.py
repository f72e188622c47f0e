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
    assert all(figures[name]["per_s"] > 0 for name in names)
    assert [name for name in names if not figures[name]["tflop_per_s"] > 0] == ["tiny, ceiling: copy"]
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
    assert gpu.ceiling_of("big, training: ours", figures | {"big, training: ours": {"attention": 0.1}}) is None
    assert "| big, training: ours | out of memory |" in gpu.section(figures)
    assert gpu.section({}) == ""


def test_the_ceiling_of_a_case_is_the_time_of_its_products_and_its_attention_alone():
    def row(per_s: float, tflop: float, attention: float | None = None) -> dict:
        return {"per_s": per_s, "tflop_per_s": per_s * tflop, "peak_gib": 1.0, "first_s": 1.0, "attention": attention}

    products = {f"B, ceiling: product {name}": row(100.0, tflop) for name, tflop in
                {"qkv": 3.0, "out": 1.0, "up": 4.0, "down": 4.0}.items()}  # fmt: skip
    products["B, ceiling: product up"] = row(50.0, 4.0)  # 12 TFLOP in 0.05 s: 240 TFLOP/s
    figures = {"hardware": {}, **products, "B, ceiling: attention, training": row(10.0, 7.0)}  # 60 of 70 are counted
    figures |= {"B, ceiling: attention, test": row(10.0, 8.0), "B, ceiling: copy": row(4.0, 0.0)}
    figures |= {"B, training: published": row(1.0, 50.0, 0.25), "B, training: ours": row(2.0, 50.0, 0.25)}
    figures["B, test 4 x 3: ours"] = row(1.0, 50.0, 0.5)
    # A TFLOP: 0.75 / 240 + 0.25 / 60 = 0.0073 s; and in a test 0.5 / 240 + 0.5 / 80 = 0.0083 s.
    assert gpu.ceiling_of("B, training: ours", figures) == pytest.approx(137.14, abs=0.01)
    assert gpu.ceiling_of("B, test 4 x 3: ours", figures) == pytest.approx(120.0)
    text = gpu.section(figures)
    assert "| B, training: ours | 2.00 | 2.00 | 100.0 | 73 |  | 1.0 | 1 |" in text
    assert "| B, test 4 x 3: ours | 1.00 |  | 50.0 | 42 |  | 1.0 | 1 |" in text
    assert "| B, ceiling: copy | 4.00 |  |  |  |  | 1.0 | 1 |" in text


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="expected a CUDA device, found none; --tiny"):
        gpu.main([])
