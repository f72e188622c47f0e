"""YAML to a frozen, typed configuration; every mistake is an error that names the key.

A file may name a ``base:`` file, or a list of them, whose keys it inherits and overrides.
"""

import dataclasses
import difflib
import itertools
import logging
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml
from dotmap import DotMap
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_jsonable_python

from utils.config.schema import MANY, Config, Settings, SolverConfig, Text
from utils.config.yaml_text import MAX_BYTES, read_yaml
from utils.files import no_file
from utils.text import MAX_SHOWN, shown

logger = logging.getLogger(__name__)

Systems = Mapping[str, type]  # name of a system -> class of its settings
# A tree that names no system -> the file that it inherits from as if it named it as ``base:``, or None.
BaseOf = Callable[[Mapping[str, Any]], Path | None]

# Old spellings, read everywhere as the new ones: files, checkpoints, command lines.
ALIASES = {
    "loss.expert": "mote.expert",
    "loss.merged": "mote.merged",
    "loss.feature_mse": "mote.feature_mse",
    "network.merge_temperatures": "mote.merge_temperatures",
    "eval.modulation": "mote.modulation",
    "eval.modulation_classes": "mote.modulation_classes",
    "eval.modulation_temperature": "mote.modulation_temperature",
    "solver.expert_draws": "solver.draws",
    "network.grad_checkpointing": "network.recompute",
}
# What values of old spellings are in the new ones, where these have other values.
ALIAS_VALUES = {"network.grad_checkpointing": {"True": "full", "False": ""}}
# Published keys without effect there: they load, with one warning.
DEAD_KEYS = (
    "data.seg_length", "network.drop", "network.n_emb", "network.type", "solver.epoch_offset",
)  # fmt: skip
# Published keys with one meaningful value here.
FIXED_KEYS = {"network.interaction": "DP"}
NULL_MEANS = {"network.sim_header": "None"}  # as some published files have it; elsewhere null keeps the default
OVERRIDE_KEY = re.compile(r"\w+(\.\w+){0,3}")
MOST_FILES = 100  # of a configuration, each as often as it is named

# pydantic's names of errors -> what was expected.
EXPECTED = {
    "int_type": "int",
    "bool_type": "bool",
    "string_type": "str",
    "float_type": "float",
    "finite_number": "a finite number",
    "tuple_type": "a list of numbers",
    "dataclass_type": "keys",
}


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
    return _resolve(_read_file(Path(path)), str(path), overrides, systems, base_of)


def parse_config(
    text: str,
    source: str,
    overrides: Sequence[str] = (),
    systems: Systems | None = None,
    base_of: BaseOf | None = None,
) -> Config:
    """As ``load_config``, from YAML text such as a checkpoint carries; ``source`` names it in errors."""
    return _resolve(_tree_of(text, source), source, overrides, systems, base_of)


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that ``load_config`` reads back."""
    return yaml.safe_dump(_tree_of_config(config), sort_keys=False)


def changes(before: str, after: Config) -> list[str]:
    """What another configuration (YAML, of ``to_yaml``) has otherwise: ``section.key: value, was value``."""
    old = _leaves(_tree_of(before, "a configuration before"))
    new = _leaves(_tree_of_config(after))
    return [f"{key}: {value}, was {old[key]}" for key, value in new.items() if key in old and old[key] != value]


def check_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Refuse a name that a registry does not have.

    Raises:
        ValueError: names the key and what is known.
    """
    if value not in choices:
        raise ValueError(f"{key}: expected one of {', '.join(choices)}, found {shown(value)}")


# --- trees of keys


def _leaves(tree: dict, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _tree_of_config(config: Config) -> dict[str, Any]:
    """Sections as a file has them, with lists for tuples."""
    tree = to_jsonable_python(config)
    return tree | tree.pop("sections")


def _read_file(path: Path) -> DotMap:
    """The tree of a file and its base files."""
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
        tree = _tree_of(file.read(MAX_BYTES + 1), f"config {path}")
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"config {path}: base: expected a file or a list of files, found {shown(bases)}")
    inherited = DotMap(_dynamic=False)
    for base in bases:
        name = _section(Text, base, "base", f"config {path}", None)
        _merge(inherited, _read_tree(path.parent / name, (*seen, path.resolve()), count))
    _merge(inherited, tree)
    return inherited


def _tree_of(text: str | bytes, source: str) -> DotMap:
    if not isinstance(text, str | bytes):
        raise ValueError(f"{source}: expected YAML text, found {shown(text)}")
    tree = read_yaml(text, source)
    if not isinstance(tree, dict | None):  # None: an empty file
        raise ValueError(f"{source}: expected sections with keys, found {shown(tree)}")
    return _renamed(tree or {}, source)


def _parse_override(override: str) -> DotMap:
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


def _merge(tree: DotMap, changes: DotMap) -> None:
    """Lay ``changes`` over ``tree``, section by section."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif not (value is None and isinstance(tree.get(key), dict)):  # an empty section changes nothing
            tree[key] = value


def _drop_dead_keys(tree: DotMap) -> None:
    """Take out published keys that are dead or have one possible value, and say so."""
    for dotted, only in FIXED_KEYS.items():
        if (value := _pop(tree, dotted, only)) not in (only, None):
            raise ValueError(f"{dotted}: only {only!r} is implemented, found {shown(value)}")
    if ignored := [dotted for dotted in DEAD_KEYS if _pop(tree, dotted) is not MISSING]:
        logger.warning("keys without effect, as in the published code: %s", ", ".join(ignored))


def _list_decay_steps(tree: DotMap) -> None:
    """One number as ``solver.lr_decay_step`` stands for all its multiples, in published files."""
    solver = tree.get("solver")
    step = solver.get("lr_decay_step") if isinstance(solver, dict) else None
    if type(step) is int and step > 0:
        epochs = solver.get("epochs")
        last = epochs if type(epochs) is int else SolverConfig.epochs  # checked later
        solver["lr_decay_step"] = [step * number for number in range(1, int(min(last, MANY) // step) + 1)]


def _without_nulls(tree: dict, prefix: str = "") -> dict:
    values = {key: NULL_MEANS.get(prefix + key) if value is None else value for key, value in tree.items()}
    return {
        key: _without_nulls(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }


# --- typing


def _resolve(
    tree: DotMap, path: str, overrides: Sequence[str], systems: Systems | None, base_of: BaseOf | None
) -> Config:
    """Overrides laid over a tree of keys, every key checked."""
    changes = DotMap(_dynamic=False)
    for override in overrides:
        _merge(changes, _parse_override(override))
    if base_of and not _names_system(tree) and not _names_system(changes) and (base := base_of(tree.toDict())):
        inherited = _read_file(base)
        _merge(inherited, tree)
        tree = inherited
    _merge(tree, changes)
    source = f"{path} and the command line" if overrides else path
    _drop_dead_keys(tree)
    _list_decay_steps(tree)
    config = _typed(_without_nulls(tree.toDict()), source, systems)
    if config.solver.start_epoch >= config.solver.epochs:
        raise ValueError(f"{source}: solver.start_epoch {config.solver.start_epoch} is not below solver.epochs")
    return config


def _names_system(tree: DotMap) -> bool:
    network = tree.get("network")
    return isinstance(network, dict) and bool(network.get("system"))


def _typed(tree: dict, source: str, systems: Systems | None) -> Config:
    """A tree as a configuration; with ``systems`` also the sections that are not of ``Config``."""
    ours = {entry.name for entry in dataclasses.fields(Config)} - {"sections"}
    others = {name: tree.pop(name) for name in list(tree) if name not in ours}
    for name, part in others.items():
        stays_unread = systems is None and isinstance(part, dict)
        if not stays_unread and name not in (systems or {}):
            raise ValueError(f"{source}: {_unknown_key(name, systems)}")
    config = _section(Config, tree, "", source, systems)
    if systems is None:
        return config
    check_choice(f"{source}: network.system", config.network.system, systems)
    others.setdefault(config.network.system, {})
    sections = {name: _section(systems[name], part, name, source, systems) for name, part in others.items()}
    return dataclasses.replace(config, sections=sections)


def _section(cls: type[Settings], tree: Any, name: str, source: str, systems: Systems | None) -> Settings:
    """A tree as settings of the class; the first mistake is raised in our words."""
    try:
        return TypeAdapter(cls).validate_python(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    keys = [part for part in first["loc"] if isinstance(part, str)]  # without places in lists
    key = ".".join([name, *keys] if name else keys)
    if first["type"] == "unexpected_keyword_argument":
        raise ValueError(f"{source}: {_unknown_key(key, systems)}")
    found = tree
    for part in first["loc"]:  # not what pydantic calls the input: that may be converted already
        found = found[part]
    old = next((f" (the old name is {old})" for old, new in ALIASES.items() if new == key), "")
    raise ValueError(f"{source}: {key}: expected {_expected(first, cls)}, found {shown(found)}{old}")


def _expected(error: ErrorDetails, cls: type) -> str:
    """What a key must be, of pydantic's description of a mistake within ``cls``."""
    kind = error["type"]
    if kind == "value_error":  # of utils.config.schema
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"one of {', '.join(choices)}"
    if kind in ("greater_than_equal", "less_than_equal"):
        least, most = _range(cls, error["loc"])
        return f"at least {least}" if most is None else f"{least} to {most}"
    if kind == "tuple_type" and any(_sections_in(_field(cls, error["loc"]).annotation)):
        return "a list of sections"
    return EXPECTED.get(kind, kind.replace("_", " "))


def _range(cls: type, place: Sequence[str | int]) -> tuple[float, float | None]:
    """Limits of the field at ``place``."""
    metadata = _field(cls, place).metadata
    limits = [next((getattr(m, name) for m in metadata if hasattr(m, name)), None) for name in ("ge", "le")]
    return limits[0], limits[1]


def _field(cls: type, place: Sequence[str | int]) -> FieldInfo:
    """What pydantic knows of the field at ``place``."""
    for part in filter(lambda part: isinstance(part, str), place):
        field = cls.__pydantic_fields__[part]
        cls = next(_sections_in(field.annotation), cls)
    return field


def _sections_in(annotation: Any) -> Iterator[type]:
    """The classes of settings that a field of this type has, alone or in a list."""
    return filter(dataclasses.is_dataclass, (annotation, *typing.get_args(annotation)))


def _unknown_key(unknown: str, systems: Systems | None) -> str:
    """An unknown key with the known one that was probably meant: its namesake elsewhere, else the most similar one."""
    name = unknown if len(unknown) <= MAX_SHOWN else f"{unknown[:MAX_SHOWN]}..."
    sections = {entry.name: entry.type for entry in dataclasses.fields(Config) if entry.name != "sections"}
    known = list(sections := sections | dict(systems or {}))
    for section, cls in sections.items():
        if dataclasses.is_dataclass(cls):
            fields = dataclasses.fields(cls)
            known += [f"{section}.{entry.name}" for entry in fields]
            inner = [(entry.name, each) for entry in fields for each in _sections_in(entry.type)]
            known += [f"{section}.{name}.{entry.name}" for name, each in inner for entry in dataclasses.fields(each)]
    namesakes = [key for key in known if key.split(".")[-1] == name.split(".")[-1]]
    nearest = (namesakes or difflib.get_close_matches(name, known, n=1, cutoff=0.0))[0]
    return f"unknown key {name}; the nearest is {nearest}"
