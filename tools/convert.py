"""Convert a checkpoint: python -m tools.convert IN OUT --to ours|mote|merged|bike|text4vis|ost|vificlip|tvts

IN is a file, a folder in the Hub's format or hf://owner/name, in any of these formats. OUT is a .pt file, for ours and
merged also .safetensors. Tensors keep every bit; only merged averages and merges them, as a test does.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from clip.load import load_clip
from clip.names.tvts import is_tvts
from clip.shapes import TEMPORAL
from datasets.clips.presets import preset_of
from datasets.lists.labels import read_class_names
from modules.build import (
    brought_classes,
    build_classes,
    build_towers,
    load_config,
    load_system,
    parse_config,
    remembers_classes,
)
from modules.check import check_network
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
from modules.formats.tvts import TVTS, checkpoint_from_tvts, checkpoint_to_tvts
from modules.formats.vifi import NUM_FRAMES, TOKENS, from_vifi, is_vifi, to_vifi
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
    if TEMPORAL in content[MODEL] and args.to not in SPACE_TIME:
        places = ", ".join(SPACE_TIME)
        raise ValueError(f"{args.source} has a space-time tower, expected --to one of {places}, found {args.to}")
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
    with torch.no_grad():
        features = build_classes(config, towers, class_names).encode(towers)
    return {**content, HEAD: {TRAIN_CLASS_FEATURES: features, **content[HEAD]}, "class_names": class_names}


def to_ours(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """All there is, with the configuration if there is one."""
    if config is not None and remembers_classes(config):
        content = _with_train_classes(content, config, source)
    if config is None:
        return content  # with ``FORMAT``: where there is no head, nothing else tells the system
    content = {name: value for name, value in content.items() if name not in (FORMAT, NUM_FRAMES)}
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
    """Weights as they are tested. Text4Vis, BIKE and TVTSv2 average nothing: theirs are marked, not changed."""
    if kind == "merged":
        return content
    if kind in ("text4vis", "bike", TVTS):
        return to_ours({**content, MERGED: True}, kind, config, source)
    config = _needed(config, source, "whose network.arch names the CLIP that a test averages with")
    rules = preset_of(config.data).of_towers
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed, rules)
    model = load_system(config, towers, brought_classes(config, towers, content), content, source)
    return merged_checkpoint(model.eval(), content, config)


def to_bike(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """A complete CLIP and a head of plain FFNs."""
    _check_classifier(content, "BIKE's format", source)
    plain_head(content, "BIKE")
    return join_bike(content, _missing_text(content, config, source))


def to_text4vis(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """One state dict of image tower and plain head."""
    _check_classifier(content, "Text4Vis's format", source)
    if has_text(content):
        raise ValueError(f"{source} holds a trained text tower, which Text4Vis's format has no place for")
    return join_text4vis(content)


def to_ost(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """A whole CLIP."""
    _check_plain(content, config, source)
    return to_vifi(content, _missing_text(content, config, source), source)


def to_vificlip(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """A whole CLIP without its token embedding, which is that of network.arch."""
    _check_plain(content, config, source)
    state = dict(content[MODEL])
    if TOKENS in state:
        config = _needed(config, source, "whose network.arch names the CLIP that the token embedding is compared with")
        if not torch.equal(state.pop(TOKENS).float(), load_clip(config.network.arch).state_dict()[TOKENS]):
            raise ValueError(f"{source} holds a trained token embedding, which ViFi-CLIP's format has no place for")
    return to_vifi({**content, MODEL: state}, _missing_text(content, config, source, with_tokens=False), source)


def to_tvts(content: Content, kind: str, config: Config | None, source: str) -> Content:
    """Both towers, the space-time one and CLIP's of texts."""
    _check_classifier(content, "TVTSv2's format", source)
    return checkpoint_to_tvts(content, _missing_text(content, config, source), source)


def _check_plain(content: Content, config: Config | None, source: str) -> None:
    """See what the names of tensors do not tell, see ``to_vifi``."""
    _check_classifier(content, "OST's and ViFi-CLIP's format", source)
    if config is not None and config.network.tm:
        raise ValueError(f"{source}: network.tm is {config.network.tm}, which OST and ViFi-CLIP have no place for")


def _missing_text(content: Content, config: Config | None, source: str, with_tokens: bool = True) -> Content:
    """What a checkpoint lacks of the text tower, from CLIP: all that did not train."""
    if has_text(content) and (TOKENS in content[MODEL] or not with_tokens):
        return {}
    config = _needed(config, source, "whose network.arch names the CLIP with the text tower")
    own = text_tower(load_clip(config.network.arch).state_dict())
    return {k: v for k, v in own.items() if k not in content[MODEL] and (with_tokens or k != TOKENS)}


def _check_classifier(content: Content, target: str, source: str) -> None:
    """Published formats hold no classes: those of texts are made again, others would be lost."""
    if CLASSIFIER in content:
        raise ValueError(
            f"{source} holds a classifier that is not text ({CLASSIFIER}), which {target} has no place for"
        )


TARGETS = {
    each.__name__.removeprefix("to_"): each
    for each in (to_ours, to_mote, to_merged, to_bike, to_text4vis, to_ost, to_vificlip, to_tvts)
}
SPACE_TIME = ("ours", "merged", TVTS)  # those that have a place for such towers


def _left_out(content: Content, converted: Content) -> list[str]:
    """What the result does not hold any more, so that nobody has to find out later."""
    converted = from_vifi(converted, "the result") if is_vifi(converted) else converted
    converted = checkpoint_from_tvts(converted, "the result") if is_tvts(converted) else converted
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
