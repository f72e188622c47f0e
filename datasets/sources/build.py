"""``data.sources`` to lists, data sets and a loader."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from datasets.build import build_source, eval_rule, loader_options, train_rule, train_transform
from datasets.clips.presets import preset_of
from datasets.clips.samplers import TrainBatches
from datasets.clips.transforms import NO_MIRROR
from datasets.pack.shards import ShardPack
from datasets.sources.batches import SourceBatches
from datasets.sources.kinds import ORDERED, SOURCES, Texts
from datasets.sources.videos import MAY_FLIP, AllSources, OrderedVideos, TextVideos
from utils.config import DataConfig, SourceConfig, check_choice
from utils.workers import WorkerLoader


@dataclass(frozen=True)
class Source:
    """One of the lists that training takes batches from."""

    name: str  # of its section in errors: data.sources[0]
    data: DataConfig  # with the source's batch size and modality
    texts: Texts


def read_sources(config: DataConfig) -> list[Source]:
    """Read the lists of ``data.sources``.

    Raises:
        ValueError, FileNotFoundError: a kind is unknown, a list cannot be read (see ``datasets.sources.kinds``), or
            other keys contradict the section.
    """
    others = ("train_root", "train_list", "label_list", "folder", "shot")
    given = [f"data.{key}" for key in others if getattr(config, key)]
    if given:
        raise ValueError(f"data.sources takes the place of {', '.join(given)}; set only one of them")
    if config.modality == "features":
        raise ValueError("data.modality features: data.sources reads videos; expected video or shards")
    return [_read(config, each, f"data.sources[{number}]") for number, each in enumerate(config.sources)]


def _read(config: DataConfig, settings: SourceConfig, name: str) -> Source:
    check_choice(f"{name}.kind", settings.kind, SOURCES)
    texts = SOURCES[settings.kind](settings, name)
    batch_size = settings.batch_size or config.batch_size
    data = replace(config, modality=settings.modality, batch_size=batch_size, train_root=settings.root, sources=())
    if settings.modality == "shards":
        ShardPack.open(settings.root).check(texts.videos)
    return Source(name, data, texts)


def fingerprint_of(sources: list[Source]) -> str:
    """Hash of all lists in their order (SHA-256, 16 hex digits)."""
    return hashlib.sha256("".join(source.texts.fingerprint for source in sources).encode()).hexdigest()[:16]


def build_source_loader(
    config: DataConfig, sources: list[Source], tokenize: Callable[..., Tensor], seed: int, rank: int, world_size: int
) -> WorkerLoader:
    """Loader of a batch of each source in turn; its ``batch_sampler`` is a ``SourceBatches``.

    Args:
        tokenize: of the towers; loader workers get a copy.
    """
    seeds = [_seed_of(seed, number) for number in range(len(sources))]
    dataset = AllSources(tuple(_videos_of(source, tokenize, own) for source, own in zip(sources, seeds, strict=True)))
    batches = [
        TrainBatches(
            len(videos), source.data.batch_size, rank, world_size, own,
            name=(f"{source.name}.list", f"{source.name}.batch_size"),
        )
        for source, videos, own in zip(sources, dataset.sources, seeds, strict=True)
    ]  # fmt: skip
    options = loader_options(config, max(source.data.batch_size for source in sources))
    return WorkerLoader(dataset, batch_sampler=SourceBatches(batches), **options)


def read_order(config: DataConfig) -> Source | None:
    """The transcripts of ``data.val_transcripts``; None: there are none.

    Raises:
        ValueError, FileNotFoundError: see ``read_sources``; it is of another kind.
    """
    if config.val_transcripts is None:
        return None
    check_choice("data.val_transcripts.kind", config.val_transcripts.kind, (ORDERED,))
    return _read(config, config.val_transcripts, "data.val_transcripts")


def build_order_loader(
    source: Source, tokenize: Callable[..., Tensor], seed: int, rank: int, world_size: int
) -> WorkerLoader:
    """Loader of one visit of every video of a source, drawn alike each time, with the pictures of evaluation."""
    data = source.data
    views = partial(preset_of(data).eval_views, input_size=data.input_size, num_crops=1)
    reader = build_source(data, source.texts.videos)
    videos = OrderedVideos(reader, source.texts, eval_rule(data), views, tokenize, seed)
    options = loader_options(data, data.batch_size)
    return WorkerLoader(videos, sampler=range(rank, len(videos), world_size), batch_size=data.batch_size, **options)


def _videos_of(source: Source, tokenize: Callable[..., Tensor], seed: int) -> TextVideos:
    data = source.data
    mirror = [NO_MIRROR, NO_MIRROR]
    mirror[MAY_FLIP] = MAY_FLIP
    videos = build_source(data, source.texts.videos)
    return TextVideos(videos, source.texts, train_rule(data), train_transform(data, mirror), tokenize, seed)


def _seed_of(seed: int, source: int) -> int:
    """Every source draws an order and clips of its own."""
    return int(np.random.SeedSequence(seed, spawn_key=(source,)).generate_state(1, np.uint64)[0])
