"""The rows of the proxy world's table, and what scripts/run_proxy.sh does for each of them.

    python -m tools.proxy.rows --rows short --seeds 3 --clips "0 1" --half dev

prints a line for each run: row|CLIP|seed|configuration|run folder|folder of tests|settings. A row of the pretrained
model has no run folder. Every row is trained with the same seeds; all rows of the first seed come first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from modules.build import PLAIN_CLIP, load_config
from utils.cli import count, run_main
from utils.run_folder import AVERAGE_CHECKPOINT, CHECKPOINT, run_folder

CONFIGS = Path("configs/proxy")
ROOT = Path("exps/proxy")
DESCRIPTORS = ROOT / "descriptors.yaml"
FIRST_SEED = 1024
SETS = ("objects", "scenes", "colours", "styles", "motions")  # the zero-shot parts of a half
HALVES = ("dev", "final")  # settings are chosen on the first
# What is laid over a row's settings in a test. Modulation is MoTE's.
WEIGHT_AVERAGE = 0.5
TUNED, AVERAGED = "eval.weight_average=1.0", f"eval.weight_average={WEIGHT_AVERAGE}"
FORMS = {
    "raw": (TUNED, "mote.modulation=False"),
    "average": (AVERAGED, "mote.modulation=False"),
    "modulation": (TUNED, "mote.modulation=True"),
    "both": (AVERAGED, "mote.modulation=True"),
}


class Row(NamedTuple):
    """One model: how it is trained and tested."""

    name: str
    title: str
    system: str = "mote"  # whose file it has, of configs/proxy
    overrides: str = ""  # of training and of tests
    forms: tuple[str, ...] = tuple(FORMS)
    reference: str = ""  # name of the row that it is compared with, form by form
    is_frozen: bool = False  # the pretrained model, which is only tested
    checkpoint: str = CHECKPOINT  # file of its run that is tested


class Group(NamedTuple):
    """Rows that are asked for together, and have a table of their own."""

    title: str
    about: str
    rows: tuple[Row, ...]


def _frozen(name: str, title: str, overrides: str = "", reference: str = "") -> Row:
    return Row(name, title, overrides=overrides, forms=("raw",), reference=reference, is_frozen=True)


def _plain(name: str, title: str, overrides: str) -> Row:
    return Row(name, title, overrides=f"{PLAIN_FFN} {overrides}", reference=PLAIN)


def _mote(name: str, title: str, overrides: str) -> Row:
    return Row(name, title, overrides=overrides, reference=MOTE)


def _system(name: str, title: str) -> Row:
    return Row(name, title, name, forms=("raw", "average"), reference=PLAIN)


PLAIN_FFN = "network.num_experts=0"
FROZEN, PLAIN, MOTE = "frozen", "plain", "mote"  # rows that the page's claims are about
SHORT = Group(
    "Frozen, plain, MoTE",
    "A plain FFN is MoTE's head without experts: cross-entropy alone.",
    (
        _frozen(FROZEN, "frozen CLIP: mean over frames"),
        Row(PLAIN, "plain FFN", overrides=PLAIN_FFN, reference=FROZEN),
        Row(MOTE, "MoTE", reference=PLAIN),
    ),
)
PARTS = Group(
    "Parts of MoTE",
    "Each without one part of its loss.",
    (
        _mote("no_merged", "MoTE without merged pass", "mote.merged=0 mote.feature_mse=0"),
        _mote("no_mse", "MoTE without feature MSE", "mote.feature_mse=0"),
    ),
)
SYSTEMS = Group(
    "Other systems",
    "Trained with MoTE's schedule, not their own, on the same pictures; modulation is MoTE's alone.",
    (
        _system("text4vis", "Text4Vis: transformer over frames"),
        _system("vificlip", "ViFi-CLIP: both towers"),
        _system("ost", "OST: both towers, descriptors and transport"),
        _system("tvtsv2", "TVTSv2's tower: space-time attention, trained on labels"),
    ),
)
LOW_RATE = "solver.clip_ratio=0.02"
EPOCHS, HEAD_DISTILLED = "solver.epoch_average=uniform", "loss.distill=1 loss.distill_at=head"
RANDAUG = "data.randaug.N=2 data.randaug.M=9"
SENTENCES = f"network.class_text={DESCRIPTORS}"
TEXTS = Group(
    "Sentences against names",
    "A class is a sentence, in the words of `tools/proxy/descriptors.py`, in the place of its name.",
    (
        _frozen("frozen_sentences", "frozen CLIP with sentences", SENTENCES, FROZEN),
        Row("mote_sentences", "MoTE with sentences", overrides=SENTENCES, reference=MOTE),
    ),
)
REMEDIES = Group(
    "Remedies",
    "What else keeps a tuned model near CLIP, without experts and with them: the settings of the section `loss`.",
    (
        _plain("plain_mse", "plain FFN + feature MSE", "loss.head_mse=0.1"),
        _plain("plain_distill_head", "plain FFN + distillation after the head", HEAD_DISTILLED),
        _plain("plain_distill_tower", "plain FFN + distillation of the tower", "loss.distill=1"),
        _plain("plain_relations", "plain FFN + relations to anchors", "loss.relations=0.4"),
        _plain("plain_low_rate", "plain FFN + a fifth of CLIP's rate", LOW_RATE),
        _plain("plain_epochs", "plain FFN + mean over epochs", EPOCHS)._replace(checkpoint=AVERAGE_CHECKPOINT),
        _plain("plain_apart", "plain FFN + residual projection of rank 32", "network.residual_projection=32"),
        _mote("mote_distill_head", "MoTE + distillation after the head", HEAD_DISTILLED),
        _mote("mote_low_rate", "MoTE + a fifth of CLIP's rate", LOW_RATE),
        _mote("mote_epochs", "MoTE + mean over epochs", EPOCHS)._replace(checkpoint=AVERAGE_CHECKPOINT),
    ),
)
SEARCH = Group(
    "Search",
    "Beside the remedies: what was tried on the development half to find a better MoTE.",
    (
        _mote("mote_mse_03", "MoTE, feature MSE 0.3", "mote.feature_mse=0.3"),
        _mote("mote_mse_10", "MoTE, feature MSE 1", "mote.feature_mse=1"),
        _mote(
            "mote_distill_03", "MoTE + 0.3 of the distillation after the head", "loss.distill=0.3 loss.distill_at=head"
        ),
        _mote("mote_distill_tower", "MoTE + distillation of the tower", "loss.distill=1"),
        _mote("mote_relations", "MoTE + relations to anchors", "loss.relations=0.4"),
        _mote(
            "mote_low_distill",
            "MoTE + a fifth of CLIP's rate + distillation after the head",
            f"{LOW_RATE} {HEAD_DISTILLED}",
        ),
        _mote("mote_one_layer", "MoTE, one layer", "network.temporal_layer=1"),
        _mote("mote_two_experts", "MoTE, two experts", "network.num_experts=2"),
        _mote("mote_randaug", "MoTE + RandAugment", RANDAUG),
        _mote("mote_mixup", "MoTE + MixUp", "solver.mixup=0.2"),
        _mote("mote_smooth", "MoTE + label smoothing", "solver.label_smoothing=0.1"),
        _mote("mote_long", "MoTE, 24 epochs", "solver.epochs=24"),
        _mote("mote_high_rate", "MoTE + three times CLIP's rate", "solver.clip_ratio=0.3"),
        _mote("mote_four_layers", "MoTE, four layers", "network.temporal_layer=4"),
        _mote(
            "mote_long_distill", "MoTE, 24 epochs + distillation after the head", f"solver.epochs=24 {HEAD_DISTILLED}"
        ),
        _mote("mote_randaug_long", "MoTE + RandAugment, 24 epochs", f"{RANDAUG} solver.epochs=24"),
    ),
)
# Another row is a line in one of these, or in a group of its own.
GROUPS = {"short": SHORT, "parts": PARTS, "systems": SYSTEMS, "texts": TEXTS, "remedies": REMEDIES, "search": SEARCH}
ALL = ("short", "parts", "systems", "texts")  # what --rows all stands for


class Planned(NamedTuple):
    """One run of a row, and its tests."""

    row: Row
    clip: int  # which pretrained CLIP
    seed: int  # the same for the pretrained model in all runs
    half: str = HALVES[-1]

    @property
    def name(self) -> str:
        """Of its folders."""
        return self.row.name if self.row.is_frozen else f"{self.row.name}_{self.seed}"

    @property
    def config(self) -> Path:
        """Its system's file."""
        return CONFIGS / f"{self.row.system}.yaml"

    @property
    def pretrained(self) -> Path:
        """Its CLIP."""
        return ROOT / f"clip_{self.clip}.pt"

    @property
    def overrides(self) -> list[str]:
        """Settings of training, and of every test. Frames are read from the pack, which is faster."""
        pack = ROOT / "pack"
        data = ["data.modality=shards", f"data.train_root={pack}", f"data.val_root={pack}"]
        return [f"seed={self.seed}", f"network.arch={self.pretrained}", *data, *self.row.overrides.split()]

    @property
    def run(self) -> Path | None:
        """Its run folder; None: nothing is trained."""
        if self.row.is_frozen:
            return None
        config = load_config(self.config, self.overrides)
        return run_folder(config.data.output_path, config.data.dataset, config.network.arch, self.name)

    @property
    def weights(self) -> str:
        """What is tested."""
        return PLAIN_CLIP if self.run is None else str(self.run / self.row.checkpoint)

    @property
    def results(self) -> Path:
        """The folder of its tests."""
        return ROOT / "results" / self.half / self.pretrained.stem / self.name


def rows_of(names: str) -> list[Row]:
    """Rows by their names, or those of groups, or ``all``.

    Raises:
        ValueError: there is no such row.
    """
    known = {row.name: row for group in GROUPS.values() for row in group.rows}
    wanted: dict[str, Row] = {}
    for name in names.split():
        if name in known:
            wanted[name] = known[name]
        elif name in (*GROUPS, "all"):
            wanted |= {row.name: row for group in (ALL if name == "all" else (name,)) for row in GROUPS[group].rows}
        else:
            raise ValueError(f"--rows: expected all, {', '.join(GROUPS)} or of {', '.join(known)}, found {name!r}")
    return list(wanted.values())


def plan(rows: Sequence[Row], clips: Sequence[int], seeds: int, half: str) -> list[Planned]:
    """What is to be done, in this order: a row of the pretrained model once, the others for each seed."""
    return [
        Planned(row, clip, FIRST_SEED + number, half)
        for number in range(seeds)
        for clip in clips
        for row in rows
        if not (row.is_frozen and number)
    ]


def runs_of(row: Row, clips: Sequence[int], seeds: int, half: str) -> list[Planned]:
    """All runs of a row, in the order in which two rows are paired; those of the pretrained model are one."""
    return [Planned(row, clip, FIRST_SEED + number, half) for clip in clips for number in range(seeds)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What says which runs are meant."""
    parser.add_argument("--seeds", type=count, default=3, help="runs of each row (%(default)s)")
    parser.add_argument("--clips", type=_clips, default=(0,), help="pretrained CLIPs, '0 1' for example (0)")
    parser.add_argument("--half", choices=HALVES, default=HALVES[-1], help="zero-shot parts (%(default)s)")


def _clips(text: str) -> tuple[int, ...]:
    try:
        clips = tuple(dict.fromkeys(int(number) for number in text.split()))
    except ValueError:
        clips = ()
    if not clips or min(clips) < 0:
        raise argparse.ArgumentTypeError(f"expected numbers like '0 1', found {text!r}")
    return clips


def main(argv: list[str] | None = None) -> None:
    """Print the plan for the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="short", help="all, groups or names of rows, beside those of short")
    add_arguments(parser)
    args = parser.parse_args(argv)
    for planned in plan(rows_of(f"short {args.rows}"), args.clips, args.seeds, args.half):
        fields = planned.row.name, planned.clip, planned.seed, planned.config, planned.run or "", planned.results
        sys.stdout.write("|".join(map(str, (*fields, " ".join(planned.overrides)))) + "\n")


if __name__ == "__main__":
    run_main(main)
