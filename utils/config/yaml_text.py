"""YAML text to plain values, bounded: text of a stranger costs neither time nor memory, and nothing is read by half.

Read are the values that mean the same in every version of YAML: a number like 017, 0x1F, 1:30 or 1_000 and a date are
text, which a number's key refuses. Tags (``!!set``) are refused.
"""

import re
from typing import Any, ClassVar, NamedTuple

import yaml

from utils.text import shown

MAX_BYTES = 2**20
MAX_DEPTH = 20  # of lists and mappings within each other
MAX_VALUES = 10_000  # an alias counts as all that it stands for, a long text as one value for every LONG characters
LONG = 64


class Limits(NamedTuple):
    """What YAML of one kind may have at most."""

    kind: str
    max_bytes: int
    max_values: int


CONFIGURATION = Limits("a configuration", MAX_BYTES, MAX_VALUES)
MERGE = "tag:yaml.org,2002:merge"
TEXT = "tag:yaml.org,2002:str"


class Refused(yaml.MarkedYAMLError):
    """YAML, but not for us."""

    def __init__(self, problem: str, mark: yaml.Mark):
        super().__init__(problem=problem, problem_mark=mark)


class PlainLoader(yaml.SafeLoader):
    """A safe loader that counts what it reads."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # of YAML's, those below

    def __init__(self, text: str | bytes, limits: Limits = CONFIGURATION):
        super().__init__(text)
        self._limits = limits
        self._depth = self._num_values = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        mark, before = event.start_mark, self._num_values
        if getattr(event, "tag", None):
            raise Refused(f"tags are not allowed, found {shown(event.tag)}", mark)
        if self._depth == MAX_DEPTH:
            raise Refused(f"more than {MAX_DEPTH} lists and mappings within each other", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self._num_values += 1 + (len(node.value) // LONG if isinstance(node, yaml.ScalarNode) else 0)
            self._sizes[node] = self._num_values - before
        elif node in self._sizes:
            self._num_values += self._sizes[node]
        else:
            raise Refused(f"the alias {shown(event.anchor)} stands within what it names", mark)
        if self._num_values > self._limits.max_values:
            raise Refused(
                f"too much for {self._limits.kind}: more than {self._limits.max_values} values, with those that "
                "aliases stand for",
                mark,
            )
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in (TEXT, MERGE):
                found = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                raise Refused(f"expected a name as key, found {found}", key.start_mark)
            if first := lines.get(key.value):
                raise Refused(f"the key {shown(key.value)} is given twice, first in line {first}", key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


for tag, pattern, first in (
    ("bool", "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
    ("int", "[-+]?(?:0|[1-9][0-9]{0,18})", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)", "-+.0123456789"),
    ("float", r"\.(?:nan|NaN|NAN)", "."),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), list(first))


def read_yaml(text: str | bytes, source: str, limits: Limits = CONFIGURATION) -> Any:
    """The value of YAML text (bytes: UTF-8, or UTF-16 with a byte-order mark).

    Raises:
        ValueError: not YAML, too large, too deep, or with a key twice; ``source`` and the line are named.
    """
    if len(text) > limits.max_bytes:
        raise ValueError(f"{source}: larger than {limits.max_bytes} bytes, the most that {limits.kind} may have")
    try:
        loader = PlainLoader(text, limits)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line = before.count(b"\n" if isinstance(text, bytes) else "\n") + 1
        raise ValueError(f"{source}:{line}: not YAML: {error.reason}, found {shown(error.character)}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        kind = "" if isinstance(error, Refused) else "not YAML: "
        reason = " ".join(filter(None, [error.context, error.problem]))
        raise ValueError(f"{source}:{mark.line + 1}: {kind}{' '.join(reason.split())}") from None
