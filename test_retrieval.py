"""Retrieval test: python test_retrieval.py --config configs/retrieval/msrvtt_b16.yaml --weights W --dual_softmax 100

With --choices each video has a few texts of its own, of which one is right.
"""

from commands.retrieving import parse_args, run_retrieval
from utils.cli import run_main


def main(argv: list[str] | None = None) -> dict:
    """Test on the captions, or choices, of ``data.val_list``; returns what ``results.json`` holds."""
    return run_retrieval(parse_args(__doc__, argv))


if __name__ == "__main__":
    run_main(main)
