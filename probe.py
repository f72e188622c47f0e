"""Linear probe of frozen features: python probe.py --config configs/probe/hmdb51_split*.yaml --weights W

Several configurations are several splits, of which mean and std are reported.
"""

from commands.probing import parse_args, run_probe
from utils.cli import run_main


def main(argv: list[str] | None = None) -> dict:
    """Fit and test a linear classifier on every configuration's lists; returns what ``results.json`` holds."""
    return run_probe(parse_args(__doc__, argv))


if __name__ == "__main__":
    run_main(main)
