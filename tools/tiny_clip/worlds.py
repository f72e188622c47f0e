"""The worlds that a tiny CLIP can be pretrained on: their pictures, what is said of them, and for how long."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from datasets.shapes import pictures as demo
from datasets.shapes.pictures import Pictures
from datasets.shapes.proxy import pictures as proxy
from tools import shapes_captions
from tools.shapes_captions import Captions
from tools.tiny_clip import proxy_captions


@dataclass(frozen=True)
class PretrainConfig:
    """`num_pictures` are drawn once and passed over as often as `steps` of `batch_size` need.

    Where a world has a first one, the image tower learns that for `first_steps`, 0: not at all, from as many pictures.
    """

    steps: int = 1500
    first_steps: int = 0
    batch_size: int = 64
    num_pictures: int = 30_000
    lr: float = 7e-4
    text_steps: int = 200
    text_lr: float = 1e-3
    warmup_steps: int = 40
    weight_decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class PretrainWorld:
    """What a CLIP sees and reads.

    `short_texts` are lists of texts, one for each attribute of a picture in their order, of which the picture's own is
    told from all others in every step; captions, told from those of the batch, come every `captions_every`-th step.
    `logit_scale` is laid into the finished model; None keeps what was learned. `first` is a world whose pictures the
    image tower learns before, with a text tower that is not kept.
    """

    attributes: tuple[tuple[str, ...], ...]
    draw_pictures: Callable[[int, np.random.Generator, tuple[int, int]], Pictures]
    write_captions: Callable[[np.ndarray, np.random.Generator], Captions]
    short_texts: tuple[tuple[str, ...], ...] = ()
    captions_every: int = 1
    logit_scale: float | None = None
    first: "PretrainWorld | None" = None
    defaults: PretrainConfig = field(default_factory=PretrainConfig)


_DEMO = PretrainWorld(demo.ATTRIBUTES, demo.draw_pictures, shapes_captions.write_captions)
WORLDS = {
    "demo": _DEMO,
    "proxy": PretrainWorld(
        proxy.ATTRIBUTES,
        proxy.draw_pictures,
        partial(shapes_captions.write_captions, kinds=proxy_captions.CAPTION_KINDS, words=proxy_captions.words_of),
        short_texts=proxy_captions.SHORT_TEXTS,
        captions_every=3,
        logit_scale=50.0,
        first=_DEMO,
        defaults=PretrainConfig(steps=1500, first_steps=1500, batch_size=96, lr=8e-4, text_steps=150),
    ),
}
