"""The shape of the code base: who may import whom, how long a function may be, and no dead setting."""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from modules.build import SETTINGS
from utils.config import Config

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "utils": {"utils"},
    "clip": {"clip", "utils"},
    "modules": {"clip", "modules", "utils"},
    "datasets": {"datasets", "utils"},
    "engine": {"engine", "modules", "utils"},  # of modules the contract alone, see tests/test_house.py
    "reports": {"reports", "engine", "datasets", "utils"},
    "commands": {"commands", "reports", "engine", "datasets", "modules", "clip", "utils"},
}
ENTRIES = ("train", "test", "test_zeroshot", "test_retrieval", "probe", "extract_features", "predict", "app", "export")
OURS = {*ROOMS, *ENTRIES, "tools", "tests", "benchmarks"}
# Parts of datasets/; each may import those before it.
PARTS_OF_DATASETS = (
    "shapes",
    "lists",
    "decode",
    "pack",
    "clips",
    "features",
    "read",
    "build",
    "sources",
    "prepare",
    "check",
)
LONGEST_FUNCTION = 60  # lines
MOST_FILES = 12  # a folder of datasets/, __init__.py not counted


def product_files() -> list[Path]:
    """Every Python file outside tests."""
    files = [ROOT / f"{name}.py" for name in ENTRIES]
    for room in (*ROOMS, "tools", "benchmarks"):
        files += sorted((ROOT / room).rglob("*.py"))
    return files


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import, also of those within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module.split(".")[0]


def test_every_room_has_files():
    assert all(len(list((ROOT / room).glob("*.py"))) > 1 for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room):
    offences = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, name in imported(parse(path))
        if name in OURS - ROOMS[room]
    ]
    assert offences == []


@pytest.mark.parametrize("part", PARTS_OF_DATASETS)
def test_a_part_of_datasets_imports_only_those_before_it(part):
    folder = ROOT / "datasets" / part
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    allowed = PARTS_OF_DATASETS[: PARTS_OF_DATASETS.index(part) + 1]
    found = [
        (path.relative_to(ROOT), node.lineno, node.module.split(".")[1])
        for path in paths
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("datasets.")
    ]
    assert [place for place in found if place[2] not in allowed] == []


def test_datasets_has_no_other_parts_and_no_full_folder():
    folders = [path for path in (ROOT / "datasets").iterdir() if list(path.glob("*.py"))]
    assert {path.name for path in folders} | {"read", "build"} == set(PARTS_OF_DATASETS)
    assert max(len(list(path.glob("*.py"))) - 1 for path in folders) <= MOST_FILES


def test_nothing_imports_from_the_tests():
    assert [str(path) for path in product_files() if "tests" in {name for _, name in imported(parse(path))}] == []


def test_no_function_is_longer_than_a_screen():
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in product_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_only_two_files_call_torch_distributed():
    users = {
        str(path.relative_to(ROOT))
        for path in product_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute)
        and ast.unparse(node).startswith(("import torch.distributed", "from torch.distributed", "torch.distributed."))
    }
    assert users <= {"utils/distributed.py", "engine/sharding.py"}


def test_nothing_prints():
    prints = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in product_files()
        if path.parent.name != "benchmarks"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def config_fields(cls: type, section: str = "") -> Iterator[tuple[str, str]]:
    """(section, field) of a configuration class and of the classes in it."""
    hints = typing.get_type_hints(cls)
    hints.pop("sections", None)
    for name, hint in hints.items():
        classes = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
        if classes:
            yield from config_fields(classes[0], name)
        else:
            yield section, name


class Uses(ast.NodeVisitor):
    """Which settings a file reads: ``section.field``, ``vars(section)``, ``getattr(section, f"..._field")``."""

    def __init__(self):
        self.fields: set[str] = set()
        self.suffixes: set[str] = set()
        self.whole_sections: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if owner in {"config", "settings", *SETTINGS, *(section for section, _ in config_fields(Config))}:
            self.fields.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "id", "")
        if name == "vars":
            self.whole_sections.add(ast.unparse(node.args[0]).split(".")[-1])
        if name == "getattr" and isinstance(node.args[1], ast.JoinedStr):
            last = node.args[1].values[-1]
            self.suffixes |= {last.value} if isinstance(last, ast.Constant) else set()
        self.generic_visit(node)


def test_every_setting_is_used():
    uses = Uses()
    for path in product_files():
        uses.visit(parse(path))
    fields = [*config_fields(Config), *((name, key) for name, cls in SETTINGS.items() for _, key in config_fields(cls))]
    dead = [
        f"{section}.{name}"
        for section, name in fields
        if name not in uses.fields and section not in uses.whole_sections and not name.endswith(tuple(uses.suffixes))
    ]
    assert dead == []
