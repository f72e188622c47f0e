"""Close-set test: python test.py --config configs/k400/vitb16_8f.yaml --weights MoTE_B16.pt --test_clips 4"""

from commands.testing import Protocol, parse_args, run_test
from engine.protocols.rules import CLOSE_SET_RULE, fuse_close_set
from utils.cli import run_main

CLOSE_SET = Protocol(
    name="close_set",
    rule=CLOSE_SET_RULE,
    fuse=lambda view_logits, config: fuse_close_set(view_logits, config.eval.softmax_scale),
    extra_figures=lambda scores, labels, config: {},
)


def main(argv: list[str] | None = None) -> dict:
    """Test on the validation list of one configuration; returns what ``results.json`` holds."""
    return run_test(parse_args(__doc__, argv, many_configs=False), CLOSE_SET)


if __name__ == "__main__":
    run_main(main)
