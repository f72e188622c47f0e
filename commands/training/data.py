"""What a run trains on and is validated with: videos with labels, or several lists of videos with texts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clip.towers import Towers
from commands.training.run import Run
from commands.training.start import Start
from datasets.build import build_eval_loader, build_source, build_train_loader
from datasets.clips.video import VideoSource
from datasets.lists.captions import TextList
from datasets.lists.class_folders import ClassFolders
from datasets.lists.records import VideoList
from datasets.read import LabelledVideos, read_data, read_texts
from datasets.sources.build import (
    Source,
    build_order_loader,
    build_source_loader,
    fingerprint_of,
    read_order,
    read_sources,
)
from engine.collect import Pass, collect, embed_views
from engine.protocols.retrieval import check_rules, figures_of_embeddings, fused_views
from engine.protocols.validation import in_order, validate
from modules.build import build_classes
from modules.classes.base import Classes, NoClasses
from modules.systems.base import Batch, System
from modules.texts import encode_texts
from utils.config import Config, DataConfig
from utils.distributed import rank, world_size

Validation = Callable[[System], dict[str, float]]  # figures in percent, the first of which says which model is best


class TrainingData(Protocol):
    """Lists, and what follows from their kind."""

    class_names: list[str]
    split: ClassFolders | None  # where the lists were made from ``data.folder``
    few_shot: VideoList | None  # what was chosen of the list, if so
    fingerprint: str  # of what is trained on, in its order

    def readers(self) -> list[tuple[str, VideoSource]]:
        """What opens the videos of each list, beside the list's name."""

    def classes(self, run: Run, towers: Towers, start: Start) -> Classes:
        """What the system compares with in training."""

    def loader(self, run: Run) -> Callable[[Towers], DataLoader]:
        """Batches of training, once there are towers, which read texts; what is wrong without them is an error now."""

    def validation(self, run: Run, system: System) -> Validation:
        """What is asked of a model after an epoch."""

    def examples(self, towers: Towers) -> list[Batch]:
        """A batch of each kind on the meta device, see ``example_of``."""


def read_training_data(config: Config) -> TrainingData:
    """Read the lists of a run.

    Raises:
        ValueError, FileNotFoundError: they cannot be read; the keys contradict each other.
    """
    return TextData.read(config) if config.data.sources else LabelData.read(config)


@dataclass(frozen=True)
class LabelData:
    """A list of videos with one label each, and one for validation."""

    config: Config
    listed: LabelledVideos

    @classmethod
    def read(cls, config: Config) -> "LabelData":
        """See ``read_training_data``."""
        listed = read_data(config.data, ("train", "val"))
        for part, videos in listed.parts.items():
            videos.check_one_label(f"data.{part}_list", "training")
        return cls(config, listed)

    @property
    def class_names(self) -> list[str]:
        """See ``TrainingData``."""
        return self.listed.class_names

    @property
    def split(self) -> ClassFolders | None:
        """See ``TrainingData``."""
        return self.listed.split

    @property
    def few_shot(self) -> VideoList | None:
        """See ``TrainingData``."""
        return self.listed.parts["train"] if self.config.data.shot else None

    @property
    def fingerprint(self) -> str:
        """See ``TrainingData``."""
        return self.listed.parts["train"].order_fingerprint()

    def readers(self) -> list[tuple[str, VideoSource]]:
        """See ``TrainingData``; cached features have no videos."""
        data = self.config.data
        lists = {} if data.modality == "features" else self.listed.parts
        return [(data.folder or f"data.{part}_list", build_source(data, videos)) for part, videos in lists.items()]

    def classes(self, run: Run, towers: Towers, start: Start) -> Classes:
        """Those of the label file."""
        videos = self.listed.parts["train"]
        features = partial(frozen_features, towers, self.config.data, videos, run.pass_over("the classifier"))
        return build_classes(self.config, towers, self.class_names, start.known, features)

    def loader(self, run: Run) -> Callable[[Towers], DataLoader]:
        """See ``TrainingData``."""
        data = replace(self.config.data, shot_repeat=self.listed.num_passes)  # the run keeps 0 in its configuration
        loader = build_train_loader(data, self.listed.parts["train"], self.class_names, self.config.seed, *run.share)
        return lambda towers: loader

    def validation(self, run: Run, system: System) -> Validation:
        """Top-1 and top-5 among the classes."""
        videos = self.listed.parts["val"]
        loader = build_eval_loader(self.config.data, videos, *run.share)
        return partial(validate, loader=loader, labels=torch.from_numpy(videos.labels), how=run.pass_over("validation"))

    def examples(self, towers: Towers) -> list[Batch]:
        """See ``TrainingData``."""
        return [example_of(self.config.data, towers.spec.embed_dim)]


@dataclass(frozen=True)
class TextData:
    """Lists of videos with texts, and for validation one of captions and, perhaps, one of transcripts."""

    config: Config
    sources: list[Source]
    searched: TextList  # captions of data.val_list
    ordered: Source | None  # of data.val_transcripts

    class_names = property(lambda self: [])
    split = few_shot = property(lambda self: None)

    @classmethod
    def read(cls, config: Config) -> "TextData":
        """See ``read_training_data``."""
        check_rules(config.eval.tie_rule, config.eval.dual_softmax)
        data = config.data
        return cls(config, read_sources(data), read_texts(data, is_choices=False), read_order(data))

    @property
    def fingerprint(self) -> str:
        """See ``TrainingData``."""
        return fingerprint_of(self.sources)

    def readers(self) -> list[tuple[str, VideoSource]]:
        """See ``TrainingData``."""
        sources = [*self.sources, *([self.ordered] if self.ordered else [])]
        readers = [(f"{source.name}.list", build_source(source.data, source.texts.videos)) for source in sources]
        return [*readers, ("data.val_list", build_source(self.config.data, self.searched.videos))]

    def classes(self, run: Run, towers: Towers, start: Start) -> Classes:
        """None."""
        return NoClasses(towers.spec.embed_dim)

    def loader(self, run: Run) -> Callable[[Towers], DataLoader]:
        """See ``TrainingData``."""
        build = partial(build_source_loader, self.config.data, self.sources)
        return lambda towers: build(towers.text_reader(), self.config.seed, *run.share)

    def validation(self, run: Run, system: System) -> Validation:
        """How many captions find their video first, and the other way round; and whose transcripts are put in order.

        Raises:
            ValueError: the system puts another number of texts in order than a source has, or none.
        """
        self._check_counts(system)
        loader = build_eval_loader(self.config.data, self.searched.videos, *run.share)
        search = partial(search_figures, self.searched, self.config.eval.tie_rule, loader, run)
        if not self.ordered:
            return search
        transcripts = build_order_loader(self.ordered, system.towers.text_reader(), self.config.seed, *run.share)
        order = partial(in_order, loader=transcripts, how=run.pass_over("order"))
        return lambda model: search(model) | order(model)

    def _check_counts(self, system: System) -> None:
        """See that the system can do with the number of texts that a clip of each source has."""
        ordered, name = system.num_ordered, self.config.network.system
        for source in (*self.sources, *([self.ordered] if self.ordered else [])):
            is_asked = source is self.ordered or (source.texts.num_texts > 1 and ordered)
            if is_asked and source.texts.num_texts != ordered:
                raise ValueError(
                    f"{source.name}.num_texts is {source.texts.num_texts}, but {name} puts {ordered or 'no'} texts in "
                    f"order (section {name})"
                )

    def examples(self, towers: Towers) -> list[Batch]:
        """See ``TrainingData``."""
        spec = towers.spec
        shapes = [(source.data, (source.texts.num_texts, spec.context_length)) for source in self.sources]
        return [example_of(data, spec.embed_dim, texts) for data, texts in shapes]


def search_figures(listed: TextList, tie_rule: str, loader: DataLoader, run: Run, system: System) -> dict[str, float]:
    """Recall of a search among the videos of a list, one view a video, in percent.

    Raises:
        ValueError: no video of the list could be read.
    """
    texts = encode_texts(system.towers, listed.captions).embeddings
    views = embed_views(system, loader, 1, run.pass_over("validation"))
    views.check_some_read("data.val_list")
    videos = fused_views(views.tables["embeddings"])
    found = figures_of_embeddings(texts, videos, listed.video_of_line, tie_rule)
    return {f"{way}_{rank}": found[way][rank] for way in ("t2v", "v2t") for rank in ("r1", "r5")}


@torch.inference_mode()
def frozen_features(towers: Towers, data: DataConfig, videos: VideoList, how: Pass) -> tuple[Tensor, Tensor]:
    """Mean frame features [N, D] of the pretrained image tower, one clip a video, and labels int64 [N]; on the CPU.

    Rows of videos that could not be read are NaN.

    Raises:
        ValueError: the list is one of cached features, whose views may be augmented ones.
    """
    if data.modality == "features":
        raise ValueError("text4vis.classifier: lda reads the training videos, but data.modality is features")
    was_training = towers.training
    towers.eval()
    found = collect(
        lambda batch: {"features": towers.encode_clips(batch.clips, batch.lengths).float().mean(dim=1)},
        build_eval_loader(data, videos, rank(), world_size()),
        {"features": (1, towers.spec.embed_dim)},
        how,
    )
    towers.train(was_training)
    return found.tables["features"][:, 0], torch.from_numpy(videos.labels)


def example_of(data: DataConfig, width: int, texts: tuple[int, int] | None = None) -> Batch:
    """A training batch of the right shape on the meta device, where it takes no memory.

    Args:
        width: D of features.
        texts: how many a clip has, and the tokens of each, where they are in the place of labels; they have values.
    """
    size, clips = data.input_size, (data.batch_size, data.num_segments)
    labels = torch.zeros(data.batch_size, dtype=torch.long, device="meta")
    if texts:
        # Text towers look at the values, to see where texts end: these fill their rows, which is the most.
        tokens = torch.ones(data.batch_size, *texts, dtype=torch.long).cumsum(dim=-1)
        return Batch(clips=torch.zeros(*clips, 3, size, size, dtype=torch.uint8, device="meta"), texts=tokens)
    if data.modality == "features":
        return Batch(features=torch.zeros(*clips, width, device="meta"), labels=labels)
    return Batch(clips=torch.zeros(*clips, 3, size, size, dtype=torch.uint8, device="meta"), labels=labels)
