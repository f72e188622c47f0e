"""Published configuration files: which of them are Text4Vis's, and what their code takes for granted."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SYSTEM_FILES = Path(__file__).resolve().parents[2] / "configs" / "systems"
# Keys that Text4Vis's files have: without effect there, or nearly always off.
TEXT4VIS_MARKS = ("network.type", "network.tm", "network.drop", "data.seg_length", "solver.epoch_offset")
# Keys of its descendants, BIKE and MoTE, and of ours.
OTHER_MARKS = ("network.temporal_layer", "network.num_experts", "network.interaction", "network.templates")


def settings_of(system: str) -> Path:
    """The file of a system's published settings."""
    return SYSTEM_FILES / f"{system}.yaml"


def published_base(tree: Mapping[str, Any], told: str = "") -> Path | None:
    """The file that a published configuration leaves unsaid what is in; None: it is none, or of MoTE.

    Args:
        tree: its keys, none of them ``network.system``.
        told: the system that a checkpoint is of which comes with the file, where its names tell.
    """
    if not told and not (_has(tree, TEXT4VIS_MARKS) and not _has(tree, OTHER_MARKS)):
        return None
    base = settings_of(told or "text4vis")
    logger.info(
        "the configuration is one of %s: what it does not say is as in configs/systems/%s", base.stem, base.name
    )
    return base


def _has(tree: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    sections = ((tree.get(section), key) for section, key in (dotted.split(".") for dotted in keys))
    return any(isinstance(section, Mapping) and key in section for section, key in sections)
