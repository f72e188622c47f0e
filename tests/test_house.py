"""The measures of the house: what its plan promises in numbers, counted over the files that are tracked."""

import ast
import subprocess
from pathlib import Path

import pytest

from engine.optim import OPTIMIZERS, SCHEDULES
from modules.build import HEADS, SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("train", "test", "test_zeroshot", "test_retrieval", "probe", "extract_features", "predict", "app", "export")
ROOMS = ("clip", "commands", "datasets", "engine", "modules", "reports", "tools", "utils")
MOST_FILES, MOST_MODULES, LONGEST_SYSTEM = 12, 12, 150
TENSOR_NAMES = ("clip.", "head.", "visual.", "fusion_model.")
# What only the systems may ask a module to be.
OWN = ("System", "MoTE", "PlainCLIP", "ExpertTransformer", "TemporalTransformer", "MeanPooling")


def tracked() -> list[Path]:
    """Python files of the product."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    paths = [Path(line) for line in listed.stdout.splitlines()]
    return [path for path in paths if path.parts[0] not in ("tests", "benchmarks", "docs") and (ROOT / path).exists()]


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, however it does."""
    nodes = list(ast.walk(tree(path)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def strings(path: Path) -> list[str]:
    """Every string of a file that is no docstring."""
    nodes = list(ast.walk(tree(path)))
    texts = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
    ]


def test_no_folder_has_more_files_than_one_can_look_over():
    folders: dict[Path, list[str]] = {}
    for path in tracked():
        if path.name != "__init__.py":
            folders.setdefault(path.parent, []).append(path.name)
    assert {str(folder): files for folder, files in folders.items() if len(files) > MOST_FILES} == {}


def test_a_system_is_one_file_that_one_can_read():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in tracked() if "systems" in path.parts}
    assert {str(path): length for path, length in lengths.items() if length > LONGEST_SYSTEM} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_from_a_few_modules(command):
    found = {name for name in imported(Path(f"{command}.py")) if name.split(".")[0] in ROOMS}
    assert len(found) <= MOST_MODULES, sorted(found)


def test_utils_and_engine_know_no_tensor_s_name():
    found = {
        f"{path}: {text}"
        for path in tracked()
        if path.parts[0] in ("utils", "engine")
        for text in strings(path)
        if text.startswith(TENSOR_NAMES) or "spe_cls_feature" in text
    }
    assert found == set()


def test_the_engine_sees_nothing_of_the_modules_but_the_contract():
    found = {name for path in tracked() if path.parts[0] == "engine" for name in imported(path)}
    assert {name for name in found if name.split(".")[0] in ("modules", "clip")} == {"modules.systems.base"}


def test_modules_import_downwards():
    order = {
        "running": 0,
        "formats": 0,
        "objectives": 1,
        "heads": 1,
        "classes": 1,
        "systems": 2,
    }  # plain files of modules/ aside
    wrong = [
        f"{path} imports {node.module}"
        for path in tracked()
        if path.parts[0] == "modules" and len(path.parts) > 2
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("modules.")
        if order.get(node.module.split(".")[1], 0) > order[path.parts[1]]
    ]
    assert wrong == []


def test_no_list_of_names_closes_a_registry():
    names = {*HEADS, *SYSTEMS, *OPTIMIZERS, *SCHEDULES, "decord", "torchcodec", "pyav"}
    found = [
        f"{path}:{node.lineno}"
        for path in tracked()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] == "Literal"
        if names & {each.value for each in ast.walk(node.slice) if isinstance(each, ast.Constant)}
    ]
    assert found == []


def test_nobody_but_the_systems_asks_what_kind_of_model_it_is():
    found = [
        f"{path}:{node.lineno}"
        for path in tracked()
        if path.parent != Path("modules/systems")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
        if {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)} & set(OWN)
    ]
    assert found == []


def test_names_that_others_import_from_the_parts_of_datasets():
    from datasets import decode, features, pack

    assert {"pyav", "decord", "torchcodec"} <= decode.DECODERS.keys()
    assert callable(features.FeatureCache.open)
    assert callable(pack.ShardPack.open)
