"""Pretrain a tiny CLIP on single pictures of the shapes world, the demo's stand-in for a released CLIP.

    python -m tools.pretrain_tiny_clip --out tiny_clip.pt

The file is an fp16 state dict in OpenAI's parameter names.
"""

import argparse
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP, PIXEL_MEAN, PIXEL_STD, CLIPConfig
from clip.tokenizer import tokenize
from datasets.shapes.pictures import ATTRIBUTES, draw_pictures
from tools.shapes_captions import is_true_of, write_captions
from utils.files import whole_file

logger = logging.getLogger(__name__)

TINY_CLIP = CLIPConfig(
    embed_dim=128, image_size=48, patch_size=12, vision_width=128, vision_layers=3, vision_heads=2,
    text_width=64, text_layers=2, text_heads=1,
)  # fmt: skip
MAX_LOGIT_SCALE = math.log(100)  # CLIP keeps its temperature above 0.01


@dataclass(frozen=True)
class PretrainConfig:
    """`num_pictures` are drawn once and passed over as often as `steps` of `batch_size` need."""

    steps: int = 1500
    batch_size: int = 64
    num_pictures: int = 30_000
    lr: float = 7e-4
    text_steps: int = 200
    text_lr: float = 1e-3
    warmup_steps: int = 40
    weight_decay: float = 0.05
    seed: int = 0


def pretrain(config: PretrainConfig, clip_config: CLIPConfig = TINY_CLIP) -> tuple[CLIP, list[float]]:
    """Train a CLIP from scratch; returns it, in eval mode, and the contrastive loss of each step."""
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    model = CLIP(clip_config).train()
    _teach_text_tower(model, config, generator)
    pictures = draw_pictures(config.num_pictures, generator, (clip_config.image_size,) * 2)
    optimizer = _build_optimizer(model, config)
    losses, started = [], time.perf_counter()
    for step, rows in enumerate(_batches(config, generator)):
        attributes = pictures.attributes[rows]
        image_features = model.encode_image(normalise_pixels(pictures.frames[rows]))
        loss = _caption_loss(model, image_features, attributes, generator)
        _descend(loss, optimizer, learning_rate(step, config.steps, config.warmup_steps, config.lr))
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        losses.append(loss.item())
        if step % 100 == 0 or step == config.steps - 1:
            logger.info("step %d: loss %.3f, %.0f s", step, losses[-1], time.perf_counter() - started)
    return model.eval(), losses


def contrastive_loss(image_features: Tensor, text_features: Tensor, is_true: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, with every pair that fits as a positive.

    Many captions of a batch are equal, or say little and so are true of several pictures: the target of a picture
    is even over the captions that are true of it, and that of a caption over its pictures.

    Args:
        image_features: [N, D], any length.
        text_features: [M, D], any length.
        is_true: bool [N, M]; every row and column has a True.
        logit_scale: logarithm of the inverse temperature.
    """
    logits = logit_scale.exp() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
    positives = is_true.float()
    image_loss = F.cross_entropy(logits, positives / positives.sum(dim=1, keepdim=True))
    text_loss = F.cross_entropy(logits.t(), (positives / positives.sum(dim=0)).t())
    return (image_loss + text_loss) / 2


def normalise_pixels(frames: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in CLIP's normalisation."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels - mean) / std


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear warm-up to `peak`, then a cosine to 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def _caption_loss(
    model: CLIP, image_features: Tensor, attributes: np.ndarray, generator: np.random.Generator
) -> Tensor:
    """The loss of N pictures, given by features and attributes, and a random caption for each."""
    captions = write_captions(attributes, generator)
    text_features = model.encode_text(torch.stack([_tokens(text) for text in captions.texts]))
    is_true = torch.from_numpy(is_true_of(captions.said, attributes))
    return contrastive_loss(image_features, text_features, is_true, model.logit_scale)


@cache
def _tokens(text: str) -> Tensor:
    return tokenize([text])[0]


def _teach_text_tower(model: CLIP, config: PretrainConfig, generator: np.random.Generator) -> None:
    """Train the text tower alone, on captions of pictures that are given as a learned sum of their attributes.

    At first all captions have nearly equal features. Two towers that both start so wait long for each other;
    with captions that are already told apart, the image tower learns as fast as a classifier.
    """
    tables = nn.ModuleList(nn.Embedding(len(names), model.config.embed_dim) for names in ATTRIBUTES)
    tower = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    optimizer = torch.optim.AdamW([*tower, *tables.parameters()], lr=config.text_lr, weight_decay=0.0, fused=True)
    for step in range(config.text_steps):
        attributes = np.stack([generator.integers(len(n), size=config.batch_size) for n in ATTRIBUTES], axis=1)
        ids = torch.from_numpy(attributes)
        image_features = sum(table(ids[:, column]) for column, table in enumerate(tables))
        loss = _caption_loss(model, image_features, attributes, generator)
        _descend(loss, optimizer, learning_rate(step, config.text_steps, config.warmup_steps, config.text_lr))


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, lr: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


def _batches(config: PretrainConfig, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Index arrays [batch_size], one a step, from a new random order of the pictures each pass."""
    order = np.empty(0, dtype=np.int64)
    for _ in range(config.steps):
        if len(order) < config.batch_size:
            order = generator.permutation(config.num_pictures)
        yield order[: config.batch_size]
        order = order[config.batch_size :]


def _build_optimizer(model: CLIP, config: PretrainConfig) -> torch.optim.Optimizer:
    """AdamW without decay on vectors and tables: decay would shrink the rows of tokens that no caption has."""
    is_matrix = {p: p.ndim >= 2 and "embedding" not in name for name, p in model.named_parameters()}
    groups = [
        {"params": [p for p, decays in is_matrix.items() if decays], "weight_decay": config.weight_decay},
        {"params": [p for p, decays in is_matrix.items() if not decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)


def main(argv: Sequence[str] | None = None) -> Path:
    defaults = PretrainConfig()
    parser = argparse.ArgumentParser(description="Pretrain a tiny CLIP on pictures of the shapes world.")
    parser.add_argument("--out", type=Path, required=True, help="file of the fp16 state dict")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch_size", type=int, default=defaults.batch_size)
    parser.add_argument("--num_pictures", type=int, default=defaults.num_pictures)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = PretrainConfig(**{name: value for name, value in vars(args).items() if name != "out"})
    model, _ = pretrain(config)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out) as part:
        torch.save({name: value.half() for name, value in model.state_dict().items()}, part)
    logger.info("wrote %s", args.out)
    return args.out


if __name__ == "__main__":
    main()
