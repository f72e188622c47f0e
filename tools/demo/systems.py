"""The demo's systems side by side: which rows scripts/run_demo.sh --systems trains and tests, and their page.

python -m tools.demo.systems --rows
python -m tools.demo.systems --page docs/results_systems.md
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import hardware
from engine.results import read_results
from modules.build import load_config
from tools.demo import search
from tools.demo.table import COLUMNS, Figures, read_figures
from utils.cli import run_main
from utils.files import no_file, write_text
from utils.text import render

PAGE = Path(__file__).with_name("systems.md.jinja")
CLOSE_SET, ZERO_SHOT = "close-set 4x3", "zero-shot mean"
DEMO = Path("configs/demo")
RECIPES = ("mote", "text4vis", "vificlip", "ost", "tvtsv2")
BY_PICTURES = 50.0  # percent of the videos, the motion or its reverse being a guess
FROZEN = "clip"  # the row of the pretrained model; names that start so are not trained
LONGEST = ("mote_1024", "tvtsv2")  # begun first, so that none of them is left alone at the end
SENTENCES = "network.class_text=configs/demo/descriptors.yaml"  # one sentence a class, in the place of its name


class Row(NamedTuple):
    """One model: how it is trained and tested."""

    system: str  # whose recipe it has, of configs/demo
    name: str  # of its run, and of its folder of results
    title: str
    overrides: str = ""  # of training and of tests
    zero_shot: str = ""  # of zero-shot tests, over those

    @property
    def is_frozen(self) -> bool:
        """Whether it is the pretrained model, which the script only tests."""
        return self.name.startswith(FROZEN)


class Group(NamedTuple):
    """Rows that belong into one table."""

    title: str
    about: str
    reference: str  # name of the row that the others are compared with
    rows: tuple[Row, ...]


def _text4vis(name: str, title: str, overrides: str = "", zero_shot: str = "") -> Row:
    return Row("text4vis", f"text4vis_{name}", title, overrides, zero_shot)


def _in_clip(name: str, title: str, setting: str) -> Row:
    """Without a head, so that what the frames exchange they exchange inside the tower."""
    return _text4vis(name, title, f"network.sim_header=None {setting}".strip())


def _classifier(name: str, title: str, value: str = "") -> Row:
    """It knows the classes of training alone: new ones are named to the tower and head that it trained."""
    return _text4vis(name, title, f"text4vis.classifier={value or name}", "text4vis.classifier=text")


FROZEN_NAMES = Row("mote", FROZEN, "frozen CLIP: mean over frames")
SHORT = "solver.epochs=5 solver.lr=3e-3 solver.lr_warmup_step=0.5"
MOTE_SHORT = Row("mote", "mote_short", "MoTE with Text4Vis's schedule", SHORT)
TRANSF = _text4vis("transf", "Text4Vis `Transf`: transformer over frames")
MEAN = _in_clip("none", "Text4Vis `None`: mean over frames", "")
# Another system is a row here, a file in configs/demo, and its zero-shot parts in a folder of that name.
GROUPS = (
    Group(
        "Systems",
        "Each system has its own templates and its own rule that fuses views; frozen CLIP has those of MoTE here.",
        FROZEN,
        (
            FROZEN_NAMES,
            Row("mote", "mote_1024", "MoTE"),
            MOTE_SHORT,
            TRANSF,
            MEAN,
        ),
    ),
    Group(
        "Inside CLIP",
        "Text4Vis without a head: what frames know of each other they know from inside the image tower.",
        MEAN.name,
        (
            MEAN,
            _in_clip("tsm", "`tsm`: channels of patches shifted", "network.tm=tsm"),
            _in_clip("tokenshift", "`tokenshift`: channels of the class token shifted", "network.tm=tokenshift"),
            _in_clip("tokent1d", "`tokent1d`: the class token convolved over time", "network.tm=tokent1d"),
            _in_clip("joint", "`joint_st`: attention over the patches of all frames", "network.joint_st=True"),
        ),
    ),
    Group(
        "Classifiers",
        "Text4Vis with `Transf`, trained towards another matrix. All but `text` know the classes of training alone; "
        "their zero-shot columns are those of the tower and the head that trained towards them, with new classes made "
        "from text (`text4vis.classifier=text`).",
        TRANSF.name,
        (
            TRANSF._replace(title="`text`: embeddings of the class names"),
            _classifier("random", "`random`"),
            _classifier("orthogonal", "`orthogonal`"),
            _classifier("lda", "`lda`: linear discriminant analysis of the training videos"),
            _classifier("linear", "`linear`: learned"),
            _classifier("file", "`file`: mean feature of the training videos", "file:exps/demo/class_means.npz"),
        ),
    ),
    Group(
        "Texts and both towers",
        "What a class is made of: its name, a sentence, or descriptors that transport matches with frames, the last "
        "two in the words of `configs/demo/descriptors.yaml`. ViFi-CLIP and OST train the text tower as well, and mix "
        "nothing over time. The last two rows, which no paper has, lay a temporal transformer, MoTE's without experts, "
        "between CLIP's frames and OST's descriptors.",
        FROZEN,
        (
            FROZEN_NAMES,
            Row("mote", "clip_sentences", "frozen CLIP with sentences", SENTENCES),
            Row("ost", "clip_descriptors", "frozen CLIP with descriptors: matched by transport"),
            MOTE_SHORT,
            Row("mote", "mote_short_sentences", "MoTE with sentences: that schedule", f"{SHORT} {SENTENCES}"),
            Row("vificlip", "vificlip", "ViFi-CLIP: both towers, names"),
            Row("ost", "ost", "OST: both towers, descriptors and transport"),
            Row("ost", "ost_transf", "OST with a transformer: over frames, both towers", "network.sim_header=Transf"),
            Row(
                "ost",
                "ost_transf_fixed",
                "OST with a transformer and a fixed text tower",
                "network.sim_header=Transf network.fix_text=True",
            ),
        ),
    ),
    Group(
        "Texts in the place of labels",
        "TVTSv2 is trained on captions and on stories that are told word by word, and on no label; its close-set "
        "columns are zero-shot, too, though all their objects and motions are in its texts.",
        FROZEN,
        (FROZEN_NAMES, Row("tvtsv2", "tvtsv2", "TVTSv2: captions and stories")),
    ),
)


def main(argv: list[str] | None = None) -> None:
    """Print the rows for the script, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--rows", action="store_true", help="print system|name|overrides|those of zero-shot")
    what.add_argument("--page", type=Path, help="Markdown page to write")
    parser.add_argument(
        "--runs", type=Path, default=Path("exps/demo/shapes/tiny_clip"), help="run folders (%(default)s)"
    )
    parser.add_argument("--results", type=Path, default=Path("exps/demo/results"), help="of the tests (%(default)s)")
    args = parser.parse_args(argv)
    if args.rows:
        rows = {row.name: row for group in GROUPS for row in group.rows}  # one that two tables show is run once
        in_turn = sorted(rows.values(), key=lambda row: row.name not in LONGEST)
        lines = ("|".join((row.system, row.name, row.overrides, row.zero_shot)) for row in in_turn)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return
    write_text(args.page, page(args.runs, args.results))
    sys.stdout.write(args.page.read_text())


def page(runs: Path, results: Path) -> str:
    """Markdown of all tables, with what they show.

    Args:
        runs: folder of the rows' run folders.
        results: folder of the rows' tests.

    Raises:
        FileNotFoundError, ValueError: a row is missing, or damaged.
    """
    figures = {row.name: read_figures(results / row.name) for group in GROUPS for row in group.rows}
    first = results / FROZEN
    close, zero_shot = (read_results(first / test / "results.json") for test in ("close_4x3", "zero_shot"))
    tables = []
    for group in GROUPS:
        lines = [
            (row.title, *_training(runs, row), *(f"{figures[row.name][c]:.1f}" for c in COLUMNS)) for row in group.rows
        ]
        tables.append((group.title, group.about, lines, findings(group, figures)))
    return render(
        PAGE,
        columns=COLUMNS,
        tables=tables,
        search_columns=search.COLUMNS,
        searches=search.search_rows(runs, results),
        recipes=[(name, load_config(DEMO / f"{name}.yaml")) for name in RECIPES],
        hardware=hardware(),
        precision=close.precision,
        close=(close.num_videos, standard_error(close.num_videos)),
        zero_shot=(zero_shot.num_videos, standard_error(zero_shot.num_videos)),
    )


def findings(group: Group, figures: dict[str, Figures]) -> list[str]:
    """What a table shows, in sentences: the highest figures, every row against the reference, and who knows no time."""
    titles = {row.name: row.title.partition(":")[0] for row in group.rows}
    best = [max(titles, key=lambda name: figures[name][column]) for column in (CLOSE_SET, ZERO_SHOT)]
    sentences = [
        f"Highest: {CLOSE_SET} {figures[best[0]][CLOSE_SET]:.1f} ({titles[best[0]]}), "
        f"{ZERO_SHOT} {figures[best[1]][ZERO_SHOT]:.1f} ({titles[best[1]]})."
    ]
    gains = []
    for name, title in titles.items():
        close, zero_shot = (figures[name][c] - figures[group.reference][c] for c in (CLOSE_SET, ZERO_SHOT))
        gains += [f"{title} {close:+.1f} and {zero_shot:+.1f}"] if name != group.reference else []
    sentences.append(f"Against {titles[group.reference]}, {CLOSE_SET} and {ZERO_SHOT}: {'; '.join(gains)}.")
    if timeless := [title for name, title in titles.items() if figures[name][CLOSE_SET] <= BY_PICTURES]:
        sentences.append(
            f"Within the half that needs no sense of time ({CLOSE_SET}): {', '.join(timeless)}. Whether more epochs "
            "would teach it to those that can learn it, this does not say."
        )
    return sentences


def standard_error(num_videos: int) -> float:
    """Of an accuracy over so many videos, in points: the most that it can be, which is that of 50 percent."""
    return 100 * math.sqrt(0.25 / num_videos)


def _training(runs: Path, row: Row) -> tuple[str, str]:
    """Epochs, and minutes of training, as the table has them."""
    if row.is_frozen:
        return "", ""
    config = load_config(runs / row.name / "config.yaml")
    # Several sources give a batch each in turn.
    sizes = [source.batch_size or config.data.batch_size for source in config.data.sources] or [config.data.batch_size]
    seconds = training_seconds(runs / row.name / "metrics.jsonl", sum(sizes) / len(sizes))
    return str(config.solver.epochs), f"{seconds / 60:.1f}"


def training_seconds(metrics: Path, batch_size: float) -> float:
    """Time of a run's training steps, from the speed that it reported; validation and pauses do not count.

    Args:
        batch_size: videos of a step, on average.

    Raises:
        FileNotFoundError: no such file.
    """
    if not metrics.is_file():
        raise FileNotFoundError(f"{metrics}: {no_file(metrics)}")
    seconds, before = 0.0, 0
    for line in metrics.read_text().splitlines():
        reported = json.loads(line)
        if "train/videos_per_s" in reported:
            seconds += (reported["step"] - before) * batch_size / reported["train/videos_per_s"]
            before = reported["step"]
    return seconds


if __name__ == "__main__":
    run_main(main)
