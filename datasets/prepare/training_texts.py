"""Lists of the sets that videos and texts are trained on together: WebVid's captions, YT-Temporal's videos.

Both come in a table for training and one for validation; a file is of the part that its name says. Videos of a part
may lie in a folder of its name below the videos, where the list's paths then start from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from datasets.lists.captions import list_text
from datasets.lists.tables import find_table, read_table, read_text, table_of
from datasets.lists.video_files import VideoFiles
from datasets.prepare.matching import PART_FOLDERS
from datasets.prepare.transcripts import COLUMN, annotations_of
from utils.files import write_text
from utils.text import shown

PARTS = ("train", "val")
OFFICIAL_COLUMNS = ("videoid", "page_dir", "name")


class WantedVideo(NamedTuple):
    """A video that a list wants, with a text or none."""

    path: str  # of the video, from the folder of its part
    texts: tuple[str, ...]  # that stand behind it


def webvid(path: Path) -> list[WantedVideo]:
    """Captions of WebVid: ``videoid,page_dir,name`` (official), or caption TAB path below a header (TVTSv2's)."""
    text = read_text(path)
    if table := find_table(path, text, OFFICIAL_COLUMNS):
        rows = [(f"{row['page_dir']}/{row['videoid']}.mp4", row["name"]) for row in table.rows]
    else:
        table = table_of(path, text, ["caption", "path"], "\t", header=1)
        rows = [(f"{row['path']}.mp4", row["caption"]) for row in table.rows]
    for line, (name, caption) in zip(table.lines, rows, strict=True):
        if not caption.strip() or name in ("/.mp4", ".mp4"):
            raise ValueError(f"{path}:{line}: expected a caption and a video, found {shown((caption, name))}")
    captions: dict[str, list[str]] = {}
    for name, caption in rows:
        captions.setdefault(name, []).append(caption)
    return [WantedVideo(name, (caption,)) for name, found in captions.items() for caption in dict.fromkeys(found)]


def yttemporal(path: Path) -> list[WantedVideo]:
    """Videos of YT-Temporal: a column ``Name`` of paths ``SUBSET/data/ID.mp4``."""
    return [WantedVideo(row[COLUMN], ()) for row in read_table(path, (COLUMN,)).rows]


class TrainingSet(NamedTuple):
    """How a set's files are read."""

    read: Callable[[Path], list[WantedVideo]]
    suffix: str  # of its lists
    expected: str  # files, for errors
    has_annotations: bool  # beside each video, see ``datasets.prepare.transcripts``


TRAINING_SETS = {
    "webvid": TrainingSet(webvid, "tsv", "webvid_train.tsv, webvid_val.tsv or results_2M_train.csv, ...", False),
    "yttemporal": TrainingSet(yttemporal, "txt", "yttemporal_train.csv, yttemporal_val.csv", True),
}


def prepare_training(name: str, videos: Path, annotations: Path, out: Path) -> dict[str, Any]:
    """Write the lists of one of ``TRAINING_SETS``, of the videos that are there.

    Raises:
        FileNotFoundError, ValueError: videos or tables are missing or not as expected (FILE:LINE); no video is there.
    """
    kind, files = TRAINING_SETS[name], VideoFiles(videos)
    tables = sorted(annotations.rglob("*")) if annotations.is_dir() else [annotations]
    tables = [path for path in tables if path.suffix in (".csv", ".tsv") and path.is_file()]
    tables = [path for path in tables if annotations == path or name in path.name.lower() or "results_" in path.name]
    if not tables:
        raise FileNotFoundError(f"--annotations {annotations}: expected {kind.expected}")
    wanted = {part: [line for path in tables if _part_of(path) == part for line in kind.read(path)] for part in PARTS}
    wanted = {part: list(dict.fromkeys(lines)) for part, lines in wanted.items() if lines}
    if not wanted:
        raise ValueError(f"{tables[0]}: no videos, expected rows below a header")
    out.mkdir(parents=True, exist_ok=True)
    lists = {f"{part}.{kind.suffix}": _write(out, part, kind, lines, files) for part, lines in wanted.items()}
    if not any(entry["num_videos"] for entry in lists.values()):
        found = files.paths[0] if files.paths else "no video files"
        example = next(iter(wanted.values()))[0].path
        raise ValueError(f"{videos}: no video of {name} is here; expected {example}, found {found}")
    return {"dataset": name, "videos": str(videos), "num_files": len(files), "lists": lists}


def _part_of(path: Path) -> str:
    return "val" if "val" in path.stem.lower() else "train"


def _write(out: Path, part: str, kind: TrainingSet, wanted: list[WantedVideo], files: VideoFiles) -> dict[str, Any]:
    """Write one list, and say what is in it."""
    there = set(files.paths)
    folders = ("", *PART_FOLDERS[part])
    folder = max(folders, key=lambda folder: sum(str(Path(folder, line.path)) in there for line in wanted))
    missing, lines = [], []
    for line in wanted:
        has_texts = not kind.has_annotations or (files.root / folder / annotations_of(line.path)).is_file()
        is_there = str(Path(folder, line.path)) in there and has_texts
        (lines if is_there else missing).append(line)
    if lines:
        write_text(out / f"{part}.{kind.suffix}", list_text([(line.path, *line.texts) for line in lines]))
    return {
        "root": str(files.root / folder),
        "num_videos": len({line.path for line in lines}),
        "num_lines": len(lines),
        "num_missing": len({line.path for line in missing}),
        "missing": list(dict.fromkeys(line.path for line in missing)),
    }


def training_summary(report: dict[str, Any], path: Path) -> str:
    """The report in a few lines; ``path`` is where the whole of it is."""
    lines = [f"{report['dataset']}: {report['num_files']:,} video files below {report['videos']}"]
    for name, entry in report["lists"].items():
        few = ", ".join(entry["missing"][:3])
        missing = f", {entry['num_missing']:,} missing ({few}{', ...' * (entry['num_missing'] > 3)})" if few else ""
        lines.append(f"{name}: {entry['num_videos']:,} videos{missing}; paths start from {entry['root']}")
    return "\n".join([*lines, f"details: {path}"]) + "\n"
