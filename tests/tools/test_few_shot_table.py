"""The few-shot table against numbers worked out by hand."""

import json

import pytest

from tools.few_shot_table import main

ONE = {
    "dataset": "toy", "top1": 50.0, "top5": 90.0, "num_videos": 8, "num_clips": 1, "num_crops": 1, "dense": False,
    "fusion": "a rule", "weights": "w.pt", "precision": "fp32", "list_fingerprint": "f", "failed_videos": [],
}  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """Write results by run name, and make the table of them."""
    config = tmp_path / "toy.yaml"
    config.write_text(f"data: {{dataset: toy, output_path: {tmp_path}}}\n")

    def run(results: dict[str, dict]) -> str:
        for name, result in results.items():
            folder = tmp_path / "toy" / "ViT-B-16" / "mine" / name / "test"
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps(result))
        return (main(["--config", str(config), "--name", "mine"]) / "report.md").read_text()

    return run


def test_lines_are_means_over_draws_in_order_of_k(table, capsys):
    text = table(
        {"shot16_seed0": ONE | {"top1": 80.0}, "shot2_seed0": ONE, "shot2_seed1": ONE | {"top1": 60.0, "top5": 94.0}}
    )
    assert text.splitlines()[-2:] == [
        "| 2 | 2 | 55.00 ± 5.00 | 92.00 ± 2.00 | 50.00 60.00 |",
        "| 16 | 1 | 80.00 | 90.00 | 80.00 |",
    ]
    assert "1 x 1 views, fp32" in text
    assert text in capsys.readouterr().out


def base_to_novel(base: float, novel: float) -> dict:
    return ONE | {"splits": {"toy_base": ONE | {"top1": base}, "toy_novel": ONE | {"top1": novel}}}


def test_two_lists_are_base_and_novel_with_the_harmonic_mean_of_their_means(table):
    text = table({"shot16_seed0": base_to_novel(90.0, 30.0), "shot16_seed1": base_to_novel(60.0, 70.0)})
    # 2 * 75 * 50 / 125; the mean of the two harmonic means would be 54.8.
    assert text.splitlines()[-1] == "| 16 | 2 | 75.00 ± 15.00 | 50.00 ± 20.00 | 60.00 |"


def test_unreadable_videos_are_mentioned(table):
    assert "Up to 2 videos" in table({"shot2_seed0": ONE, "shot4_seed0": ONE | {"failed_videos": ["a", "b"]}})


@pytest.mark.parametrize("change", [{"num_clips": 4}, {"list_fingerprint": "g"}, {"precision": "bf16"}])
def test_different_tests_are_not_averaged(table, change):
    with pytest.raises(ValueError, match="results of different tests"):
        table({"shot2_seed0": ONE, "shot2_seed1": ONE | change})


def test_no_results_say_where_they_were_expected(table):
    with pytest.raises(FileNotFoundError, match=r"toy/ViT-B-16/mine: no shot"):
        table({})
