"""The table of towers: a line each, of tests that compare."""

import json

import pytest

from tools.encoders.table import main

ONE = {
    "dataset": "toy", "top1": 50.0, "top5": 90.0, "num_videos": 8, "num_clips": 3, "num_crops": 1, "dense": False,
    "fusion": "a rule", "weights": "clip", "precision": "fp32", "list_fingerprint": "f", "failed_videos": [],
}  # fmt: skip
SPLITS = ONE | {"top1": 55.0, "splits": {"split1": ONE, "split2": ONE | {"top1": 60.0, "list_fingerprint": "g"}}}


@pytest.fixture
def table(tmp_path):
    """Write results by folder, and make the table of tags."""

    def run(results: dict[str, dict], *tags: str) -> str:
        for name, result in results.items():
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "results.json").write_text(json.dumps(result))
        return main(["--folder", str(tmp_path), *tags])

    return run


def test_each_tower_has_a_line_with_every_list_and_their_mean(table, tmp_path):
    text = table({"PE-Core-B-16-meta": SPLITS, "ViT-B-16": SPLITS | {"top1": 40.5}}, "PE-Core-B-16/meta", "ViT-B/16")
    assert text.splitlines()[2:] == [
        "| tower | split1 | split2 | mean |",
        "|---|---|---|---|",
        "| `PE-Core-B-16/meta` | 50.00 | 60.00 | 55.00 |",
        "| `ViT-B/16` | 50.00 | 60.00 | 40.50 |",
    ]
    assert "(3 clips x 1 crops, fp32)" in text
    assert (tmp_path / "table.md").read_text() == text


def test_a_tower_that_could_not_be_tested_says_so(table):
    text = table({"ViT-B-16": ONE}, "ViT-B/16", "ViT-L/14")
    assert text.splitlines()[-2:] == ["| `ViT-B/16` | 50.00 |", "| `ViT-L/14` | failed |"]


@pytest.mark.parametrize("change", [{"num_clips": 1}, {"list_fingerprint": "g"}, {"precision": "bf16"}])
def test_different_tests_are_not_compared(table, change):
    with pytest.raises(ValueError, match="of different tests"):
        table({"ViT-B-16": ONE, "ViT-L-14": ONE | change}, "ViT-B/16", "ViT-L/14")


def test_no_results_and_two_towers_of_one_name_are_errors(table):
    with pytest.raises(FileNotFoundError, match="no results of ViT-B/16"):
        table({}, "ViT-B/16")
    with pytest.raises(ValueError, match=r"local-dir:a/x and local-dir:b/x would both be .*/x"):
        table({}, "local-dir:a/x", "local-dir:b/x")


def test_folders_are_told_for_the_script(tmp_path):
    assert main(["--folder", str(tmp_path), "--where", "ViT-B/16", "hf-hub:a/b.c"]).splitlines() == [
        f"{tmp_path}/ViT-B-16",
        f"{tmp_path}/a-b.c",
    ]
