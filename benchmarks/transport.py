"""The score of OST beside what comes before it: 32 frames through ViT-B/16, then 400 classes of 2 x 4 descriptors.

Contenders do not do the same thing here: read the share, median of transport / median of encoding.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks import encode, harness, models
from benchmarks.harness import Benchmark, Measurement
from modules.transport import TransportSettings, transport_scores

NUM_FRAMES, NUM_SETS, NUM_DESCRIPTORS = 32, 2, 4
# Noise beside a common direction, each coordinate: similarities then differ as much as those of CLIP (by 0.02).
SPREADS = {"ours, transport": 0.03, "ours, transport of unlike features": 1.0}


def clips() -> torch.Tensor:
    """uint8 [1, 32, 3, 224, 224]"""
    frames = torch.randint(256, (1, NUM_FRAMES, 3, 224, 224), dtype=torch.uint8)
    return models.as_loaded(frames)


def transport(spread: float) -> Callable[[], object]:
    """Scores of one clip against all classes."""
    torch.manual_seed(0)
    dim = models.VIT_B16.embed_dim
    common = F.normalize(torch.randn(dim), dim=-1)
    frames = common + spread * torch.randn(1, NUM_FRAMES, dim)
    descriptors = common + spread * torch.randn(NUM_SETS, models.NUM_CLASSES, NUM_DESCRIPTORS, dim)
    frames, descriptors = (x.to(harness.device()) for x in (frames, F.normalize(descriptors, dim=-1)))
    settings = TransportSettings()
    return torch.inference_mode()(lambda: transport_scores(frames, descriptors, settings))


def main(argv: list[str] | None = None) -> list[Measurement]:
    frames = clips()
    contenders = {
        harness.BASELINE: partial(encode.baseline, models.VIT_B16, frames),
        "ours, encoding": partial(encode.ours, models.VIT_B16, frames, "auto"),
    }
    contenders |= {name: partial(transport, spread) for name, spread in SPREADS.items()}
    name = f"encode B/16 and transport, {NUM_FRAMES} frames"
    return harness.run(Benchmark(name, "benchmarks.transport", "clips", 1, contenders), argv)


if __name__ == "__main__":
    main()
