"""Classify one's own videos with one's own class names: what predict.py and tools/search.py share."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.towers import STATISTICS, Towers
from commands.weights import FOR_ANY_CLASSES, Weights
from datasets.build import build_own_loader
from datasets.clips.presets import preset_of
from datasets.decode.decoders import AUTO, DECODERS, PYAV, resolve_decoder
from datasets.lists.labels import read_labels
from datasets.lists.video_files import find_videos
from engine.collect import Pass, batches_of
from engine.protocols.fusion import fusion_of
from engine.protocols.probabilities import Prediction, Shown, explain_shown, fuse_shown, prediction_of, rows_of
from modules.build import PLAIN_CLIP, build_classes
from modules.classes.base import Classes
from modules.classes.templates import template_classes
from modules.formats.ours import joined
from modules.scores import Explanation
from modules.systems.base import System
from utils.config import Config, check_choice
from utils.precision import Precision, resolve_precision
from utils.weights.state_dicts import weights_sha256
from utils.workers import WorkerLoader

logger = logging.getLogger(__name__)

MAX_WORKERS = 16
KEPT_CLASS_SETS = 8  # a page is asked for ever new ones

Paths = str | Path | Sequence[str | Path]  # files, folders (all videos below), glob patterns
Labels = str | Path | Sequence[str] | None  # class names, see datasets.lists.labels.read_labels


@dataclass
class Timing:
    """Where the time of a classifier's last pass went, in seconds."""

    num_videos: int = 0
    wait_s: float = 0.0  # for decoded videos
    caller_s: float = 0.0  # what the caller did between the videos
    total_s: float = 0.0

    @property
    def compute_s(self) -> float:
        """The rest."""
        return self.total_s - self.wait_s - self.caller_s


class VideoClassifier:
    """A model, its text tower and its settings, ready for any videos and class names.

    Attributes:
        class_names: classes that the model was trained on, the default of ``predict``; empty if unknown.
        num_frames: T of a clip.
        num_clips: clips a video, where a call does not say.
        timing: where the time of the last pass went.

    One thread at a time may use it.
    """

    def __init__(
        self,
        model: System,
        text: Towers,
        config: Config,
        precision: Precision,
        class_names: list[str],
        classifier: Mapping[str, Any] = {},
    ):
        self.model, self.text, self.config, self.precision = model.eval(), text.eval(), config, precision
        self.class_names, self.classifier = class_names, classifier  # see ``Weights.classifier``
        self.num_frames = config.data.num_segments
        self.num_clips = preset_of(config.data).own_clips
        self.timing = Timing()
        self._encoded = lru_cache(maxsize=KEPT_CLASS_SETS)(self._encode)
        self._form = model.under_test(precision.half)
        self._form.__enter__()  # for good: a classifier does not train

    @classmethod
    def load(
        cls,
        weights: str | Path | None = None,
        config: str | Path | None = None,
        arch: str | None = None,
        precision: str = "auto",
        device: str | torch.device | None = None,
        overrides: Sequence[str] = (),
    ) -> "VideoClassifier":
        """Load a model.

        Args:
            weights: a checkpoint; None or ``clip``: plain CLIP, frames averaged.
            config: YAML file; None: what the checkpoint carries, else what its tensors tell.
            arch: CLIP, as ``network.arch``; None: the configuration's, for plain CLIP ViT-B/16.
            precision: see ``utils.precision``.
            device: None: the GPU if there is one.
            overrides: ``section.key=value``.

        Raises:
            ValueError, FileNotFoundError: a file is missing, of another kind, or does not fit.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        resolved = resolve_precision(precision, device)
        weights = Weights(weights or PLAIN_CLIP)
        chosen = _machine_settings(device) | FOR_ANY_CLASSES | ({"network.arch": arch} if arch else {})
        settings = weights.config(config, overrides, chosen)
        check_choice("data.decoder", settings.data.decoder, (AUTO, *DECODERS))
        resolve_decoder(settings.data.decoder)  # here, not at the first video
        data = settings.data
        is_size_given = weights.checkpoint or config or any(text.startswith("data.input_size") for text in overrides)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            size = data.input_size if is_size_given else None
            towers = weights.towers(settings, size).to(device)
            settings = replace(settings, data=replace(data, input_size=towers.spec.image_size))
            text = towers.text_part()  # shares its tensors, so a checkpoint with a text tower is loaded into it, too
            model = weights.build(settings, towers)
        class_names = list((weights.checkpoint or {}).get("class_names", ()))
        return cls(model, text, settings, resolved, class_names, weights.classifier)

    def predict(
        self, paths: Paths, labels: Labels = None, num_clips: int | None = None, num_crops: int = 1
    ) -> list[Prediction]:
        """Classify videos, in the order asked for; see ``stream``, which holds one batch at a time."""
        return list(self.stream(paths, labels, num_clips, num_crops))

    def stream(
        self,
        paths: Paths,
        labels: Labels = None,
        num_clips: int | None = None,
        num_crops: int = 1,
        is_explained: bool = False,
    ) -> Iterator[Prediction]:
        """Classify videos one after the other.

        Args:
            labels: None: ``class_names``.
            num_clips: clips a video; None: ``self.num_clips``.
            num_crops: crops a clip, as ``datasets.clips.transforms.CROPS`` has them.
            is_explained: predictions have ``explanations``, if the system has any.

        Raises:
            ValueError, FileNotFoundError: before the first video: class names or views that make no sense, no video.
        """
        if labels is None and not self.class_names:
            raise ValueError("labels: the model carries no class names; say which classes to look for")
        names = tuple(self.class_names if labels is None else read_labels(labels))
        return self._begin(paths, names, num_clips, num_crops, is_explained)

    def embed(self, paths: Paths, num_clips: int | None = None, num_crops: int = 1) -> Iterator[Prediction]:
        """As ``stream``, without classes: predictions have embeddings and no scores."""
        return self._begin(paths, (), num_clips, num_crops)

    def class_features(self, names: Sequence[str]) -> Tensor:
        """Unit features [K, D] of class names, encoded once for each of the last sets.

        Raises:
            ValueError: a name is longer than 77 tokens; or is none that the checkpoint's classifier knows.
        """
        return self._encoded(tuple(names))[1]

    def query_feature(self, text: str) -> Tensor:
        """Unit feature [D] of a text that videos are searched by: in the templates, whatever else stands for a class.

        Raises:
            ValueError: see ``class_features``.
        """
        if self.classifier:  # vectors that no text tower made
            return self.class_features([text])[0]
        return template_classes(self.text, [text], self.config.network.templates).encode(self.text)[0]

    def _encode(self, names: tuple[str, ...]) -> tuple[Classes | None, Tensor]:
        if not names:
            return None, torch.zeros(0, self.text.spec.embed_dim, device=self.precision.device)
        with torch.no_grad():
            classes = build_classes(self.config, self.text, list(names), self.classifier)
            return classes, classes.encode(self.text)

    def fingerprint(self) -> str:
        """Tells models apart: SHA-256 of all weights, and of rules of pictures that are not theirs, 16 hex digits."""
        text = {"text." + name: value for name, value in self.text.state_dict().items()}
        rules = preset_of(self.config.data).of_towers
        statistics = {name: getattr(self.model.towers, name) for name in STATISTICS if name in rules}
        if resize := self.config.data.resize:  # a rule has no tensor: it counts as a name
            statistics[f"resize.{resize}"] = torch.zeros(0)
        return weights_sha256(text | joined(self.model.weights()) | statistics)[:16]

    def _begin(
        self, paths: Paths, names: tuple[str, ...], num_clips: int | None, num_crops: int, is_explained: bool = False
    ) -> Iterator[Prediction]:
        """Find what is wrong before the iteration begins."""
        num_clips = self.num_clips if num_clips is None else num_clips
        crops = preset_of(self.config.data).crops
        if num_clips < 1 or num_crops not in crops:
            expected = f"at least 1 clip, and {', '.join(map(str, crops))} crops"
            raise ValueError(f"views of a video: expected {expected}, found {num_clips} and {num_crops}")
        videos = find_videos([paths] if isinstance(paths, str | Path) else list(paths))
        self._encoded(names)
        return self._run(videos, names, num_clips, num_crops, is_explained)

    def _run(
        self, videos: list[str], names: tuple[str, ...], num_clips: int, num_crops: int, is_explained: bool
    ) -> Iterator[Prediction]:
        self.timing = Timing()
        class_features = self.class_features(names)
        how = Pass(self.precision, self.config.data.batch_size, "predict")
        loader = build_own_loader(self.config.data, videos, num_clips, num_crops)
        centre = preset_of(self.config.data).crops[num_crops].centre
        fusion = fusion_of(self.config.eval, "cosines")
        start = time.perf_counter()
        compute = rows_of(self.model, class_features, fusion, keeps_frames=is_explained)
        for batch, rows in batches_of(compute, _TimedLoader(loader, self.timing), how):
            failed = zip(batch.failed_indices.tolist(), batch.failures, strict=True)
            predictions = {i: Prediction(videos[i], labels=names, error=failure.reason) for i, failure in failed}
            if rows:
                if not all(table.isfinite().all() for table in rows.values()):
                    reason = f"the weights are too large for {self.precision.name}"
                    raise FloatingPointError(f"the cosines of a video are not finite: {reason}")
                scale = self.model.logit_scale.detach()
                shown = fuse_shown(rows, class_features, fusion, scale, num_crops, self.num_frames)
                crops = batch.clips.unflatten(1, (num_crops, -1))[:, centre]
                readable = batch.indices.tolist()
                reasons = self._reasons(rows["frames"], names, shown, num_crops) if is_explained else [()] * len(crops)
                columns = zip(readable, reasons, batch.seconds, crops, *shown, strict=True)
                for i, reason, seconds, clips, *tables in columns:
                    predictions[i] = prediction_of(videos[i], seconds, names, Shown(*tables), clips, reason)
            self.timing.num_videos += len(predictions)
            shown_at = time.perf_counter()
            yield from (predictions[i] for i in sorted(predictions))
            self.timing.caller_s += time.perf_counter() - shown_at
            self.timing.total_s = time.perf_counter() - start
        self.timing.total_s = time.perf_counter() - start  # with the wait that found no more batches

    @torch.inference_mode()
    def _reasons(
        self, frames: Tensor, names: tuple[str, ...], shown: Shown, num_crops: int
    ) -> list[Sequence[Explanation]]:
        """Of each of B videos, why its most probable class is that; frames [B, V, T', D]."""
        classes, encoded = self._encoded(names)
        labels = shown.probabilities.argmax(dim=-1).tolist()
        with self.precision.autocast():
            return [
                explain_shown(self.model, some, classes, encoded, label, num_crops, self.num_frames)
                for some, label in zip(frames, labels, strict=True)
            ]


class _TimedLoader:
    """A loader that counts how long it is waited for."""

    def __init__(self, loader: WorkerLoader, timing: Timing):
        self.loader, self.timing = loader, timing

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.timing.wait_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def _machine_settings(device: torch.device) -> dict[str, Any]:
    """Loader settings for this machine, in the place of those of the machine that trained."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_cuda = device.type == "cuda"
    return {
        "data.modality": "video",
        # Exact frames and times in every container, not agreement with figures of the decoder that a test named.
        "data.decoder": PYAV,
        # A CPU that computes has few cores to spare for decoding, and gains nothing from large batches.
        "data.workers": min(MAX_WORKERS, num_cores if is_cuda else max(1, num_cores // 2)),
        "data.batch_size": 64 if is_cuda else 4,
    }
