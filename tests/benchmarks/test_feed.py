"""Feeding a GPU: what the loaders give, and how many cores that takes."""

import time

import pytest

from benchmarks import feed, loader


def test_cores_come_of_the_most_workers_that_have_a_core_each():
    rates = {"video files": {1: 6.0, 4: 20.0, 8: 21.0}, "shards": {1: 100.0, 4: 390.0, 8: 400.0}}
    *_, files, shards = feed.report(rates, gpu_rates=[140, 400], cores=4).splitlines()
    assert files == "| video files | 6.0 | 20.0 | 21.0 | 28 | 80 |"  # 5 a core
    assert shards == "| shards | 100.0 | 390.0 | 400.0 | 2 | 5 |"
    assert feed.report({"shards": {8: 20.0}}, [100], cores=2).endswith("| 10 |\n")  # two cores gave 20


@pytest.mark.slow
def test_every_source_is_measured(capsys):
    rates, end_to_end = feed.main(["--workers", "1", "2", "--seconds", "1", "--rate", "140"])
    assert rates.keys() == {"video files", "shards", "features"}
    assert all(rate > 0 for found in rates.values() for rate in found.values())
    printed = capsys.readouterr().out
    assert "cores for 140 videos/s" in printed
    assert 0 < end_to_end.fed < 1.5 * end_to_end.alone
    assert "end to end, tiny on " in printed


@pytest.mark.slow
def test_a_slow_loader_shows_end_to_end(monkeypatch):
    found = feed.end_to_end("tiny", workers=1, seconds=1)

    class Slow(loader.TrainVideos):
        def __getitem__(self, key):
            time.sleep(10 / found.alone)  # ten times what a step takes for a video
            return super().__getitem__(key)

    quick = loader.of_shards(feed.LISTED)
    slow = Slow(quick.source, quick.indices_of, quick.transform, quick.seed)
    monkeypatch.setattr(feed.loader, "of_shards", lambda copies: slow)
    assert feed.end_to_end("tiny", workers=1, seconds=1).share < 0.2
