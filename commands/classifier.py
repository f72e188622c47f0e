"""Classify one's own videos with one's own class names: what predict.py and tools/search.py share."""

import argparse
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip.model import CLIP, text_tower
from commands.testing import PLAIN_CLIP
from datasets.build import build_own_loader, preset_of
from datasets.clips.own_videos import VideoViews
from datasets.decode.decoders import AUTO, PYAV
from datasets.lists.labels import read_labels
from datasets.lists.video_files import find_videos
from engine.scores import score_views
from modules.build import build_clip, build_model, check_network, load_model
from modules.classes.templates import encode_classes
from modules.formats.infer import resolve_config
from modules.formats.ours import read_checkpoint
from modules.video_clip import VideoCLIP
from utils.config import Config
from utils.logger import progress
from utils.precision import Precision, resolve_precision
from utils.weights.state_dicts import weights_sha256

logger = logging.getLogger(__name__)

DEFAULT_ARCH = "ViT-B/16"
DECODER = PYAV  # see datasets.clips.own_videos
MAX_WORKERS = 16
KEPT_CLASS_SETS = 8  # a page is asked for ever new ones


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose a model, see ``VideoClassifier.load``."""
    parser.add_argument("--weights", help="checkpoint (default: plain CLIP, frames averaged)")
    parser.add_argument("--config", help="YAML file (default: what the checkpoint carries or implies)")
    parser.add_argument("--arch", help=f"CLIP: a name or a file (default: the configuration's, else {DEFAULT_ARCH})")


def printable(path: str) -> str:
    """A path whose bytes may not be UTF-8."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def unreadable(failed: Sequence["Prediction"], num_videos: int) -> str:
    """The error that names videos which could not be read: one line, or a line each below it."""
    lines = [f"{printable(prediction.path)}: {prediction.error}" for prediction in failed]
    listed = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
    return f"error: {len(lines)} of {num_videos} videos could not be read:{listed}"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one video shows.

    T counts the frames of all clips, in the order of time. Of a video that could not be read only path and error
    are there.
    """

    path: str
    scores: dict[str, float] = field(default_factory=dict)  # label -> probability, the most probable first
    labels: tuple[str, ...] = ()  # K, in the order asked for
    frame_scores: np.ndarray | None = None  # float32 [T, K], probabilities of each frame
    seconds: np.ndarray | None = None  # float64 [T], when the frames are shown
    frames: np.ndarray | None = None  # uint8 [T, S, S, 3], as the model sees them (centre crop)
    embedding: np.ndarray | None = None  # float32 [D], unit length
    error: str | None = None  # why the video could not be read

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes, with their probabilities."""
        return list(self.scores.items())[:count]

    def without_frames(self) -> "Prediction":
        """The same, a few kilobytes large."""
        return replace(self, frames=None)


@dataclass
class Timing:
    """Where the time of a classifier's last pass went, in seconds."""

    num_videos: int = 0
    wait_s: float = 0.0  # for decoded videos
    compute_s: float = 0.0
    total_s: float = 0.0  # with what the caller did between the videos


class VideoClassifier:
    """A model, its text tower and its settings, ready for any videos and class names.

    Attributes:
        class_names: classes that the model was trained on, the default of ``predict``; empty if unknown.
        num_frames: T of a clip.
        timing: where the time of the last pass went.

    One thread at a time may use it.
    """

    def __init__(self, model: VideoCLIP, text: CLIP, config: Config, precision: Precision, class_names: list[str]):
        self.model, self.text, self.config, self.precision = model.eval(), text.eval(), config, precision
        self.class_names = class_names
        self.num_frames = config.data.num_segments
        self.timing = Timing()
        self._class_features = lru_cache(maxsize=KEPT_CLASS_SETS)(self._encode)
        self._merged = model.merged_experts()
        self._merged.__enter__()  # for good: a classifier does not train

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
        number_format = resolve_precision(precision, device)
        checkpoint = None if weights in (None, PLAIN_CLIP) else read_checkpoint(weights)
        chosen = _machine_settings(device)
        if checkpoint is None:
            chosen["network.sim_header"] = "None"
            arch = arch or (None if config else DEFAULT_ARCH)
        if arch:
            chosen["network.arch"] = arch
        settings = resolve_config(checkpoint, str(weights), config, chosen, overrides)
        if settings.data.decoder not in (AUTO, DECODER):
            raise ValueError(f"data.decoder: own videos are decoded by {DECODER}, found {settings.data.decoder!r}")
        check_network(settings)
        is_size_given = checkpoint or config or any(override.startswith("data.input_size") for override in overrides)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            clip = build_clip(
                settings.network,
                settings.data.num_segments,
                settings.data.input_size if is_size_given else None,
                settings.seed,
            ).to(device)
            settings = replace(settings, data=replace(settings.data, input_size=clip.config.image_size))
            text = text_tower(clip)  # shares its tensors, so a checkpoint with a text tower is loaded into it, too
            placeholder = torch.zeros(1, clip.config.embed_dim, device=device)  # the checkpoint brings the classes
            if checkpoint is None:
                model = build_model(settings, clip, placeholder)
            else:
                model = load_model(settings, clip, placeholder, checkpoint, str(weights))
        return cls(model, text, settings, number_format, list((checkpoint or {}).get("class_names", ())))

    def predict(
        self,
        paths: str | Path | Sequence[str | Path],
        labels: str | Path | Sequence[str] | None = None,
        num_clips: int = 3,
        num_crops: int = 1,
    ) -> list[Prediction]:
        """Classify videos, in the order asked for; see ``stream``, which holds one batch at a time."""
        return list(self.stream(paths, labels, num_clips, num_crops))

    def stream(
        self,
        paths: str | Path | Sequence[str | Path],
        labels: str | Path | Sequence[str] | None = None,
        num_clips: int = 3,
        num_crops: int = 1,
    ) -> Iterator[Prediction]:
        """Classify videos one after the other.

        Args:
            paths: files, folders (all videos below), glob patterns.
            labels: class names, see ``datasets.lists.labels.read_labels``; None: ``class_names``.
            num_clips: clips a video.
            num_crops: crops a clip, as ``datasets.clips.transforms.CROPS`` has them.

        Raises:
            ValueError, FileNotFoundError: before the first video: class names or views that make no sense, no video.
        """
        if labels is None and not self.class_names:
            raise ValueError("labels: the model carries no class names; say which classes to look for")
        names = tuple(self.class_names if labels is None else read_labels(labels))
        return self._begin(paths, names, num_clips, num_crops)

    def embed(
        self, paths: str | Path | Sequence[str | Path], num_clips: int = 3, num_crops: int = 1
    ) -> Iterator[Prediction]:
        """As ``stream``, without classes: predictions have embeddings and no scores."""
        return self._begin(paths, (), num_clips, num_crops)

    def class_features(self, names: Sequence[str]) -> Tensor:
        """Unit features [K, D] of class names, encoded once for each of the last sets.

        Raises:
            ValueError: a name is longer than 77 tokens.
        """
        return self._class_features(tuple(names))

    def _encode(self, names: tuple[str, ...]) -> Tensor:
        if not names:
            return torch.zeros(0, self.text.config.embed_dim, device=self.precision.device)
        return encode_classes(self.text, list(names), self.config.network.templates)

    def fingerprint(self) -> str:
        """Tells models apart: SHA-256 of all weights, 16 hex digits."""
        towers = {"text." + name: value for name, value in self.text.state_dict().items()}
        return weights_sha256(towers | self.model.state_dict())[:16]

    def _begin(
        self, paths: str | Path | Sequence[str | Path], names: tuple[str, ...], num_clips: int, num_crops: int
    ) -> Iterator[Prediction]:
        """Find what is wrong before the iteration begins."""
        crops = preset_of(self.config.data).crops
        if num_clips < 1 or num_crops not in crops:
            expected = f"at least 1 clip, and {', '.join(map(str, crops))} crops"
            raise ValueError(f"views of a video: expected {expected}, found {num_clips} and {num_crops}")
        videos = find_videos([paths] if isinstance(paths, str | Path) else list(paths))
        return self._run(videos, names, self.class_features(names), num_clips, num_crops)

    def _run(
        self, videos: list[str], names: tuple[str, ...], class_features: Tensor, num_clips: int, num_crops: int
    ) -> Iterator[Prediction]:
        self.timing = Timing()
        clips_per_pass = self.config.data.batch_size
        loader = build_own_loader(self.config.data, videos, num_clips, num_crops)
        centre = preset_of(self.config.data).crops[num_crops].centre
        start = last = time.perf_counter()
        for batch in progress(loader, "predict", len(loader)):
            arrived = time.perf_counter()
            predictions = [Prediction(video.path, labels=names, error=video.error) for video in batch.videos]
            if not batch.is_empty:
                scores = score_views(self.model, batch.clips, class_features, num_crops, self.precision, clips_per_pass)
                readable = [place for place, video in enumerate(batch.videos) if video.error is None]
                for row, place in enumerate(readable):
                    row_of = [tensor[row].numpy() for tensor in (*scores, batch.clips)]
                    predictions[place] = _prediction(batch.videos[place], names, centre, *row_of)
            now = time.perf_counter()
            self.timing.wait_s += arrived - last
            self.timing.compute_s += now - arrived
            self.timing.num_videos += len(predictions)
            yield from predictions
            last = time.perf_counter()
            self.timing.total_s = last - start


def _prediction(
    video: VideoViews,
    names: tuple[str, ...],
    centre: int,
    probabilities: np.ndarray,
    frame_probabilities: np.ndarray,
    embedding: np.ndarray,
    clips: np.ndarray,
) -> Prediction:
    """One video's row of the tables, its frames in the order of time; ``centre``: place of the centre crop."""
    ranking = np.argsort(-probabilities, kind="stable")
    order = np.argsort(video.seconds.ravel(), kind="stable")
    num_clips = len(video.seconds)
    shown = clips[centre * num_clips :][:num_clips]  # [C, T, 3, S, S]
    return Prediction(
        path=video.path,
        scores={names[place]: float(probabilities[place]) for place in ranking},
        labels=names,
        frame_scores=frame_probabilities.reshape(len(order), len(names))[order],
        seconds=video.seconds.ravel()[order],
        frames=shown.reshape(-1, *shown.shape[2:])[order].transpose(0, 2, 3, 1),
        embedding=embedding,
    )


def _machine_settings(device: torch.device) -> dict[str, Any]:
    """Loader settings for this machine, in the place of those of the machine that trained."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_cuda = device.type == "cuda"
    return {
        "data.modality": "video",
        "data.decoder": DECODER,
        # A CPU that computes has few cores to spare for decoding, and gains nothing from large batches.
        "data.workers": min(MAX_WORKERS, num_cores if is_cuda else max(1, num_cores // 2)),
        "data.batch_size": 64 if is_cuda else 4,
    }
