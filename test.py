"""Close-set test: python test.py --config configs/k400/vitb16_8f.yaml --weights MoTE_B16.pt --test_clips 4"""

from commands.testing import parse_args, run_test
from engine.protocols.close_set import CloseSet
from utils.cli import run_main


def main(argv: list[str] | None = None) -> dict:
    """Test on the validation list of one configuration; returns what ``results.json`` holds."""
    args = parse_args(__doc__, argv, many_configs=False)
    return run_test(args, CloseSet.of)


if __name__ == "__main__":
    run_main(main)
