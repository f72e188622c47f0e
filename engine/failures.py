"""Videos that could not be read: training takes another one and goes on, up to a share; tests count them as wrong."""

import logging
from typing import Any

from utils.distributed import gather

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.05  # of an epoch's videos


def report_replaced(batch: Any) -> set[str]:
    """Log the videos of a batch (``datasets.clips.video.Batch``) that could not be read; returns their paths."""
    report_mismatches(dict(batch.mismatches))
    for path, reason in batch.failures:
        logger.warning("unreadable, replaced by another video: %s (%s)", path, reason)
    return {failure.path for failure in batch.failures}


def report_mismatches(mismatches: dict[str, str]) -> None:
    """Log videos (path -> reason) that were read, but perhaps not at the frames asked for."""
    for path, reason in sorted(mismatches.items()):
        logger.warning("perhaps other frames than asked for: %s (%s)", path, reason)


def check_failed_share(failed: set[str], num_videos: int) -> None:
    """Stop when more than 5 % of the videos could not be read in an epoch, over all processes.

    Raises:
        ValueError: on every process.
    """
    num_failed = len(set().union(*gather(failed)))
    if num_failed:
        logger.warning("%d of %d videos of this epoch could not be read", num_failed, num_videos)
    if num_failed > MAX_FAILED_SHARE * num_videos:
        raise ValueError(
            f"{num_failed} of {num_videos} training videos could not be read, more than {MAX_FAILED_SHARE:.0%}; "
            "check data.train_root, or the roots of data.sources, and the files named above"
        )
