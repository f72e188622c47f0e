"""Files that are whole or not there."""

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"  # suffix of unfinished files


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; the file appears as ``path`` when the block ends without an error, synced to the disk.

    A process that is killed leaves a hidden ``.HASH.PID.part`` beside it, see ``remove_parts``.

    Raises:
        OSError: also names the file where the disk is full; what was there before is intact.
    """
    # A hash of the name, which may be too long for an addition; processes of two machines may have one number.
    part = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}{PART}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, see ``whole_file``."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left unfinished below ``folder``."""
    for part in list(folder.rglob(f".*{PART}")):
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
