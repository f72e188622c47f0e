"""Zero-shot test: python test_zeroshot.py --config UCF1.yaml UCF2.yaml UCF3.yaml --weights W --test_clips 3"""

from commands.testing import parse_args, run_test
from commands.weights import FOR_ANY_CLASSES
from engine.protocols.zero_shot import ZeroShot
from utils.cli import run_main


def main(argv: list[str] | None = None) -> dict:
    """Test on the validation lists of one or more configurations (splits); returns what ``results.json`` holds."""
    args = parse_args(__doc__, argv, many_configs=True)
    return run_test(args, ZeroShot.of, FOR_ANY_CLASSES)


if __name__ == "__main__":
    run_main(main)
