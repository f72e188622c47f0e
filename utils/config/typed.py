"""A tree of keys as a typed configuration; the first mistake is an error in our words."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from utils.config.old_keys import ALIASES
from utils.config.schema import Config, Settings
from utils.text import MAX_SHOWN, shown

Systems = Mapping[str, type]  # name of a system -> class of its settings

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


def check_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Refuse a name that a registry does not have.

    Raises:
        ValueError: names the key and what is known.
    """
    if value not in choices:
        raise ValueError(f"{key}: expected one of {', '.join(choices)}, found {shown(value)}")


def typed(tree: dict, source: str, systems: Systems | None) -> Config:
    """A tree as a configuration; with ``systems`` also the sections that are not of ``Config``.

    Raises:
        ValueError: names the key, and what was expected.
    """
    ours = {entry.name for entry in dataclasses.fields(Config)} - {"sections"}
    others = {name: tree.pop(name) for name in list(tree) if name not in ours}
    for name, part in others.items():
        stays_unread = systems is None and isinstance(part, dict)
        if not stays_unread and name not in (systems or {}):
            raise ValueError(f"{source}: {_unknown_key(name, systems)}")
    config = section_of(Config, tree, "", source, systems)
    if systems is None:
        return config
    check_choice(f"{source}: network.system", config.network.system, systems)
    others.setdefault(config.network.system, {})
    sections = {name: section_of(systems[name], part, name, source, systems) for name, part in others.items()}
    return dataclasses.replace(config, sections=sections)


def section_of(cls: type[Settings], tree: Any, name: str, source: str, systems: Systems | None) -> Settings:
    """A tree as settings of the class.

    Raises:
        ValueError: the first mistake, in our words.
    """
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
