"""Files that are whole or not there."""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from utils.text import shown

Kind = TypeVar("Kind")
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
        with errors_naming(path):
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """A block whose errors of the system, such as a full disk, name the file that it writes."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, OSError):
            cause = cause.__context__  # torch speaks of positions in the file, where the system said why
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror or str(cause), str(path)) from error


def no_file(path: str | Path) -> str:
    """Why a path cannot be read as a file, for a message."""
    return "not a file" if os.path.exists(path) else "no such file"


def prepare_output(path: Path) -> None:
    """See that a file can be written under a name, before the work that fills it; its folder is made.

    Raises:
        OSError: it cannot.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected the name of a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written", str(path))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, see ``whole_file``."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        what: the file's part in errors, such as ``the description of a pack``.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not JSON, has a key twice, is nested beyond reason, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=each_key_once)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path}: damaged, {what} is not JSON ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged, {what} is a JSON {type(content).__name__}, expected an object")
    return content


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for ``json.loads``.

    Raises:
        ValueError: it has a key twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):  # of two, JSON would silently take the last
        twice = next(key for place, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:place]))
        raise ValueError(f"the key {shown(twice)} is given twice")
    return found


def checked(kind: type[Kind], tree: dict[str, Any], path: Path) -> Kind:
    """The object in a JSON file as a dataclass, of which other entries are left out.

    Raises:
        ValueError: names the file, and what is missing; or the entry, what was expected and what was found.
    """
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        problems = {".".join(map(str, problem["loc"])): problem for problem in error.errors()}
    if missing := [place for place, problem in problems.items() if problem["type"] == "missing"]:
        raise ValueError(f"{path}: damaged, missing {', '.join(missing)}")
    place, problem = next(iter(problems.items()))
    raise ValueError(f"{path}: damaged, {place}: {problem['msg']}, found {shown(problem['input'])}")


def check_settings(made: str | Path, found: dict[str, Any], wanted: dict[str, Any], advice: str) -> None:
    """See that something was made with the settings of now.

    Raises:
        ValueError: names every setting that differs, with both values.
    """
    wanted = json.loads(json.dumps(wanted))  # as they come back from a file
    if names := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        changes = "; ".join(f"{name} was {shown(found.get(name))}, is {shown(wanted.get(name))}" for name in names)
        raise ValueError(f"{made} was made with other settings: {changes}; {advice}")


def claim_folder(note: Path, settings: dict[str, Any]) -> None:
    """Note the settings of the files of a folder in it, before any of them, or see that they are those noted there.

    Raises:
        ValueError: they are not, or the note is damaged.
    """
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(settings, indent=1) + "\n")
    check_settings(
        note.parent, read_json(note, "the note of settings"), settings, "choose a new folder or remove this one"
    )


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left unfinished below ``folder``."""
    for part in list(folder.rglob(f".*{PART}")):
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
