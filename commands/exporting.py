"""A model for elsewhere: a graph in a file with its description, or a folder in the Hub's format."""

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from clip.names.open_clip import LOCAL
from engine.results import Results
from modules.build import parse_config
from modules.classes.base import Classes
from modules.formats.ours import joined
from modules.graph import INPUTS, OUTPUTS, VideoGraph, check_graph, run_onnx, run_program, trace, write_onnx
from modules.heads.transformer import MAX_FRAMES
from modules.systems.base import System
from reports.model_card import model_card
from utils.config import Config, DataConfig, to_yaml
from utils.files import whole_file, write_text
from utils.weights.model_files import CARD_FILE, upload, write_model_folder

logger = logging.getLogger(__name__)

PICTURES = ("input_size", "transforms", "scale_size", "resize")  # keys of ``data`` that say what pictures a model takes
GRAPHS = {"torch_export": "model.pt2", "onnx": "model.onnx"}


def write_graph(
    model: System, classes: Classes | None, labels: list[str], config: Config, args: argparse.Namespace
) -> Path:
    """Write the model as a graph with its description in ``model.json``, and run it against the model.

    Args:
        classes: of ``labels``, see ``build_classes``; None: class features are an input.
    """
    path = args.out / GRAPHS[args.format]
    with torch.no_grad():
        features = None if classes is None else classes.encode(model.towers)
    if not config.network.fix_text or model.classes.needs_text:
        model.towers.drop_text()  # the graph sees images only
    with model.for_tests():
        graph = VideoGraph(model, features)
        if args.format == "onnx":
            write_onnx(graph, path)
            run = run_onnx(path)
        else:
            with whole_file(path) as unfinished, unfinished.open("wb") as file:
                torch.export.save(trace(graph), file)
            run = run_program(path)
        difference = check_graph(graph, run, config.data.num_segments)
    write_text(args.out / "model.json", json.dumps(describe(graph, labels, config), indent=2) + "\n")
    logger.info("wrote %s; probabilities differ from the model's by at most %.1e", path, difference)
    return path


def describe(graph: VideoGraph, labels: list[str], config: Config) -> dict:
    """What one must know to feed a graph: inputs, outputs, classes, frames as the model was trained."""
    model, size = graph.model, config.data.input_size
    frames = model.towers.graph_frames or f"T (1 to {MAX_FRAMES})"
    inputs = [f"uint8 [B, {frames}, 3, {size}, {size}], RGB", f"float32 [K, {model.towers.spec.embed_dim}], unit rows"]
    num_classes = len(labels) or "K"
    outputs = [f"float32 [B, {num_classes}], cosines", f"float32 [B, {num_classes}], softmax of the scaled cosines"]
    return {
        "inputs": dict(zip(INPUTS, inputs[: 1 + graph.is_open], strict=False)),
        "outputs": dict(zip(OUTPUTS, outputs, strict=True)),
        "num_frames": config.data.num_segments,
        "towers": asdict(model.towers.spec),
        **(_of_open_classes(config, model) if graph.is_open else {}),
        **({"class_names": labels} if labels else {}),
    }


def _of_open_classes(config: Config, model: System) -> dict:
    """What one must know to make class features."""
    network = config.network
    texts = {"templates": network.templates, "class_text": network.class_text}
    return texts | {"fewest_classes": model.fewest_classes}


def write_hub_folder(merged: dict[str, Any], config: Config, results: list[Results], args: argparse.Namespace) -> Path:
    """Write, and with ``--push_to`` upload, a folder in the Hub's format."""
    for path, result in zip(args.results, results, strict=True):
        if result.weights != args.weights:
            logger.warning("%s was measured with %s, not with %s", path, result.weights, args.weights)
    arch = config.network.arch.removeprefix(LOCAL)
    if Path(arch).exists():
        logger.warning("network.arch is the file %s, which users of the model need too", arch)
    stored = parse_config(merged["config"], "merged configuration")
    # What the model itself needs: where somebody keeps videos and lists is nobody else's business.
    needed = {name: getattr(stored.data, name) for name in ("dataset", "num_segments", "dense", *PICTURES)}
    stored = replace(stored, resume="", pretrain="", data=DataConfig(**needed))
    write_model_folder(args.out, joined(merged), merged | {"config": to_yaml(stored)})
    name = args.push_to or args.out.resolve().name
    write_text(args.out / CARD_FILE, model_card(name, stored.network, stored.data, merged.get("class_names"), results))
    logger.info("wrote %s", args.out)
    if args.push_to:
        upload(args.out, args.push_to)
        logger.info("uploaded to hf://%s", args.push_to)
    return args.out
