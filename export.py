"""Take a model elsewhere: python export.py --weights W.pt --out DIR --format onnx --labels labels.csv

Experts are merged into ordinary FFNs and CLIP's share (eval.weight_average) is in the weights.
"""

import argparse
import logging
from pathlib import Path

from commands.exporting import GRAPHS, write_graph, write_hub_folder
from commands.weights import Weights
from datasets.lists.labels import read_labels
from engine.results import read_results
from modules.build import DESCRIPTORS, kind_of_classes
from modules.formats.ours import joined
from modules.graph import check_packages
from modules.weights import merged_checkpoint
from utils.cli import add_common_arguments, run_main
from utils.logger import setup_logging
from utils.weights.model_files import WEIGHTS_FILE, write_model_file

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="checkpoint: file, folder or hf://owner/name")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--format", choices=("safetensors", "hub", *GRAPHS), default="safetensors")
    parser.add_argument("--config", help="YAML file (default: what the checkpoint carries or implies)")
    parser.add_argument(
        "--labels",
        help="of graphs: class names with commas between, or a file (default: an input, or those of a classifier)",
    )
    parser.add_argument("--results", nargs="+", default=[], type=Path, help="of hub: results.json files for the card")
    parser.add_argument("--push_to", metavar="OWNER/NAME", help="of hub: upload the folder; needs a token")
    add_common_arguments(parser, ["fp32"])
    args = parser.parse_intermixed_args(argv)
    if args.labels and args.format not in GRAPHS:
        parser.error(f"--labels are a part of graphs ({', '.join(GRAPHS)}), not of --format {args.format}")
    if (args.results or args.push_to) and args.format != "hub":
        parser.error("--results and --push_to belong to --format hub")
    return args


def main(argv: list[str] | None = None) -> Path:
    """Write the model; returns the file, or the folder of the Hub's format."""
    args = parse_args(argv)
    setup_logging()
    if args.format == "onnx":
        check_packages()
    results = [read_results(path) for path in args.results]
    weights = Weights(args.weights)
    config = weights.config(args.config, args.overrides)
    # What is no text is in the graph: nobody could give it as an input.
    labels = read_labels(args.labels) if args.labels else list(weights.classifier.get("class_names", ()))
    if args.format in GRAPHS and not labels and kind_of_classes(config) == DESCRIPTORS:
        raise ValueError(
            f"--format {args.format}: the classes of {config.network.system} are sets of descriptors, a part of the "
            "graph and no input of it: give --labels"
        )
    towers = weights.towers(config, config.data.input_size)
    classes = weights.classes(config, towers, labels) if args.format in GRAPHS and labels else None
    model = weights.build(config, towers, classes).eval()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.format in GRAPHS:
        return write_graph(model, classes, labels, config, args)
    merged = merged_checkpoint(model, weights.checkpoint or {}, config)
    if args.format == "hub":
        return write_hub_folder(merged, config, results, args)
    path = args.out / WEIGHTS_FILE
    write_model_file(path, joined(merged), merged)
    logger.info("wrote %s", path)
    return path


if __name__ == "__main__":
    run_main(main)
