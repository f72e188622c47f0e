"""Files of descriptors: what a class looks like (static), how it goes (steps), and the class in one sentence.

Ours is YAML, by class name: ``classes: {NAME: {static: [...], steps: [...], sentence: ...}}``. OST's is a pair of JSON
files by class number, ``{"0": [...], "1": [...]}``, one for each set, which hold no names.
"""

import difflib
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.config.yaml_text import Limits, read_yaml
from utils.files import no_file, read_json
from utils.text import has_control_characters, shown

logger = logging.getLogger(__name__)

SETS = ("static", "steps")  # in the order of everything that has a set axis; OST calls them spatio and temporal
SENTENCE = "sentence"
LIMITS = Limits("a file of descriptors", max_bytes=2**24, max_values=500_000)
MOST_NAMED = 5  # classes that an error lists

Phrases = list[list[list[str]]]  # [S][K][N]


def read_descriptors(paths: str | Path | Sequence[str | Path], class_names: list[str], num: int = 0) -> Phrases:
    """N phrases for each of S = 2 sets and K classes.

    Args:
        paths: one YAML file, or two JSON files: static (spatio) first, steps (temporal) second.
        class_names: K of them. A YAML file may describe more classes, in any order.
        num: N; 0: as many as the first class has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: one line with the file and the class: a class is missing, has another number of phrases, or one that
            is no line of text; JSON files of another number of classes.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    kinds = [file.suffix.lower() for file in files]
    if kinds in ([".yaml"], [".yml"]):
        entries = _entries_by_name(files[0], class_names)
        sources = [str(files[0])] * len(SETS)
        found = [[entry.get(part) for entry in entries] for part in SETS]
    elif kinds == [".json", ".json"]:
        sources = [str(file) for file in files]
        found = [_lists_by_number(file, class_names) for file in files]
        logger.warning(
            "%s hold no class names, so it cannot be checked whose descriptors they are: the first class, %s, takes %s",
            " and ".join(sources), shown(class_names[0]), shown(found[0][0]),
        )  # fmt: skip
    else:
        raise ValueError(
            "descriptors: expected one .yaml file, or two .json files (static, then steps), found "
            f"{shown([str(file) for file in files])}"
        )
    for part, source, of_classes in zip(SETS, sources, found, strict=True):
        for name, phrases in zip(class_names, of_classes, strict=True):
            num = _check_phrases(phrases, num, f"{source}: {part} of class {shown(name)}")
        _warn_of_repeats(of_classes, class_names, f"{source}: {part}")
    return found


def sentences_of(path: str | Path, class_names: list[str]) -> list[str]:
    """The sentence of each class, which may stand in a template in the place of the bare name.

    Raises:
        FileNotFoundError, ValueError: see ``read_descriptors``.
    """
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{path}: expected a .yaml file of descriptors, others have no sentences")
    sentences = [entry.get(SENTENCE) for entry in _entries_by_name(Path(path), class_names)]
    for name, sentence in zip(class_names, sentences, strict=True):
        _check_text(sentence, f"{path}: {SENTENCE} of class {shown(name)}")
    _warn_of_repeats([[sentence] for sentence in sentences], class_names, f"{path}: {SENTENCE}")
    return sentences


def fingerprint(texts: Any) -> str:
    """16 hexadecimal digits that differ where any text, number of texts or order does; for lists in lists of texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def read_entries(path: Path) -> dict[str, Any]:
    """What a YAML file says of all its classes, by name, not checked.

    Raises:
        FileNotFoundError, ValueError: no such file, or one of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"descriptors {path}: {no_file(path)}")
    with path.open("rb") as file:
        tree = read_yaml(file.read(LIMITS.max_bytes + 1), f"descriptors {path}", LIMITS)
    if not isinstance(tree, dict) or list(tree) != ["classes"] or not isinstance(tree["classes"], dict):
        raise ValueError(f"{path}: expected one key 'classes', a mapping of class names, found {shown(tree)}")
    return {" ".join(name.split()): entry for name, entry in tree["classes"].items()}


def check_entry(entry: Any, num: int, where: str) -> None:
    """See that a class of a YAML file has its two sets of ``num`` texts and its sentence; ``where`` names it.

    Raises:
        ValueError: one line: what it has not.
    """
    _check_keys(entry, where)
    for part in SETS:
        _check_phrases(entry.get(part), num, f"{where}: {part}")
    _check_text(entry.get(SENTENCE), f"{where}: {SENTENCE}")


def _entries_by_name(path: Path, class_names: list[str]) -> list[dict[str, Any]]:
    """What a YAML file says of each class."""
    described = read_entries(path)
    if missing := [name for name in class_names if name not in described]:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        close = next((near[0] for name in missing if (near := _near(name, described))), None)
        hint = f"; it has {shown(close)}" if close else ""
        raise ValueError(
            f"{path}: describes {len(described)} classes, but not {', '.join(map(shown, missing[:MOST_NAMED]))}{more} "
            f"of the {len(class_names)} of the labels{hint}"
        )
    entries = [described[name] for name in class_names]
    for name, entry in zip(class_names, entries, strict=True):
        _check_keys(entry, f"{path}: class {shown(name)}")
    return entries


def _check_keys(entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or (others := [key for key in entry if key not in (*SETS, SENTENCE)]):
        found = shown(others[0]) if isinstance(entry, dict) else shown(entry)
        raise ValueError(f"{where}: expected {', '.join((*SETS, SENTENCE))}, found {found}")


def _near(name: str, described: dict[str, Any]) -> list[str]:
    """A name that was perhaps meant: the same but for case, spaces and underscores, or nearly."""
    plain = {"".join(filter(str.isalnum, other.casefold())): other for other in described}
    near = difflib.get_close_matches("".join(filter(str.isalnum, name.casefold())), plain, n=1, cutoff=0.8)
    return [plain[other] for other in near]


def _lists_by_number(path: Path, class_names: list[str]) -> list[Any]:
    """What a JSON file has for each class."""
    if not path.is_file():
        raise FileNotFoundError(f"descriptors {path}: {no_file(path)}")
    tree = read_json(path, "a file of descriptors")
    if len(tree) != len(class_names):
        raise ValueError(f"{path}: describes {len(tree)} classes, the label file has {len(class_names)}")
    for label, key in enumerate(tree):
        if key != str(label):
            raise ValueError(
                f"{path}: expected the keys '0' to '{len(tree) - 1}' in this order, found {shown(key)} in the place of "
                f"'{label}'"
            )
    return list(tree.values())


def _check_phrases(phrases: Any, num: int, where: str) -> int:
    """See that a class has its ``num`` phrases (0: any number but 0), which is returned."""
    if not isinstance(phrases, list) or len(phrases) != (num or len(phrases)) or not phrases:
        found = f"{len(phrases)}" if isinstance(phrases, list) else shown(phrases)
        raise ValueError(f"{where}: expected a list of {num or 'at least 1'} texts, as all classes have, found {found}")
    for place, phrase in enumerate(phrases, start=1):
        _check_text(phrase, f"{where}, number {place}")
    return len(phrases)


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str) or not text.strip() or has_control_characters(text):
        raise ValueError(f"{where}: expected a line of text, found {shown(text)}")


def _warn_of_repeats(of_classes: list[list[str]], class_names: list[str], where: str) -> None:
    """Phrases that cannot tell two classes apart, or count twice for one; some published files have them."""
    first: dict[str, str] = {}
    repeats: dict[str, list[str]] = {"in another class": [], "within a class": []}
    for name, phrases in zip(class_names, of_classes, strict=True):
        for phrase in phrases:
            other = first.setdefault(" ".join(phrase.casefold().split()), name)
            if other != name:
                repeats["in another class"].append(f"{shown(phrase)} of {shown(other)} and {shown(name)}")
        if twice := [p for place, p in enumerate(phrases) if p in phrases[:place]]:
            repeats["within a class"].append(f"{shown(twice[0])} of {shown(name)}")
    for how, found in repeats.items():
        if found:
            logger.warning("%s: %d texts repeat %s, the first is %s", where, len(found), how, found[0])
