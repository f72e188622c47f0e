"""All tests of one run of the proxy world's table, in one process: each form, close-set and zero-shot.

    python -m tools.proxy.evaluate --row mote --clip 0 --seed 1024 --half dev

It calls test.py and test_zeroshot.py as command lines do: a process for each test would start longer than it tests.
"""

import argparse
from pathlib import Path

from tools.demo.in_turn import command
from tools.proxy.rows import CONFIGS, FIRST_SEED, FORMS, HALVES, SETS, Planned, rows_of
from utils.cli import add_common_arguments, run_main
from utils.files import write_text

CLOSE, ZERO_SHOT, SCORES = "close", "zero_shot", "scores.npz"  # of a form's folder
DONE = "done"  # in the folder of a run's tests, the last


def main(argv: list[str] | None = None) -> None:
    """Test what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", required=True, help="its name")
    parser.add_argument("--clip", type=int, default=0, help="which pretrained CLIP (%(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the run (%(default)s)")
    parser.add_argument("--half", choices=HALVES, default=HALVES[-1], help="zero-shot parts (%(default)s)")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    for row in rows_of(args.row):
        evaluate(Planned(row, args.clip, args.seed, args.half), ["--precision", args.precision, *args.overrides])


def evaluate(planned: Planned, arguments: list[str]) -> None:
    """Write ``FORM/close/results.json`` and ``FORM/zero_shot/results.json`` of every form, with the scores beside them.

    Args:
        arguments: of all tests.

    Raises:
        ValueError, FileNotFoundError: see ``commands.testing.run_test``.
    """
    close_set, zero_shot = command("test.py"), command("test_zeroshot.py")
    parts = write_configs(planned)
    for form in planned.row.forms:
        settings = [*arguments, *planned.overrides, *FORMS[form]]
        for test, configs, name in ((close_set, [planned.config], CLOSE), (zero_shot, parts, ZERO_SHOT)):
            folder = planned.results / form / name
            saved = ["--output", str(folder), "--save_logits", str(folder / SCORES)]
            test(["--config", *map(str, configs), "--weights", planned.weights, "--strict", *saved, *settings])
    (planned.results / DONE).touch()


def write_configs(planned: Planned) -> list[Path]:
    """A configuration for each zero-shot part, of the row's system with the part's lists."""
    folder = planned.results / "configs"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.yaml" for name in SETS]
    for name, path in zip(SETS, paths, strict=True):
        base = planned.config.resolve(), (CONFIGS / "data" / f"{planned.half}_{name}.yaml").resolve()
        write_text(path, f"base: [{base[0]}, {base[1]}]\n")
    return paths


if __name__ == "__main__":
    run_main(main)
