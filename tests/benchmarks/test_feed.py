"""Feeding a GPU: what the loaders give, and how many cores that takes."""

import pytest

from benchmarks import feed


def test_cores_come_of_the_most_workers_that_have_a_core_each():
    rates = {"video files": {1: 6.0, 4: 20.0, 8: 21.0}, "shards": {1: 100.0, 4: 390.0, 8: 400.0}}
    *_, files, shards = feed.report(rates, gpu_rate=140, cores=4).splitlines()
    assert files == "| video files | 6.0 | 20.0 | 21.0 | 28 |"  # 5 a core
    assert shards == "| shards | 100.0 | 390.0 | 400.0 | 2 |"
    assert feed.report({"shards": {8: 20.0}}, 100, cores=2).endswith("| 10 |\n")  # two cores gave 20


@pytest.mark.slow
def test_every_source_is_measured(capsys):
    rates = feed.main(["--workers", "1", "2", "--seconds", "1", "--rate", "140"])
    assert rates.keys() == {"video files", "shards", "features"}
    assert all(rate > 0 for found in rates.values() for rate in found.values())
    assert "cores for 140 videos/s" in capsys.readouterr().out
