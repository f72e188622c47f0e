"""A whole test: video files to scores, one view a video, with loader workers."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import baseline, harness, loader, models
from benchmarks.harness import Benchmark, Measurement
from datasets.build import build_eval_loader
from datasets.lists.records import VideoList
from engine.collect import Pass, score_views
from utils.config import DataConfig
from utils.precision import resolve_precision

VIDEOS, BATCH, WORKERS = 16, 4, 2


def ours(choice: str) -> Callable[[], object]:
    loader.write_video()
    paths = np.array([str(loader.VIDEO).encode()] * VIDEOS)
    videos = VideoList("", paths, np.zeros(VIDEOS, dtype=np.int64), None)
    data = DataConfig(num_segments=models.NUM_FRAMES, batch_size=BATCH, workers=WORKERS)
    batches = build_eval_loader(data, videos, rank=0, world_size=1)
    model = models.our_model(models.VIT_B16)
    how = Pass(resolve_precision(choice, harness.device()), BATCH, "test")
    return lambda: score_views(model, batches, model.classes, 1, how)


class PublishedVideos(Dataset):
    """The same videos, read as the published code does."""

    def __len__(self) -> int:
        return VIDEOS

    def __getitem__(self, index: int) -> Tensor:
        return baseline.eval_sample(str(loader.VIDEO), models.NUM_FRAMES, 224)


def published() -> Callable[[], object]:
    loader.write_video()
    vision, head = models.baseline_vision(models.VIT_B16).eval(), models.baseline_head(models.VIT_B16).eval()
    classes = models.class_features(models.VIT_B16)
    precision = resolve_precision("fp16" if torch.cuda.is_available() else "fp32", harness.device())
    batches = DataLoader(PublishedVideos(), batch_size=BATCH, num_workers=WORKERS)

    @torch.no_grad()
    def run() -> list[Tensor]:
        logits = []
        for clips in batches:
            with precision.autocast():
                x = vision(clips.to(harness.device()).flatten(0, 1)).unflatten(0, clips.shape[:2])
                logits.append(F.normalize(head(x)[0].mean(1), dim=-1).float() @ classes.T)
        return [part.cpu() for part in logits]

    return run


def main(argv: list[str] | None = None) -> list[Measurement]:
    contenders = {harness.BASELINE: published, "ours fp32": partial(ours, "fp32"), "ours auto": partial(ours, "auto")}
    return harness.run(Benchmark("test B/16, 8 frames", "benchmarks.evaluate", "videos", VIDEOS, contenders), argv)


if __name__ == "__main__":
    main()
