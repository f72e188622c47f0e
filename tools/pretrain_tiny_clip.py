"""Pretrain a tiny CLIP on single pictures of a shapes world, the demo's stand-in for a released CLIP.

    python -m tools.pretrain_tiny_clip [--world proxy] --out tiny_clip.pt

The file is an fp16 state dict in OpenAI's parameter names.
"""

import argparse
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP, CLIPConfig
from clip.tokenizer import tokenize
from tools.shapes_captions import NOT_SAID, is_true_of
from tools.tiny_clip.steps import batches, build_optimizer, contrastive_loss, descend, learning_rate, normalise_pixels
from tools.tiny_clip.worlds import WORLDS, PretrainConfig, PretrainWorld
from utils.cli import run_main
from utils.files import whole_file

logger = logging.getLogger(__name__)

TINY_CLIP = CLIPConfig(
    embed_dim=128, image_size=48, patch_size=12, vision_width=128, vision_layers=3, vision_heads=2,
    text_width=64, text_layers=2, text_heads=1,
)  # fmt: skip
MAX_LOGIT_SCALE = math.log(100)  # CLIP keeps its temperature above 0.01


SHORT_TEXTS_WEIGHT = 0.5  # of the cross-entropy over the texts of each attribute


def pretrain(
    config: PretrainConfig, clip_config: CLIPConfig = TINY_CLIP, world: PretrainWorld = WORLDS["demo"]
) -> tuple[CLIP, list[float]]:
    """Train a CLIP from scratch; returns it, in eval mode, and the loss of each of its `steps`."""
    first = _learn_first_world(config, clip_config, world)
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    model = CLIP(clip_config).train()
    if first is not None:
        model.visual.load_state_dict(first.visual.state_dict())
    _teach_text_tower(model, config, generator, world)
    pictures = world.draw_pictures(config.num_pictures, generator, (clip_config.image_size,) * 2)
    optimizer = build_optimizer(model, config.lr, config.weight_decay)
    losses, started = [], time.perf_counter()
    for step, rows in enumerate(batches(config.num_pictures, config.steps, config.batch_size, generator)):
        image_features = model.encode_image(normalise_pixels(pictures.frames[rows]))
        loss = _loss(model, image_features, pictures.attributes[rows], generator, world, step)
        descend(loss, optimizer, learning_rate(step, config.steps, config.warmup_steps, config.lr))
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        losses.append(loss.item())
        if step % 100 == 0 or step == config.steps - 1:
            logger.info("step %d: loss %.3f, %.0f s", step, losses[-1], time.perf_counter() - started)
    if world.logit_scale is not None:
        model.logit_scale.data.fill_(math.log(world.logit_scale))
    return model.eval(), losses


def _learn_first_world(config: PretrainConfig, clip_config: CLIPConfig, world: PretrainWorld) -> CLIP | None:
    """The CLIP of the first world, of which the image tower is kept; None where there is none."""
    if world.first is None or not config.first_steps:
        return None
    given = {"steps": config.first_steps, "num_pictures": config.num_pictures, "seed": config.seed}
    return pretrain(replace(world.first.defaults, **given), clip_config, world.first)[0]


def _loss(
    model: CLIP,
    image_features: Tensor,
    attributes: np.ndarray,
    generator: np.random.Generator,
    world: PretrainWorld,
    step: int,
) -> Tensor:
    """The loss of N pictures, given by features and attributes: over short texts, over captions, or both."""
    parts = []
    if world.short_texts:
        parts.append(SHORT_TEXTS_WEIGHT * short_texts_loss(model, image_features, attributes, world.short_texts))
    if step % world.captions_every == 0:
        captions = world.write_captions(attributes, generator)
        text_features = model.encode_text(torch.stack([_tokens(text) for text in captions.texts]))
        is_true = torch.from_numpy(is_true_of(captions.said, attributes))
        parts.append(contrastive_loss(image_features, text_features, is_true, model.logit_scale))
    return sum(parts)


def short_texts_loss(
    model: CLIP, image_features: Tensor, attributes: np.ndarray, texts: tuple[tuple[str, ...], ...]
) -> Tensor:
    """The cross-entropies of telling a picture's text from all others of the same attribute, added up.

    Args:
        image_features: [N, D], any length.
        attributes: int64 [N, A]; pictures that do not show an attribute (NOT_SAID) have no part in its term.
        texts: of the first of the A attributes, one for each value.
    """
    tokens = torch.stack([_tokens(text) for of_attribute in texts for text in of_attribute])
    features = F.normalize(model.encode_text(tokens), dim=-1)
    logits = model.logit_scale.exp() * F.normalize(image_features, dim=-1) @ features.t()
    per_attribute = logits.split([len(of_attribute) for of_attribute in texts], dim=1)
    labels = torch.from_numpy(attributes)
    terms = [F.cross_entropy(part, labels[:, i], ignore_index=NOT_SAID) for i, part in enumerate(per_attribute)]
    return sum(terms)


@cache
def _tokens(text: str) -> Tensor:
    return tokenize([text])[0]


def _teach_text_tower(
    model: CLIP, config: PretrainConfig, generator: np.random.Generator, world: PretrainWorld
) -> None:
    """Train the text tower alone, on captions of pictures that are given as a learned sum of their attributes.

    At first all captions have nearly equal features. Two towers that both start so wait long for each other;
    with captions that are already told apart, the image tower learns as fast as a classifier.
    """
    tables = nn.ModuleList(nn.Embedding(len(names), model.config.embed_dim) for names in world.attributes)
    tower = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    optimizer = torch.optim.AdamW([*tower, *tables.parameters()], lr=config.text_lr, weight_decay=0.0, fused=True)
    for step in range(config.text_steps):
        attributes = np.stack([generator.integers(len(n), size=config.batch_size) for n in world.attributes], axis=1)
        ids = torch.from_numpy(attributes)
        image_features = sum(table(ids[:, column]) for column, table in enumerate(tables))
        loss = _loss(model, image_features, attributes, generator, world, step)
        descend(loss, optimizer, learning_rate(step, config.text_steps, config.warmup_steps, config.text_lr))


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description="Pretrain a tiny CLIP on pictures of a shapes world.")
    parser.add_argument("--out", type=Path, required=True, help="file of the fp16 state dict")
    parser.add_argument("--world", choices=WORLDS, default="demo", help="(demo); see docs/demo.md and docs/proxy.md")
    kinds = {field.name: field.type for field in fields(PretrainConfig)}
    for name in ("steps", "first_steps", "batch_size", "num_pictures", "lr", "seed"):
        parser.add_argument(f"--{name}", type=kinds[name], help="(what the world needs)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    world = WORLDS[args.world]
    if args.first_steps and world.first is None:
        parser.error(f"--first_steps: the world {args.world} has no world that is learned before it")
    given = {name: value for name, value in vars(args).items() if name in kinds and value is not None}
    model, _ = pretrain(replace(world.defaults, **given), world=world)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out) as part:
        torch.save({name: value.half() for name, value in model.state_dict().items()}, part)
    logger.info("wrote %s", args.out)
    return args.out


if __name__ == "__main__":
    run_main(main)
