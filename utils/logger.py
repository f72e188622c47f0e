"""Logging: one setup for console and file, progress bars on a terminal, metric curves on disk."""

import contextlib
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
        # A closed pipe or a redirection to a full disk does not end a run; there is nowhere left to say it.
        with contextlib.suppress(OSError):
            tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """A log file; that it cannot be written is said once, on the console."""

    has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.has_failed:
            self.has_failed = True
            _warn_unwritable(self.baseFilename, error)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the rest of what could not be written
            super().close()


def setup_logging(file: Path | None = None) -> None:
    """Log INFO of the main process (warnings of all) to the console and, if given, to ``file``."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if getattr(handler, "is_ours", False):
            root.removeHandler(handler)
            handler.close()
    handlers = [_TqdmHandler()]
    if file is not None and is_main():
        handlers.append(_FileHandler(file))
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
        again: first part of the names that come again at ``step`` itself; "": none.
    """

    def __init__(self, folder: Path, step: float = math.inf, again: str = ""):
        self._tensorboard = self._file = None
        self._failed: set[str] = set()
        if is_main():
            from torch.utils.tensorboard import SummaryWriter

            path = folder / "metrics.jsonl"
            if path.exists():
                lines = path.read_text().splitlines(keepends=True)
                write_text(path, "".join(line for line in lines if _is_kept(line, step, again)))
            self._file = path.open("a", buffering=1)
            self._tensorboard = SummaryWriter(folder, purge_step=step + 1 if step < math.inf else None)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add one row; names may have sections, as in ``train/loss``."""
        if self._file is None:
            return
        with self._said_once(self._file.name):
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        with self._said_once(f"TensorBoard's files in {self._tensorboard.log_dir}"):
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush to disk."""
        if self._file is not None:
            with self._said_once(self._file.name):
                self._file.close()
            with self._said_once(f"TensorBoard's files in {self._tensorboard.log_dir}"):
                self._tensorboard.close()

    @contextlib.contextmanager
    def _said_once(self, name: str) -> Iterator[None]:
        """Turn a failure to write ``name`` into a warning, the first time."""
        try:
            yield
        except OSError as error:
            if name not in self._failed:
                _warn_unwritable(name, error)
            self._failed.add(name)


def _warn_unwritable(name: str, error: OSError) -> None:
    logging.getLogger(__name__).warning("could not write %s (%s); the run goes on", name, error.strerror or error)


def _is_kept(line: str, step: float, again: str) -> bool:
    """Whether a row stays when the run goes on after ``step``; one that a killed process left unfinished does not."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    comes_again = again and any(name.startswith(again) for name in row)
    return line.endswith("\n") and (row["step"] < step or (row["step"] == step and not comes_again))
