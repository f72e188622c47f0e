"""From a configuration to its lists: videos with labels or texts, and class names."""

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from datasets.clips.presets import preset_of
from datasets.decode.decoders import AUTO, DECODERS
from datasets.features.cache import FeatureCache
from datasets.lists.captions import TextList, has_texts, read_captions, read_choices, read_either
from datasets.lists.checks import NUM_LOOKED_AT, check_numbering, check_template, log_missing_classes
from datasets.lists.class_folders import ClassFolders, read_class_folders
from datasets.lists.few_shot import few_shot_indices, full_length_passes
from datasets.lists.labels import read_class_names
from datasets.lists.records import VideoList, read_video_list
from datasets.pack.shards import ShardPack
from utils.config import DataConfig, check_choice

logger = logging.getLogger(__name__)


class LabelledVideos(NamedTuple):
    """What a configuration trains and tests on."""

    class_names: list[str]
    parts: dict[str, VideoList]
    split: ClassFolders | None  # where the lists were made from ``data.folder``
    num_passes: int  # over the training list an epoch: ``data.shot_repeat``, or what its 0 comes to


def read_data(config: DataConfig, parts: tuple[str, ...]) -> LabelledVideos:
    """Classes and the video lists of ``parts`` (``train``, ``val``), from files or from ``data.folder``.

    With ``data.shot`` the training list is ``shot`` videos of each class, see ``datasets.lists.few_shot``.

    Raises:
        ValueError, FileNotFoundError: see ``read_class_names``, ``read_lists`` and ``read_class_folders``; lists
            and ``data.folder`` are both given; ``data.decoder`` or ``data.transforms`` is unknown.
    """
    check_choice("data.decoder", config.decoder, (AUTO, *DECODERS))  # whether it works here is tried when it is needed
    preset_of(config)
    split = _read_folder(config) if config.folder else None
    if split:
        class_names = split.class_names
        videos = {part: split.videos(part) for part in parts}
    else:
        class_names = read_class_names(config.label_list, config.num_classes)
        videos = {part: read_lists(config, part, len(class_names)) for part in parts}
        for part, found in videos.items():
            # Tests of some classes are usual; training without a class is a mistake, or an experiment.
            level = logging.WARNING if part == "train" else logging.INFO
            log_missing_classes(getattr(config, f"{part}_list"), found.all_labels(), class_names, level)
    num_passes = config.shot_repeat or 1
    if config.shot and "train" in parts:
        whole = videos["train"]
        videos["train"] = whole.take(few_shot_indices(whole, config.shot, config.shot_seed, class_names))
        num_passes = config.shot_repeat or full_length_passes(len(whole), len(videos["train"]))
    return LabelledVideos(class_names, videos, split, num_passes)


def _read_folder(config: DataConfig) -> ClassFolders:
    given = [
        f"data.{key}"
        for key in ("train_root", "train_list", "val_root", "val_list", "label_list")
        if getattr(config, key)
    ]
    if given:
        raise ValueError(f"data.folder takes the place of {', '.join(given)}; set only one of them")
    if config.modality != "video":
        raise ValueError(f"data.folder holds video files, but data.modality is {config.modality}")
    split = read_class_folders(config.folder, config.val_share)
    if config.num_classes not in (0, len(split.folders)):
        raise ValueError(
            f"data.num_classes is {config.num_classes}, but {config.folder} holds {len(split.folders)} classes"
        )
    return split


def read_lists(config: DataConfig, part: str, num_classes: int) -> VideoList:
    """The video list of ``train`` or ``val``, see ``datasets.lists.records.read_video_list``.

    Raises:
        ValueError: also if ``image_tmpl`` or ``index_bias`` does not name the frames (see ``datasets.lists.checks``),
            and if a pack does not fit (see ``ShardPack``). Packed pictures smaller than evaluation takes are a warning.
    """
    if config.modality == "RGB":
        check_template(config.image_tmpl)
    path, root = getattr(config, f"{part}_list"), getattr(config, f"{part}_root")
    # The list of a feature cache is the one of the videos that it was made from.
    is_cached = config.modality == "features"
    modality = FeatureCache.open(root, f"{part}_root").entries.modality if is_cached else config.modality
    videos = read_video_list(path, root, modality, num_classes, key=part)
    if config.modality == "RGB":
        few = range(min(len(videos), NUM_LOOKED_AT))
        folders = {os.path.join(root, videos.path(index)): int(videos.num_frames[index]) for index in few}
        check_numbering(path, folders, config.image_tmpl, config.index_bias)
    if modality == "shards" and not is_cached:
        pack = ShardPack.open(root)
        pack.check(videos)
        if config.dense and pack.settings.frames:
            raise ValueError(f"data.dense needs every frame; {root} was packed with --frames {pack.settings.frames}")
        packed, needed = pack.settings.short_side, preset_of(config).resized_side(config.input_size)
        if part == "val" and 0 < packed < needed:
            logger.warning("%s: packed with --short_side %d, frames are enlarged to %d", root, packed, needed)
    return videos


def read_texts(config: DataConfig, is_choices: bool) -> TextList:
    """The list of videos and texts that ``data.val_list`` names: captions, or choices.

    Raises:
        ValueError, FileNotFoundError: see ``datasets.lists.captions``; or ``data.decoder``, ``data.transforms`` or
            ``data.modality`` is nothing that goes with such a list.
    """
    return _texts_of(config, read_choices if is_choices else read_captions)


def read_text_videos(config: DataConfig) -> VideoList:
    """The videos of ``data.val_list``, be it of captions or of choices; errors as of ``read_texts``."""
    return _texts_of(config, read_either).videos


def _texts_of(config: DataConfig, read: Callable[..., TextList]) -> TextList:
    check_choice("data.decoder", config.decoder, (AUTO, *DECODERS))
    preset_of(config)
    if config.modality == "RGB" or config.folder:
        found = "data.modality=RGB" if config.modality == "RGB" else "data.folder"
        raise ValueError(f"{found}: a list of texts says nothing of frames or classes; it goes with video files")
    found = read(config.val_list, config.val_root, "data.val_")
    if config.modality == "shards":
        ShardPack.open(config.val_root).check(found.videos)
    return found


def read_videos(config: DataConfig, parts: tuple[str, ...]) -> tuple[list[str], dict[str, VideoList]]:
    """Class names, and the lists of ``parts``; of texts there is the validation list alone, and no classes.

    Raises:
        ValueError, FileNotFoundError: see ``read_data`` and ``read_texts``.
    """
    if not config.label_list and not config.folder and "val" in parts and has_texts(config.val_list):
        return [], {"val": read_text_videos(config)}
    class_names, lists, *_ = read_data(config, parts)
    return class_names, lists
