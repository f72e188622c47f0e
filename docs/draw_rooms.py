"""Draw docs/images/rooms.svg, the rooms of the code and who imports whom: python docs/draw_rooms.py

Places are fixed, numbers are counted: an import is one module that one tracked file of a room imports from another
room. An import that the picture has no lane for is an error, so a new way between rooms is somebody's decision.
"""

import ast
import subprocess
from collections import Counter
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, HEIGHT = 1080, 872
ENTRIES = "entries"  # the scripts at the top, and tools/
ELSEWHERE = ("tests", "benchmarks", "docs")
INK, SOFT = "#22303c", "#5b6b78"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


class Room(NamedTuple):
    """A box of the picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int
    fill: str
    text: str


class Part(NamedTuple):
    """A box in a room: a folder whose files are listed, or what it is for in words."""

    left: int
    top: int
    width: int
    text: str = ""


ROOMS = {
    ENTRIES: Room(24, 52, 1056, 134, "#f6f1e7", ""),
    "commands": Room(200, 196, 990, 254, "#e7eef8", "what several commands share: arguments, weights, a test, a start"),
    "reports": Room(148, 316, 500, 372, "#f8ebee", "what people look at"),
    "engine": Room(108, 418, 570, 474, "#fbf0e0", "the training loop, the one pass, protocols"),
    "modules": Room(68, 520, 630, 678, "#e8f4ec", "systems and their parts; registries in build.py"),
    "clip": Room(24, 724, 690, 780, "#eaf3f7", "towers: frames → features, texts → features; name → towers"),
    "datasets": Room(740, 316, 1056, 780, "#f0ecf8", "from a list to batches"),
    "utils": Room(24, 810, 1056, 850, "#e6e8ea", "the ground, which knows no model; ▾ counts a room's imports of it"),
}  # fmt: skip
# Importer and imported -> x of the arrow. The scripts reach down on the left, the commands on the right.
LANES = {
    (ENTRIES, "clip"): 46, (ENTRIES, "modules"): 88, (ENTRIES, "engine"): 128, (ENTRIES, "reports"): 170,
    (ENTRIES, "commands"): 595, (ENTRIES, "datasets"): 1023,
    ("commands", "reports"): 465, ("commands", "engine"): 535, ("commands", "modules"): 600, ("commands", "clip"): 660,
    ("commands", "datasets"): 898,
    ("reports", "engine"): 324, ("engine", "modules"): 324, ("modules", "clip"): 324,
}  # fmt: skip
PARTS = {
    "modules/systems": Part(82, 562, 336),
    "modules/formats": Part(428, 562, 188),
    "modules/heads": Part(82, 618, 188),
    "modules/classes": Part(280, 618, 158),
    "modules/objectives": Part(448, 618, 168),
    "datasets/check": Part(754, 374, 140, "what is wrong"),
    "datasets/prepare": Part(902, 374, 140, "official → lists"),
    "datasets/sources": Part(754, 438, 140, "texts, in turn"),
    "datasets/build.py": Part(902, 438, 140, "settings → loaders"),
    "datasets/read.py": Part(754, 502, 140, "settings → lists"),
    "datasets/features": Part(902, 502, 140, "cached features"),
    "datasets/clips": Part(754, 566, 140, "frames, crops, presets"),
    "datasets/pack": Part(902, 566, 140, "tar shards"),
    "datasets/decode": Part(754, 630, 140, "file → frames"),
    "datasets/lists": Part(902, 630, 140, "videos, labels, texts"),
    "datasets/shapes": Part(754, 694, 288, "the built-in set; imports none of these"),
}


def tracked() -> list[Path]:
    """Python files of the product, relative to the root."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [Path(line) for line in listed.stdout.splitlines()]
    return [path for path in paths if path.parts[0] not in ELSEWHERE and (ROOT / path).is_file()]


def room_of(path: Path) -> str:
    """The room of a file."""
    return path.parts[0] if path.parts[0] in ROOMS else ENTRIES


def count_imports(paths: list[Path]) -> Counter[tuple[str, str]]:
    """(importer, imported) -> number of modules, summed over files."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in paths:
        nodes = list(ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        rooms = [module.split(".")[0] for module in modules]
        counts.update((room_of(path), room) for room in rooms if room in ROOMS and room != room_of(path))
    return counts


def text(x: float, y: float, content: str, size: int = 13, anchor: str = "start", **style: str) -> str:
    """A line of text whose baseline is at y."""
    looks = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in ({"fill": INK} | style).items())
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{looks}>{escape(content)}</text>'


def titled(x: float, y: float, name: str, content: str) -> str:
    """A name and, after it in whatever font, what it is."""
    said = f'<tspan dx="9" font-size="13" font-weight="400" fill="{SOFT}">{escape(content)}</tspan>'
    return f'<text x="{x:g}" y="{y:g}" font-size="16" font-weight="700" fill="{INK}">{escape(name)}{said}</text>'


def box(left: float, top: float, width: float, height: float, fill: str, radius: int = 8, line: str = "#b9c2ca") -> str:
    """A rectangle with round corners."""
    place = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="{radius}"'
    return f'<rect {place} fill="{fill}" stroke="{line}"/>'


def arrow(x: int, top: int, bottom: int, count: int) -> list[str]:
    """A vertical arrow; its width and its number tell how many imports it stands for."""
    width = 1.5 + 0.3 * count
    head, neck = 4.5 + 0.75 * width, 8 + width
    points = f"{x - head:g},{bottom - neck:g} {x + head:g},{bottom - neck:g} {x},{bottom - 1}"
    half = 9 + 3.5 * len(str(count))
    return [
        f'<path d="M{x} {top}V{bottom - neck:g}" stroke="#7d8d9a" stroke-width="{width:g}"/>',
        f'<polygon points="{points}" fill="#7d8d9a"/>',
        box(x - half, top + 6, 2 * half, 19, "#ffffff", 9),
        text(x, top + 20, str(count), 12, "middle", font_weight="600"),
    ]


def draw_room(name: str, room: Room, of_utils: int) -> list[str]:
    """A room with its name, what it is for, and the number of its imports of the ground."""
    middle = 27 if name in ("modules", "datasets", "utils") else (room.bottom - room.top) / 2 + 5
    shapes = [box(room.left, room.top, room.right - room.left, room.bottom - room.top, room.fill, 10, "#8f9ca8")]
    if name != ENTRIES:
        shapes.append(titled(room.left + 14, room.top + middle, f"{name}/", room.text))
    if of_utils:
        shapes.append(text(room.right - 10, room.top + 17, f"{of_utils} ▾", 11, "end", fill=SOFT))
    return shapes


def draw_part(name: str, part: Part, paths: list[Path]) -> list[str]:
    """A part of a room with its files, or with what it is for."""
    files = [path.stem for path in paths if str(path.parent) == name and path.stem != "__init__"]
    return [
        box(part.left, part.top, part.width, 46, "#ffffff", 6),
        text(part.left + 10, part.top + 19, name.split("/")[1], 13, font_weight="600"),
        text(part.left + 10, part.top + 36, part.text or ", ".join(files), 11, fill=SOFT),
    ]


def draw_entries(paths: list[Path]) -> list[str]:
    """The names of the scripts and tools."""
    room = ROOMS[ENTRIES]
    scripts = [f"{path.stem}.py" for path in paths if len(path.parts) == 1]
    tools = [path.stem for path in paths if path.parts[0] == "tools" and path.stem != "__init__"]
    half = (len(tools) + 1) // 2
    return [
        titled(room.left + 14, room.top + 26, "commands", ", ".join(scripts)),
        titled(room.left + 14, room.top + 51, "tools/", ", ".join(tools[:half]) + ","),
        text(room.left + 74, room.top + 71, ", ".join(tools[half:]), 13, fill=SOFT),
    ]


def draw() -> str:
    """The picture as SVG.

    Raises:
        ValueError: a room imports another one that it has no lane to.
    """
    paths = tracked()
    counts = count_imports(paths)
    if new := [pair for pair in counts if pair not in LANES and pair[1] != "utils"]:
        raise ValueError(f"rooms that import each other in a new way (see LANES): {new}")
    shapes = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(24, 36, "The rooms", 20, font_weight="700"),
        text(1056, 36, "Arrows point at what a room imports; number and width say how much", 13, "end", fill=SOFT),
    ]  # fmt: skip
    for name, room in ROOMS.items():
        shapes += draw_room(name, room, counts[name, "utils"])
    shapes += draw_entries(paths)
    for name, part in PARTS.items():
        shapes += draw_part(name, part, paths)
    shapes.append(text(754, 764, "each imports those below it", 11, font_style="italic", fill=SOFT))
    for (source, target), x in LANES.items():
        if counts[source, target]:
            shapes += arrow(x, ROOMS[source].bottom, ROOMS[target].top, counts[source, target])
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    title = "<title>The rooms of the code and who imports whom</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}">'
    return "\n".join([head, title, *shapes, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
