"""Convert a checkpoint: python -m tools.convert IN OUT --to ours|mote|merged|bike|text4vis

IN is a file, a folder in the Hub's format or hf://owner/name, in any of these formats. OUT is a .pt file, for ours and
merged also .safetensors. Tensors keep every bit; only merged averages and merges them, as a test does.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from clip.load import load_clip
from datasets.lists.labels import read_class_names
from modules.build import (
    brought_classes,
    build_towers,
    check_network,
    load_config,
    load_system,
    parse_config,
    remembers_classes,
)
from modules.classes.templates import template_classes
from modules.formats.ours import FORMAT, TRAIN_CLASS_FEATURES, joined, read_content, split_text4vis
from modules.formats.published import (
    PUBLISHED_KEYS,
    format_of,
    has_text,
    join_bike,
    join_text4vis,
    plain_head,
    text_tower,
)
from modules.weights import config_of_tested, merged_checkpoint
from utils.cli import run_main
from utils.config import Config, to_yaml
from utils.logger import setup_logging
from utils.weights.four_keys import CLASSIFIER, HEAD, MERGED, MODEL, save_checkpoint
from utils.weights.model_files import write_model_file

logger = logging.getLogger(__name__)

Content = dict[str, Any]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", help="checkpoint: file, folder or hf://owner/name")
    parser.add_argument("target", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("--to", required=True, choices=TARGETS)
    parser.add_argument("--config", help="YAML file of the model (default: the configuration in IN)")
    args = parser.parse_args(argv)
    if args.target.suffix == ".safetensors" and args.to not in ("ours", "merged"):
        parser.error(f"OUT: {args.to} checkpoints are files of torch.save, expected a name like model.pt")
    return args


def main(argv: list[str] | None = None) -> Content:
    """Write OUT; returns what it holds.

    Raises:
        ValueError: the format cannot hold the model, or something is missing; it says what.
    """
    args = parse_args(argv)
    setup_logging()
    content = read_content(args.source)
    kind = format_of(content, args.source)
    config = _config(content, args)
    four_keys = _four_keys(content, kind, config, args.source)
    converted = TARGETS[args.to](four_keys, kind, config, args.source)
    args.target.parent.mkdir(parents=True, exist_ok=True)
    if args.target.suffix == ".safetensors":
        if FORMAT in converted and not converted[HEAD]:
            _needed(config, args.source, "without which safetensors do not tell whose model it is")
        write_model_file(args.target, joined(converted), converted)
        converted = {**converted, "optimizer_state_dict": {}}
    else:
        save_checkpoint(args.target, converted)
    logger.info("%s: %s -> %s: %s", args.source, kind, args.to, args.target)
    if left_out := _left_out(content, converted):
        logger.info("left out: %s", ", ".join(map(str, left_out)))
    return converted


def _config(content: Content, args: argparse.Namespace) -> Config | None:
    if args.config:
        config = load_config(args.config)
    elif "config" in content:
        config = parse_config(content["config"], f"configuration in {args.source}")
    else:
        return None
    check_network(config)
    return config


def _needed(config: Config | None, source: str, purpose: str) -> Config:
    if config is None:
        raise ValueError(f"{source} holds no configuration; give --config FILE, {purpose}")
    return config


def _four_keys(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """Any format as CLIP's tensors and the head's, without a text tower that nothing trained."""
    if kind == "text4vis":
        content = split_text4vis(content)
    elif kind == "bike":
        tower = text_tower(content[MODEL])
        own = text_tower(load_clip(config.network.arch).state_dict()) if config else {}
        if own.keys() == tower.keys() and all(torch.equal(own[name], tower[name].float()) for name in own):
            content = {**content, MODEL: {k: v for k, v in content[MODEL].items() if k not in tower}}
    else:
        return content
    return {**content, "optimizer_state_dict": {}}  # the moments of another order of parameters


def _with_train_classes(content: Content, config: Config | None, source: str) -> Content:
    """The head with the features of its training classes, which Text4Vis and BIKE do not store."""
    if not content[HEAD] or TRAIN_CLASS_FEATURES in content[HEAD]:
        return content
    purpose = f"whose label file and CLIP give {TRAIN_CLASS_FEATURES}, the features of the training classes"
    config = _needed(config, source, purpose)
    class_names = read_class_names(config.data.label_list, config.data.num_classes)
    towers = load_clip(config.network.arch)
    features = template_classes(towers, class_names, config.network.templates).encode(towers)
    return {**content, HEAD: {TRAIN_CLASS_FEATURES: features, **content[HEAD]}, "class_names": class_names}


def to_ours(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """All there is, with the configuration if there is one."""
    if config is not None and remembers_classes(config):
        content = _with_train_classes(content, config, source)
    if config is None:
        return content  # with ``FORMAT``: where there is no head, nothing else tells the system
    content = {name: value for name, value in content.items() if name != FORMAT}
    return {**content, "config": to_yaml(config_of_tested(config, content))}


def to_mote(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """The four published entries."""
    if MERGED in content:
        raise ValueError(f"{source} is merged and holds CLIP's share; the published test would average it once more")
    _check_classifier(content, "the published format", source)
    if has_text(content):
        raise ValueError(f"{source} holds a trained text tower, which the published format has no place for")
    content = _with_train_classes(content, config, source)
    defaults = {"epoch": 0, "optimizer_state_dict": {}}
    return {name: content.get(name, defaults.get(name)) for name in PUBLISHED_KEYS}


def to_merged(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """Weights as they are tested. Text4Vis and BIKE average nothing: theirs are marked, not changed."""
    if kind == "merged":
        return content
    if kind in ("text4vis", "bike"):
        return to_ours({**content, MERGED: True}, kind, config, source)
    config = _needed(config, source, "whose network.arch names the CLIP that a test averages with")
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    model = load_system(config, towers, brought_classes(config, towers, content), content, source)
    return merged_checkpoint(model.eval(), content, config)


def to_bike(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """A complete CLIP and a head of plain FFNs."""
    _check_classifier(content, "BIKE's format", source)
    plain_head(content, "BIKE")
    if has_text(content):
        return join_bike(content, {})
    config = _needed(config, source, "whose network.arch names the CLIP with the text tower")
    return join_bike(content, text_tower(load_clip(config.network.arch).state_dict()))


def to_text4vis(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """One state dict of image tower and plain head."""
    _check_classifier(content, "Text4Vis's format", source)
    if has_text(content):
        raise ValueError(f"{source} holds a trained text tower, which Text4Vis's format has no place for")
    return join_text4vis(content)


def _check_classifier(content: Content, target: str, source: str) -> None:
    """Published formats hold no classes: those of texts are made again, others would be lost."""
    if CLASSIFIER in content:
        raise ValueError(
            f"{source} holds a classifier that is not text ({CLASSIFIER}), which {target} has no place for"
        )


TARGETS = {"ours": to_ours, "mote": to_mote, "merged": to_merged, "bike": to_bike, "text4vis": to_text4vis}


def _left_out(content: Content, converted: Content) -> list[str]:
    """What the result does not hold any more, so that nobody has to find out later."""
    names = [
        name
        for name in content
        if name not in (MODEL, HEAD) and _is_something(content[name]) and not _is_something(converted.get(name))
    ]
    if TRAIN_CLASS_FEATURES in content.get(HEAD, ()) and TRAIN_CLASS_FEATURES not in converted.get(HEAD, ()):
        names.append(TRAIN_CLASS_FEATURES)
    if has_text(content) and not has_text(converted):
        names.append("the text tower")
    return names


def _is_something(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or bool(value)


if __name__ == "__main__":
    run_main(main)
