"""Take a model elsewhere: python export.py --weights W.pt --out DIR --format onnx --labels labels.csv

Experts are merged into ordinary FFNs and CLIP's share (eval.weight_average) is in the weights.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.lists.labels import read_labels
from engine.results import Results, read_results
from modules.build import build_classes, build_clip, check_network, load_model
from modules.formats.infer import resolve_config
from modules.formats.ours import joined, read_checkpoint
from modules.graph import (
    INPUTS,
    OUTPUTS,
    VideoGraph,
    check_graph,
    check_packages,
    run_onnx,
    run_program,
    trace,
    write_onnx,
)
from modules.heads.transformer import MAX_FRAMES
from modules.video_clip import VideoCLIP
from modules.weights import merged_checkpoint
from reports.model_card import model_card
from utils.cli import run_main
from utils.config import Config, DataConfig, parse_config, to_yaml
from utils.files import whole_file, write_text
from utils.logger import setup_logging
from utils.weights.model_files import CARD_FILE, WEIGHTS_FILE, upload, write_model_file, write_model_folder

logger = logging.getLogger(__name__)

GRAPHS = {"torch_export": "model.pt2", "onnx": "model.onnx"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="checkpoint: file, folder or hf://owner/name")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--format", choices=("safetensors", "hub", *GRAPHS), default="safetensors")
    parser.add_argument("--config", help="YAML file (default: what the checkpoint carries or implies)")
    parser.add_argument("--labels", help="of graphs: class names with commas between, or a file (default: an input)")
    parser.add_argument("--precision", choices=("fp32",), default="fp32", help="number format of the weights")
    parser.add_argument("--results", nargs="+", default=[], type=Path, help="of hub: results.json files for the card")
    parser.add_argument("--push_to", metavar="OWNER/NAME", help="of hub: upload the folder; needs a token")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="change the configuration"
    )
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
        for name in ("onnx_ir", "onnxscript"):  # they report every constant that they share or keep
            logging.getLogger(name).setLevel(logging.WARNING)
    results = [read_results(path) for path in args.results]
    checkpoint = read_checkpoint(args.weights)
    config = resolve_config(checkpoint, args.weights, args.config, {}, args.overrides)
    check_network(config)
    labels = read_labels(args.labels) if args.labels else []
    clip = build_clip(config.network, config.data.num_segments, config.data.input_size, config.seed)
    classes = build_classes(config.network, clip, labels) if labels else torch.zeros(1, clip.config.embed_dim)
    model = load_model(config, clip, classes, checkpoint, args.weights).eval()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.format in GRAPHS:
        return write_graph(model, classes if labels else None, labels, config, args)
    merged = merged_checkpoint(model, checkpoint, config)
    if args.format == "hub":
        return write_hub_folder(merged, config, results, args)
    path = args.out / WEIGHTS_FILE
    write_model_file(path, joined(merged), merged)
    logger.info("wrote %s", path)
    return path


def write_graph(
    model: VideoCLIP, classes: Tensor | None, labels: list[str], config: Config, args: argparse.Namespace
) -> Path:
    """Write the model as a graph with its description in ``model.json``, and run it against the model.

    Args:
        classes: of ``labels``, see ``build_classes``; None: class features are an input.
    """
    path = args.out / GRAPHS[args.format]
    with torch.no_grad():
        features = None if classes is None else model.class_features(classes)
    if not config.network.fix_text:
        model.clip.drop_text()  # the graph sees images only
    with model.merged_experts():
        graph = VideoGraph(model, features)
        if args.format == "onnx":
            write_onnx(graph, path)
            run = run_onnx(path)
        else:
            with whole_file(path) as part, part.open("wb") as file:
                torch.export.save(trace(graph), file)
            run = run_program(path)
        difference = check_graph(graph, run, config.data.num_segments)
    write_text(args.out / "model.json", json.dumps(describe(graph, labels, config), indent=2) + "\n")
    logger.info("wrote %s; probabilities differ from the model's by at most %.1e", path, difference)
    return path


def describe(graph: VideoGraph, labels: list[str], config: Config) -> dict:
    """What one must know to feed a graph: inputs, outputs, classes, frames as the model was trained."""
    size, width = config.data.input_size, graph.model.clip.config.embed_dim
    frames = graph.fixed_frames or f"T (1 to {MAX_FRAMES})"
    inputs = [f"uint8 [B, {frames}, 3, {size}, {size}], RGB", f"float32 [K, {width}], unit rows"]
    num_classes = len(labels) or "K"
    outputs = [f"float32 [B, {num_classes}], cosines", f"float32 [B, {num_classes}], softmax of the scaled cosines"]
    return {
        "inputs": dict(zip(INPUTS, inputs[: 1 + graph.is_open], strict=False)),
        "outputs": dict(zip(OUTPUTS, outputs, strict=True)),
        "num_frames": config.data.num_segments,
        **({"templates": config.network.templates, "fewest_classes": graph.fewest_classes} if graph.is_open else {}),
        **({"class_names": labels} if labels else {}),
    }


def write_hub_folder(merged: dict[str, Any], config: Config, results: list[Results], args: argparse.Namespace) -> Path:
    """Write, and with ``--push_to`` upload, a folder in the Hub's format."""
    for path, result in zip(args.results, results, strict=True):
        if result.weights != args.weights:
            logger.warning("%s was measured with %s, not with %s", path, result.weights, args.weights)
    if Path(config.network.arch).exists():
        logger.warning("network.arch is the file %s, which users of the model need too", config.network.arch)
    stored = _without_paths(parse_config(merged["config"], "merged configuration"))
    write_model_folder(args.out, joined(merged), merged | {"config": to_yaml(stored)})
    name = args.push_to or args.out.resolve().name
    write_text(args.out / CARD_FILE, model_card(name, stored.network, stored.data, merged.get("class_names"), results))
    logger.info("wrote %s", args.out)
    if args.push_to:
        upload(args.out, args.push_to)
        logger.info("uploaded to hf://%s", args.push_to)
    return args.out


def _without_paths(config: Config) -> Config:
    """What the model itself needs: where somebody keeps videos and lists is nobody else's business."""
    data = config.data
    kept = DataConfig(
        dataset=data.dataset, num_segments=data.num_segments, input_size=data.input_size, dense=data.dense
    )
    return replace(config, resume="", pretrain="", data=kept)


if __name__ == "__main__":
    run_main(main)
