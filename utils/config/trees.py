"""Trees of keys: read from files, with their base files and old spellings, and laid over each other."""

import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from dotmap import DotMap
from pydantic_core import to_jsonable_python

from utils.config.old_keys import ALIAS_VALUES, ALIASES, DEAD_KEYS, FIXED_KEYS, NULL_MEANS
from utils.config.schema import MANY, Config, SolverConfig, Text
from utils.config.typed import section_of
from utils.config.yaml_text import MAX_BYTES, read_yaml
from utils.files import no_file
from utils.text import shown

logger = logging.getLogger(__name__)

OVERRIDE_KEY = re.compile(r"\w+(\.\w+){0,3}")
MOST_FILES = 100  # of a configuration, each as often as it is named


def leaves(tree: dict, prefix: str = "") -> dict[str, Any]:
    """A tree as one level: ``section.key`` -> value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def tree_of_config(config: Config) -> dict[str, Any]:
    """Sections as a file has them, with lists for tuples."""
    tree = to_jsonable_python(config)
    return tree | tree.pop("sections")


def read_file(path: Path) -> DotMap:
    """The tree of a file and its base files.

    Raises:
        FileNotFoundError, ValueError: one of them is not there, no YAML, or its own base.
    """
    return _read_tree(path, seen=(), count=itertools.count(1))


def _read_tree(path: Path, seen: tuple[Path, ...], count: Iterator[int]) -> DotMap:
    if not path.is_file():
        named = f", the base of {seen[-1]}" if seen else ""
        raise FileNotFoundError(f"config {path}: {no_file(path)}{named}")
    if path.resolve() in seen:
        raise ValueError(f"config {path}: base files form a circle")
    if next(count) > MOST_FILES:
        raise ValueError(f"config {path}: base files name more than {MOST_FILES} files")
    with path.open("rb") as file:
        tree = tree_of(file.read(MAX_BYTES + 1), f"config {path}")
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"config {path}: base: expected a file or a list of files, found {shown(bases)}")
    inherited = DotMap(_dynamic=False)
    for base in bases:
        name = section_of(Text, base, "base", f"config {path}", None)
        merge(inherited, _read_tree(path.parent / name, (*seen, path.resolve()), count))
    merge(inherited, tree)
    return inherited


def tree_of(text: str | bytes, source: str) -> DotMap:
    """The tree of YAML text; ``source`` names it in errors.

    Raises:
        ValueError: it is no YAML, or not sections with keys.
    """
    if not isinstance(text, str | bytes):
        raise ValueError(f"{source}: expected YAML text, found {shown(text)}")
    tree = read_yaml(text, source)
    if not isinstance(tree, dict | None):  # None: an empty file
        raise ValueError(f"{source}: expected sections with keys, found {shown(tree)}")
    return _renamed(tree or {}, source)


def parse_override(override: str) -> DotMap:
    """The tree of ``section.key=value``.

    Raises:
        ValueError: it is not of this form.
    """
    key, separator, text = override.partition("=")
    if not separator or not OVERRIDE_KEY.fullmatch(key):
        raise ValueError(f"override {shown(override)}: expected section.key=value")
    try:
        value = read_yaml(text, f"override {shown(override)}")
    except ValueError as error:
        raise ValueError(f"{error}; put text into quotes") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return _renamed(value, f"override {shown(override)}")


def _renamed(tree: dict, source: str) -> DotMap:
    """A tree with the keys of ``ALIASES`` in their new places."""
    tree = DotMap(tree, _dynamic=False)
    for old, new in ALIASES.items():
        section, key = new.split(".")
        value = _pop(tree, old)
        if value is MISSING or not isinstance(tree.get(section), dict | None):
            continue
        tree[section] = tree.get(section) or DotMap(_dynamic=False)
        if key in tree[section]:
            raise ValueError(f"{source}: {old} is the old name of {new}; give only one of them")
        tree[section][key] = ALIAS_VALUES.get(old, {}).get(shown(value), value)
    if not tree.get("loss", True):  # nothing is left of an old section
        del tree["loss"]
    return tree


def _pop(tree: DotMap, dotted: str, default: Any = MISSING) -> Any:
    """Take a key out of its section; ``default`` where it is not there."""
    section, key = dotted.split(".")
    return tree[section].pop(key, default) if isinstance(tree.get(section), dict) else default


def merge(tree: DotMap, changes: DotMap) -> None:
    """Lay ``changes`` over ``tree``, section by section."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        elif not (value is None and isinstance(tree.get(key), dict)):  # an empty section changes nothing
            tree[key] = value


def drop_dead_keys(tree: DotMap) -> None:
    """Take out published keys that are dead or have one possible value, and say so.

    Raises:
        ValueError: another value.
    """
    for dotted, only in FIXED_KEYS.items():
        if (value := _pop(tree, dotted, only)) not in (only, None):
            raise ValueError(f"{dotted}: only {only!r} is implemented, found {shown(value)}")
    if ignored := [dotted for dotted in DEAD_KEYS if _pop(tree, dotted) is not MISSING]:
        logger.warning("keys without effect, as in the published code: %s", ", ".join(ignored))


def list_decay_steps(tree: DotMap) -> None:
    """One number as ``solver.lr_decay_step`` stands for all its multiples, in published files."""
    solver = tree.get("solver")
    step = solver.get("lr_decay_step") if isinstance(solver, dict) else None
    if type(step) is int and step > 0:
        epochs = solver.get("epochs")
        last = epochs if type(epochs) is int else SolverConfig.epochs  # checked later
        solver["lr_decay_step"] = [step * number for number in range(1, int(min(last, MANY) // step) + 1)]


def without_nulls(tree: dict, prefix: str = "") -> dict:
    """A tree without keys that are null, which keep their defaults."""
    values = {key: NULL_MEANS.get(prefix + key) if value is None else value for key, value in tree.items()}
    return {
        key: without_nulls(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


def names_system(tree: DotMap) -> bool:
    """Whether a tree says which system it is for."""
    network = tree.get("network")
    return isinstance(network, dict) and bool(network.get("system"))
