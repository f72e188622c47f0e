"""Zero-shot test: python test_zeroshot.py --config UCF1.yaml UCF2.yaml UCF3.yaml --weights W --test_clips 3"""

from engine.protocols import ZERO_SHOT_RULE, fuse_zero_shot, half_class, over_splits
from engine.report import table
from evaluation import Protocol, output_folder, parse_args, run_test, write_results
from utils.cli import run_main

ZERO_SHOT = Protocol(
    rule=ZERO_SHOT_RULE,
    fuse=lambda view_logits, config: fuse_zero_shot(view_logits),
    extra_figures=lambda scores, labels, config: {
        "half_class": half_class(scores, labels, config.eval.half_class_trials)
    },
)


def main(argv: list[str] | None = None) -> dict:
    """Test on the validation lists of one or more configurations (splits); returns what ``results.json`` holds."""
    args = parse_args(__doc__, argv, many_configs=True)
    splits = run_test(args, ZERO_SHOT)
    results = next(iter(splits.values())) if len(splits) == 1 else over_splits(splits)
    write_results(output_folder(args, results["dataset"]), results)
    table(splits, mean=results if len(splits) > 1 else None)
    return results


if __name__ == "__main__":
    run_main(main)
