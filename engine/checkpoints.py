"""The checkpoints in a run folder: the newest few to resume from, and the names that users look for."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from utils.files import remove_parts
from utils.weights.four_keys import read_four_keys, save_checkpoint

logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints that a run can be resumed from: the newest few, in ``FOLDER/checkpoints``."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder / "checkpoints", keep

    def path(self, epoch: int, step: int) -> Path:
        """Where the state after ``step`` steps beyond ``epoch`` finished epochs is, or would be."""
        return self.folder / f"epoch_{epoch:04d}_step_{step:07d}.pt"

    def save(self, content: dict[str, Any], epoch: int, step: int) -> Path:
        """Write the state after ``step`` steps of the epoch, then remove the oldest beyond ``keep``.

        Later ones are of a future that a run left when it went back: they are renamed to ``*.abandoned``.
        """
        self.folder.mkdir(exist_ok=True)
        remove_parts(self.folder)  # of runs that were killed while they wrote
        path = self.path(epoch, step)
        save_checkpoint(path, content)
        for later in self._newest_first():
            if later.name > path.name:
                later.replace(later.with_name(later.name + ".abandoned"))
                logger.warning("%s is later than what was saved now; renamed to %s.abandoned", later, later.name)
        for old in self._newest_first()[self.keep :]:
            old.unlink()
        return path

    def read_newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest readable checkpoint; unreadable newer ones are named in a warning. None: there is none.

        Raises:
            ValueError: there are some, but none is readable.
        """
        candidates = self._newest_first()
        for path in candidates:
            try:
                return path, read_four_keys(path)
            except (ValueError, OSError) as error:
                logger.warning("%s; trying the one before", error)
        if candidates:
            raise ValueError(
                f"none of the {len(candidates)} checkpoints in {self.folder} is readable; remove them all to start anew"
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch_*_step_*.pt"), reverse=True)


def publish(checkpoint: Path, path: Path) -> None:
    """Give a written checkpoint a second name, atomically and without a second copy where links exist."""
    if path.exists() and path.samefile(checkpoint):
        return  # renaming one link of a file to another does nothing, not even remove the first
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        os.link(checkpoint, partial)
    except OSError:
        shutil.copyfile(checkpoint, partial)
    partial.replace(path)
