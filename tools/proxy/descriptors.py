"""Descriptors and sentences of the proxy world's classes: python -m tools.proxy.descriptors --out FILE.yaml

Motions are described in the words of the demo's descriptors (configs/demo/descriptors.yaml), with another object; what
names no motion has descriptors of its look and place.
"""

import argparse
import re
from pathlib import Path

import yaml

from datasets.shapes.proxy.world import ANY, COLOURS, LABEL_SETS, OBJECTS, SCENES, ProxyClass, classes_of
from datasets.shapes.world import MOTIONS, with_article
from utils.cli import run_main
from utils.files import write_text

WORDS = Path(__file__).resolve().parents[2] / "configs" / "demo" / "descriptors.yaml"
Entry = dict[str, list[str] | str]


def main(argv: list[str] | None = None) -> None:
    """Write those of all label sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="YAML file to write")
    args = parser.parse_args(argv)
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))["classes"]
    classes = {each.name: described(each, words) for label_set in LABEL_SETS for each in classes_of(label_set)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, yaml.safe_dump({"classes": classes}, sort_keys=False, width=200))


def described(each: ProxyClass, words: dict[str, Entry]) -> Entry:
    """Four static descriptors, four steps and a sentence of one class.

    Args:
        words: of the demo's classes, by name.
    """
    noun = OBJECTS[each.object_id] if each.colour_id == ANY else f"{COLOURS[each.colour_id]} {OBJECTS[each.object_id]}"
    place = "" if each.scene_id == ANY else f" {SCENES[each.scene_id]}"
    if each.motion_id == ANY:
        return _of_look(with_article(noun), place or " somewhere")
    motion = MOTIONS[each.motion_id].name
    name, entry = next((name, entry) for name, entry in words.items() if name.endswith(f" {motion}"))
    other = name.removesuffix(f" {motion}").partition(" ")[2]  # without its article
    return {
        "static": [_renamed(text, other, noun) + place for text in entry["static"]],
        "steps": [_renamed(text, other, noun) + place for text in entry["steps"]],
        "sentence": _renamed(entry["sentence"], other, noun),
    }


def _of_look(name: str, place: str) -> Entry:
    """Of a class that may move in any way."""
    static = [f"a photo of {name}{place}", f"{name} seen{place}", f"something{place} that is {name}", f"{name}{place}"]
    steps = [f"{name}{place} {when}" for when in ("at the beginning", "a little later", "in motion", "until the end")]
    return {"static": static, "steps": steps, "sentence": f"{name[0].upper()}{name[1:]} moves{place} in some way."}


def _renamed(text: str, other: str, noun: str) -> str:
    """A text about another object, with its article or without, about this one."""

    def name(match: re.Match) -> str:
        ours = with_article(noun) if match[1] else noun
        return f"{ours[0].upper()}{ours[1:]}" if (match[1] or "").istitle() else ours

    return re.sub(rf"\b(?:(an?|An?) )?{other}\b", name, text)


if __name__ == "__main__":
    run_main(main)
