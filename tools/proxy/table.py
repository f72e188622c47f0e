"""The page of the proxy world's table and its picture, from the results alone.

    python -m tools.proxy.table --seeds 3 --half final --page docs/results_proxy.md --picture docs/images/proxy.png

Rows whose tests are done for all of these runs are in it; those whose are not are named.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import hardware
from engine.protocols.accuracy import harmonic_mean, mean_as_text
from modules.build import load_config
from tools.proxy.evaluate import CLOSE
from tools.proxy.measured import Hits, Measured, check_alike, is_complete, measured
from tools.proxy.paired import ERRORS_OF_A_CLAIM, Claim, difference
from tools.proxy.picture import draw
from tools.proxy.rows import CONFIGS, FROZEN, GROUPS, MOTE, PLAIN, SETS, Group, Row, add_arguments, runs_of
from utils.cli import run_main
from utils.files import write_text
from utils.text import render

PAGE = Path(__file__).with_name("page.md.jinja")
# Means over lists that differences and the picture are about.
MEANS = {"close-set": (CLOSE,), "appearance": SETS[:-1], "motion": SETS[-1:], "zero-shot": SETS}
COLUMNS = ("close-set", *SETS, "appearance", "zero-shot", "harmonic")
FORGOTTEN = 10.0  # points that plain tuning loses at least, in the regime that this world is made for
LEARNED = 60.0  # percent of the close-set videos that tuning gets right at least
RAW, BOTH = "raw", "both"  # forms that the claims are about
Tested = dict[str, Measured]  # by the row's name


def main(argv: list[str] | None = None) -> None:
    """Write the page and its picture, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--page", type=Path, required=True, help="Markdown page to write")
    parser.add_argument("--picture", type=Path, required=True, help="PNG to write")
    args = parser.parse_args(argv)
    rows, missing = read_rows(args.clips, args.seeds, args.half)
    for path in (args.page, args.picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    draw({name: rows[name].forms for name in (FROZEN, PLAIN, MOTE)}, MEANS, args.picture)
    picture = os.path.relpath(args.picture, args.page.parent)
    write_text(args.page, page(rows, missing, picture, args))
    sys.stdout.write(args.page.read_text(encoding="utf-8"))


def read_rows(clips: Sequence[int], seeds: int, half: str) -> tuple[Tested, list[Row]]:
    """The rows that were tested in all of these runs, and those that were not.

    Raises:
        FileNotFoundError, ValueError: see ``measured``; a row that the claims are about is not there.
    """
    rows, missing = {}, []
    for row in (row for group in GROUPS.values() for row in group.rows):
        runs = runs_of(row, clips, seeds, half)
        if is_complete(runs):
            rows[row.name] = measured(row, runs)
        else:
            missing.append(row)
    if absent := [row.name for row in missing if row.name in (FROZEN, PLAIN, MOTE)]:
        raise FileNotFoundError(f"{', '.join(absent)}: not tested in all of these runs; run scripts/run_proxy.sh")
    return rows, missing


def page(rows: Tested, missing: list[Row], picture: str, args: argparse.Namespace) -> str:
    """Markdown of the claims, of every group's figures, and of all differences.

    Raises:
        ValueError: rows were not tested alike.
    """
    example = check_alike(rows.values())
    tests = rows[FROZEN].tests[0]
    return render(
        PAGE,
        half=args.half,
        seeds=args.seeds,
        clips=len(args.clips),
        picture=picture,
        claims=claims(rows),
        columns=COLUMNS,
        means=tuple(MEANS),
        tables=[(group.title, group.about, *tables_of(group, rows)) for group in tested_groups(rows)],
        missing=_not_tested(missing),
        config=load_config(CONFIGS / "mote.yaml"),
        numbers={name: test.num_videos for name, test in tests.items()},
        example=example,
        errors=ERRORS_OF_A_CLAIM,
        hardware=hardware(),
    )


def claims(rows: Tested) -> list[Claim]:
    """What this world is made for, and whether it does that."""
    frozen, plain, mote = (rows[name].forms for name in (FROZEN, PLAIN, MOTE))
    zero_shot = [
        Claim(
            f"Frozen CLIP knows unseen classes better than the tuned plain FFN, by {FORGOTTEN:g} points or more",
            difference(frozen[RAW], plain[RAW], SETS),
            FORGOTTEN,
        ),
        Claim(
            "MoTE with weight average and modulation knows them at least as well as frozen CLIP",
            difference(mote[BOTH], frozen[RAW], SETS),
        ),
    ]
    learned = {"Plain FFN, raw": plain[RAW], "MoTE, raw": mote[RAW], "MoTE, both": mote[BOTH]}
    return zero_shot + [
        Claim(f"{name}: close-set above {LEARNED:g} %", difference(hits, None, (CLOSE,)), LEARNED, is_level=True)
        for name, hits in learned.items()
    ]


def tested_groups(rows: Tested) -> list[Group]:
    """Those of which any row was tested."""
    return [group for group in GROUPS.values() if any(row.name in rows for row in group.rows)]


def tables_of(group: Group, rows: Tested) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The lines of a group: figures of each form, and differences against the row of reference and against raw."""
    figures, gaps = [], []
    for one in (rows[row.name] for row in group.rows if row.name in rows):
        figures += [(one.row.title, form, *_figures(hits)) for form, hits in one.forms.items()]
        if other := rows.get(one.row.reference):
            for form, hits in one.forms.items():
                theirs = form if form in other.forms else RAW  # the pretrained model has one form
                what = f"{_short(one.row)}, {form}, against {_short(other.row)}" + f", {theirs}" * (theirs != form)
                gaps.append((what, *_differences(hits, other.forms[theirs])))
        gaps += [
            (f"{_short(one.row)}, {form} against raw", *_differences(hits, one.forms[RAW]))
            for form, hits in one.forms.items()
            if form != RAW
        ]
    return figures, gaps


def _not_tested(missing: Sequence[Row]) -> list[str]:
    """What the page has no figures of: whole groups, or rows of one."""
    lines = []
    for group in GROUPS.values():
        absent = [_short(row) for row in group.rows if row in missing]
        if absent:
            lines.append(group.title if len(absent) == len(group.rows) else f"{group.title} ({', '.join(absent)})")
    return lines


def _short(row: Row) -> str:
    return row.title.partition(":")[0]


def _figures(hits: Hits) -> list[str]:
    """Mean and std over runs, under ``COLUMNS``."""
    tops = {name: 100 * of_list.mean(axis=1) for name, of_list in hits.items()}  # [R] each
    means = {name: sum(tops[each] for each in lists) / len(lists) for name, lists in MEANS.items()}
    pairs = zip(means["close-set"], means["zero-shot"], strict=True)
    columns = tops | means | {"harmonic": [harmonic_mean(close, zero_shot) for close, zero_shot in pairs]}
    return [mean_as_text([float(value) for value in columns[column]], 1) for column in COLUMNS]


def _differences(first: Hits, second: Hits) -> list[str]:
    return [difference(first, second, lists).text for lists in MEANS.values()]


if __name__ == "__main__":
    run_main(main)
