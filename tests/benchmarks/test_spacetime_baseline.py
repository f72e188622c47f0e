"""The yardstick of the space-time tower computes the same."""

from dataclasses import replace

import torch

from benchmarks.spacetime import baseline_tower, our_towers


def test_the_baseline_gives_the_same_tokens(tiny_clip_config):
    config = replace(tiny_clip_config, tower="divided")
    ours, baseline = our_towers(config).eval(), baseline_tower(config).eval()
    video = torch.randint(256, (2, 5, 3, 32, 32), dtype=torch.uint8)
    keep = torch.stack([torch.randperm(16)[:6] for _ in range(2)])
    images = ours.normalised(video).unflatten(0, (2, 5))
    with torch.no_grad():
        torch.testing.assert_close(baseline(images, keep), ours.encode_tokens(video, keep).tokens, atol=1e-5, rtol=1e-5)
