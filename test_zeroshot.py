"""Zero-shot test: python test_zeroshot.py --config UCF1.yaml UCF2.yaml UCF3.yaml --weights W --test_clips 3"""

from commands.testing import Protocol, parse_args, run_test
from engine.protocols.rules import ZERO_SHOT_RULE, fuse_zero_shot, half_class
from utils.cli import run_main

ZERO_SHOT = Protocol(
    name="zero_shot",
    rule=ZERO_SHOT_RULE,
    fuse=lambda view_logits, config: fuse_zero_shot(view_logits),
    extra_figures=lambda scores, labels, config: {
        "half_class": half_class(scores, labels, config.eval.half_class_trials)
    },
)


def main(argv: list[str] | None = None) -> dict:
    """Test on the validation lists of one or more configurations (splits); returns what ``results.json`` holds."""
    return run_test(parse_args(__doc__, argv, many_configs=True), ZERO_SHOT)


if __name__ == "__main__":
    run_main(main)
