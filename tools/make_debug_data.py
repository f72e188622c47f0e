"""Write what configs/debug needs: a few small videos, their lists, and a CLIP with random weights."""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from clip.model import CLIP, CLIPConfig
from datasets.shapes.videos import encode_video
from utils.cli import run_main
from utils.logger import setup_logging

logger = logging.getLogger(__name__)

CLASS_NAMES = ("a bar moving left", "a bar moving right", "a bar moving up", "a bar moving down")
TINY_CLIP = CLIPConfig(
    embed_dim=32, image_size=32, patch_size=8, vision_width=64, vision_layers=2, vision_heads=1,
    text_width=64, text_layers=1, text_heads=1,
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Write the data set; see ``write_debug_data``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("exps/debug_data"), help="folder (default: %(default)s)")
    args = parser.parse_args(argv)
    setup_logging()
    write_debug_data(args.out)
    logger.info("wrote %s", args.out)


def write_debug_data(folder: Path, train_per_class: int = 3, val_per_class: int = 2, seed: int = 0) -> None:
    """Write ``videos/``, ``train.txt``, ``val.txt``, ``labels.csv`` and ``tiny_clip.pt`` into ``folder``."""
    rng = np.random.default_rng(seed)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{label},{name}\n" for label, name in enumerate(CLASS_NAMES))
    (folder / "labels.csv").write_text("id,name\n" + rows)
    for part, per_class in (("train", train_per_class), ("val", val_per_class)):
        lines = []
        for number in range(per_class * len(CLASS_NAMES)):
            label, name = number % len(CLASS_NAMES), f"{part} {number:02d}.mp4"  # a space, as in Kinetics' folders
            encode_video(moving_bar(label, int(rng.integers(6, 20)), rng), folder / "videos" / name)
            lines.append(f"{name} {label}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    torch.save(random_clip_state(TINY_CLIP, seed), folder / "tiny_clip.pt")


def moving_bar(label: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A coloured bar that crosses the picture, uint8 [F, 48, 64, 3]; the label is its direction."""
    frames = np.tile(rng.integers(0, 256, 3, dtype=np.uint8) // 4, (num_frames, 48, 64, 1))
    colour = rng.integers(128, 256, 3)
    for frame, place in zip(frames, np.linspace(0, 1, num_frames), strict=True):
        place = 1 - place if label in (0, 2) else place
        if label < 2:
            frame[:, int(56 * place) : int(56 * place) + 8] = colour
        else:
            frame[int(40 * place) : int(40 * place) + 8] = colour
    return frames


def random_clip_state(config: CLIPConfig, seed: int) -> dict[str, torch.Tensor]:
    """State dict of a CLIP with random weights, fp16 as the released ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: value.half() for name, value in CLIP(config).state_dict().items()}


if __name__ == "__main__":
    run_main(main)
