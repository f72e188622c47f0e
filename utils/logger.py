"""Logging: one setup for console and file, progress bars on a terminal, metric curves on disk."""

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from utils.distributed import is_main
from utils.files import write_text

Item = TypeVar("Item")


class _TqdmHandler(logging.Handler):
    """Console output that does not tear progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def setup_logging(file: Path | None = None) -> None:
    """Log INFO of the main process (warnings of all) to the console and, if given, to ``file``."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if getattr(handler, "is_ours", False):
            root.removeHandler(handler)
            handler.close()
    handlers = [_TqdmHandler()]
    if file is not None and is_main():
        handlers.append(logging.FileHandler(file))
    for handler in handlers:
        handler.is_ours = True
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%m-%d %H:%M:%S"))
        handler.setLevel(logging.INFO if is_main() else logging.WARNING)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def progress(items: Iterable[Item], desc: str, total: int, start: int = 0, every: int = 0) -> Iterator[Item]:
    """Iterate with a bar on a terminal, or with a plain line every ``every`` items (0: none) in a log.

    ``total`` counts the ``start`` items that are done already.
    """
    is_terminal = sys.stderr.isatty()
    bar = tqdm(items, desc=desc, total=total, initial=start, disable=not (is_terminal and is_main()), leave=False)
    for count, item in enumerate(bar, start=start + 1):
        yield item
        if every and not is_terminal and count % every == 0:
            logging.getLogger(__name__).info("%s %d/%d", desc, count, total)


class MetricWriter:
    """Writes scalars to ``metrics.jsonl`` and TensorBoard, on the main process only.

    Args:
        step: where the run begins or goes on; what was written beyond it is dropped, for it comes again.
    """

    def __init__(self, folder: Path, step: float = math.inf):
        self._tensorboard = self._file = None
        self._has_failed = False
        if is_main():
            from torch.utils.tensorboard import SummaryWriter

            path = folder / "metrics.jsonl"
            if path.exists():
                lines = path.read_text().splitlines(keepends=True)
                write_text(path, "".join(line for line in lines if _step_of(line) <= step and line.endswith("\n")))
            self._file = path.open("a", buffering=1)
            self._tensorboard = SummaryWriter(folder, purge_step=step + 1 if step < math.inf else None)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add one row; names may have sections, as in ``train/loss``."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)
        except OSError as error:
            if not self._has_failed:
                logger = logging.getLogger(__name__)
                logger.warning("could not write %s (%s); training goes on", self._file.name, error.strerror)
            self._has_failed = True

    def close(self) -> None:
        """Flush to disk."""
        if self._file is not None:
            self._file.close()
            self._tensorboard.close()


def _step_of(line: str) -> float:
    """The step of a row; infinite for a row that a killed process left unfinished."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
