"""What a kind of bad input is."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Make = Callable[[Path, "Places"], None]


class Places(NamedTuple):
    """What the makers of bad files start from."""

    data: Path  # the debug data set
    config: Path  # its configuration, without workers
    weights: Path  # a checkpoint trained on it


class Bad(NamedTuple):
    """One kind: a command, its arguments, and what its last line must say.

    In arguments ``{w}`` is the folder of the case, ``{data}``, ``{config}`` and ``{weights}`` are as in ``Places``.
    """

    kind: str
    command: str
    arguments: list[str]
    says: str  # pattern; names the thing that is wrong, and where
    make: Make | None = None  # writes the bad files into the folder of the case
    statuses: tuple[int, ...] = (2,)


def text(name: str, content: str | bytes) -> Make:
    """Writes one file."""

    def make(folder: Path, _: Places) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make
