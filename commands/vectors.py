"""One vector a video, computed once and kept in files that are named by what the vectors depend on."""

import argparse
import hashlib
import json
import logging
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from commands.extraction import describe
from datasets.build import build_eval_loader
from datasets.lists.records import VideoList
from engine.collect import Pass, Tables, embed_views
from modules.formats.ours import joined
from modules.systems.base import System
from utils.arrays import DAMAGED
from utils.config import Config
from utils.distributed import from_main, rank, world_size
from utils.files import whole_file
from utils.precision import Precision
from utils.weights.state_dicts import weights_sha256

logger = logging.getLogger(__name__)

TABLE = "embeddings"
# Of what ``describe`` says, vectors do not depend on the list around a video, the name of the weights, and the texts
# of classes.
OF_NO_MATTER = ("shape", "list_fingerprint", "list_order", "weights", "templates", "context_length")


class Kept(NamedTuple):
    """Vectors of M videos, all of which could be read."""

    names: list[str]  # see ``_names``
    vectors: np.ndarray  # float32 [M, D]
    mismatches: dict[str, str]  # path -> why its frames may be other ones than were asked for


def list_vectors(
    config: Config, system: System, videos: VideoList, args: argparse.Namespace, precision: Precision, folder: Path
) -> Tables:
    """The table ``embeddings`` [N, D] of a list: the mean over views of what ``System.embed`` makes of each.

    Videos whose vectors are in ``folder``, made with the same weights, views and settings, are not read again; those of
    the others come to them. With cached features (``data.modality``) nothing is kept.

    Args:
        args: with ``weights``, ``test_clips`` and ``test_crops``.

    Raises:
        ValueError, OSError: on every process: a file that is there is damaged, or none can be written.
    """
    if config.data.modality == "features":
        return _computed(config, system, videos, args, precision)
    path = folder / f"{config.data.dataset}_{_key(config, system, videos, args, precision)}.npz"
    kept = from_main(lambda: _read(path, system.towers.spec.embed_dim))
    names, known = _names(videos), set(kept.names)
    first = {name: index for index, name in reversed(list(enumerate(names)))}  # a list may name a video twice
    missing = np.array(sorted(index for name, index in first.items() if name not in known), dtype=np.int64)
    logger.info("%s: vectors of %d of %d videos are here", path, len(first) - len(missing), len(first))
    failures: dict[str, str] = {}
    if len(missing):
        found = _computed(config, system, videos.take(missing), args, precision)
        failures, kept = found.failures, _together(kept, [names[index] for index in missing], found)
        from_main(lambda: _write(path, kept))
    return Tables({TABLE: _table(kept, names)}, failures, _of_list(kept.mismatches, videos))


def _computed(
    config: Config, system: System, videos: VideoList, args: argparse.Namespace, precision: Precision
) -> Tables:
    data, views = config.data, (args.test_clips, args.test_crops)
    loader = build_eval_loader(data, videos, rank(), world_size(), *views)
    found = embed_views(system, loader, views[0] * views[1], Pass(precision, data.batch_size, data.dataset))
    return Tables({TABLE: found.tables[TABLE].mean(dim=1)}, found.failures, found.mismatches)


def _key(config: Config, system: System, videos: VideoList, args: argparse.Namespace, precision: Precision) -> str:
    """Hash of everything that the vectors of a root's videos depend on, 16 hex digits."""
    about = describe(config, system, videos, args, num_augmented=0) | {
        "root": videos.root,
        "system": config.network.system,
        "precision": precision.name,
        "weights_sha256": weights_sha256(joined(system.weights())),
    }
    about = {name: value for name, value in about.items() if name not in OF_NO_MATTER}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _names(videos: VideoList) -> list[str]:
    """Paths, behind the number of frames where the list says it, which decides on the frames that are taken."""
    paths = [videos.path(index) for index in range(len(videos))]
    if videos.num_frames is None:
        return paths
    return [f"{count} {path}" for count, path in zip(videos.num_frames.tolist(), paths, strict=True)]


def _together(kept: Kept, names: list[str], found: Tables) -> Kept:
    """What was there and what could be read of the videos ``names``; the others are tried anew each time."""
    vectors = found.tables[TABLE].numpy()
    was_read = ~np.isnan(vectors).any(axis=1)
    readable = [name for name, is_good in zip(names, was_read, strict=True) if is_good]
    return Kept(
        kept.names + readable, np.concatenate([kept.vectors, vectors[was_read]]), kept.mismatches | found.mismatches
    )


def _table(kept: Kept, names: list[str]) -> torch.Tensor:
    """Rows of videos [N, D]; NaN where there is none."""
    row_of = {name: row for row, name in enumerate(kept.names)}
    rows = np.array([row_of.get(name, -1) for name in names])
    vectors = np.full((len(names), kept.vectors.shape[1]), np.nan, dtype=np.float32)
    vectors[rows >= 0] = kept.vectors[rows[rows >= 0]]
    return torch.from_numpy(vectors)


def _of_list(reasons: dict[str, str], videos: VideoList) -> dict[str, str]:
    paths = {videos.path(index) for index in range(len(videos))}
    return {path: reason for path, reason in reasons.items() if path in paths}


def _write(path: Path, kept: Kept) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("wb") as file:
        mismatches = np.array(json.dumps(kept.mismatches))
        np.savez(file, names=np.array(kept.names, dtype=str), vectors=kept.vectors, mismatches=mismatches)


def _read(path: Path, width: int) -> Kept:
    """What ``_write`` wrote, of vectors [M, width]; no videos where there is no file."""
    if not path.is_file():
        return Kept([], np.zeros((0, width), dtype=np.float32), {})
    try:
        with np.load(path, allow_pickle=False) as file:
            kept = Kept(file["names"].tolist(), file["vectors"], dict(json.loads(file["mismatches"].item())))
        if kept.vectors.dtype != np.float32 or kept.vectors.shape != (len(kept.names), width):
            found = f"{kept.vectors.dtype} {list(kept.vectors.shape)}"
            raise ValueError(f"vectors are {found}, expected float32 {[len(kept.names), width]}")
    except (OSError, zipfile.BadZipFile, LookupError, AttributeError, *DAMAGED) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"{path}: damaged ({reason}); remove it, and its videos are read once more") from error
    return kept
