"""YAML to a frozen, typed configuration; every mistake is an error that names the key.

A file may name a ``base:`` file, or a list of them, whose keys it inherits and overrides.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from dotmap import DotMap

from utils.config.schema import Config
from utils.config.trees import (
    drop_dead_keys,
    leaves,
    list_decay_steps,
    merge,
    names_system,
    parse_override,
    read_file,
    tree_of,
    tree_of_config,
    without_nulls,
)
from utils.config.typed import Systems, typed

# A tree that names no system -> the file that it inherits from as if it named it as ``base:``, or None.
BaseOf = Callable[[Mapping[str, Any]], Path | None]


def load_config(
    path: str | Path, overrides: Sequence[str] = (), systems: Systems | None = None, base_of: BaseOf | None = None
) -> Config:
    """Read a YAML file and apply overrides ``section.key=value`` (values are YAML).

    Args:
        systems: classes of the settings of systems, by name; each may have a section of its name. None: sections that
            are not of ``Config`` stay unread, for callers who build no model.
        base_of: asked where neither the file, its base files nor an override name a system.

    Raises:
        FileNotFoundError: the file or its base does not exist.
        ValueError: unknown key (with the nearest name), wrong type, wrong choice, or not YAML.
    """
    return _resolve(read_file(Path(path)), str(path), overrides, systems, base_of)


def parse_config(
    text: str,
    source: str,
    overrides: Sequence[str] = (),
    systems: Systems | None = None,
    base_of: BaseOf | None = None,
) -> Config:
    """As ``load_config``, from YAML text such as a checkpoint carries; ``source`` names it in errors."""
    return _resolve(tree_of(text, source), source, overrides, systems, base_of)


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that ``load_config`` reads back."""
    return yaml.safe_dump(tree_of_config(config), sort_keys=False)


def changes(before: str, after: Config) -> list[str]:
    """What another configuration (YAML, of ``to_yaml``) has otherwise: ``section.key: value, was value``."""
    old = leaves(tree_of(before, "a configuration before"))
    new = leaves(tree_of_config(after))
    return [f"{key}: {value}, was {old[key]}" for key, value in new.items() if key in old and old[key] != value]


def _resolve(
    tree: DotMap, path: str, overrides: Sequence[str], systems: Systems | None, base_of: BaseOf | None
) -> Config:
    """Overrides laid over a tree of keys, every key checked."""
    changes = DotMap(_dynamic=False)
    for override in overrides:
        merge(changes, parse_override(override))
    if base_of and not names_system(tree) and not names_system(changes) and (base := base_of(tree.toDict())):
        inherited = read_file(base)
        merge(inherited, tree)
        tree = inherited
    merge(tree, changes)
    source = f"{path} and the command line" if overrides else path
    drop_dead_keys(tree)
    list_decay_steps(tree)
    config = typed(without_nulls(tree.toDict()), source, systems)
    if config.solver.start_epoch >= config.solver.epochs:
        raise ValueError(f"{source}: solver.start_epoch {config.solver.start_epoch} is not below solver.epochs")
    return config
