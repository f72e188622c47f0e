"""YAML to a frozen, typed configuration; every mistake is an error that names the key.

The keys are the published ones (BIKE's spelling), so published files load unchanged; ``loss`` and ``eval``
are sections of ours. A file may name a ``base:`` file, or a list of them, whose keys it inherits and overrides.
"""

import dataclasses
import difflib
import itertools
import logging
import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from utils.text import MAX_SHOWN, has_control_characters, shown
from utils.yaml_text import MAX_BYTES, read_yaml

logger = logging.getLogger(__name__)

MAX_PIXELS = 40_000_000  # of a picture by default: somewhat more than 8K video has

# The most that a count may be where nothing else limits it: more is a slip of the hand, and no run can use it.
MANY = 10**6
MOST_SECONDS = 10.0**7  # four months; the timers of threads and processes cannot hold much more


def bounded(default: float, least: float, most: float = float("inf")) -> Any:
    """A number with a range, which ``load_config`` checks."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class RandAugmentConfig:
    """torchvision's RandAugment: N operations of magnitude M, one draw a clip."""

    N: int = bounded(2, 0, 100)
    M: int = bounded(9, 0, 30)


@dataclass(frozen=True)
class DataConfig:
    """Lists, frames and batches."""

    dataset: str = ""  # names the run folder
    # files, folders of extracted frames, packed files, or a cache that extract_features.py wrote
    modality: Literal["video", "RGB", "shards", "features"] = "video"
    num_segments: int = bounded(8, 1, 77)  # T, frames a clip
    batch_size: int = bounded(64, 1, 2**16)  # clips a process
    workers: int = bounded(8, 0, 1024)
    prefetch: int = bounded(2, 1, 1024)  # batches that a worker prepares ahead
    loader_timeout_s: float = bounded(600.0, 0.0, MOST_SECONDS)  # longest wait for a batch of the workers; 0: no limit
    decoder: Literal["auto", "decord", "torchcodec", "pyav"] = "auto"  # of video files; auto: pyav
    # a video or frame with larger pictures counts as unreadable
    max_pixels: int = bounded(MAX_PIXELS, 1, 2**30)
    decode_timeout_s: float = bounded(
        60.0, 0.0, MOST_SECONDS
    )  # a video that takes longer counts as unreadable; 0: no limit
    num_classes: int = bounded(0, 0, MANY)  # checked against the label file; 0: whatever it holds
    image_tmpl: str = "img_{:05d}.jpg"
    index_bias: int = bounded(1, 0, MANY)  # number of the first extracted frame
    train_root: str = ""
    train_list: str = ""
    val_root: str = ""
    val_list: str = ""
    label_list: str = ""
    folder: str = ""  # one folder a class, instead of lists and label file
    val_share: float = bounded(0.2, 0.01, 0.99)  # of each class of ``folder``
    shot: int = bounded(0, 0, MANY)  # K: train on the same K videos of each class; 0: on all
    shot_seed: int = bounded(0, 0, 2**63 - 1)  # another one draws other videos
    shot_repeat: int = bounded(1, 1, MANY)  # passes over the train list an epoch
    transforms: str = ""  # preset of frames, crops and augmentation; empty: the system's own
    input_size: int = bounded(224, 1, 4096)
    random_shift: bool = True  # random frames within segments in training
    dense: bool = False  # 128-frame windows instead of the whole video
    crop_area: tuple[float, float] = (0.08, 1.0)  # of the training crop, as a share of the frame
    randaug: RandAugmentConfig | None = None
    output_path: str = "./exps"


@dataclass(frozen=True)
class NetworkConfig:
    """CLIP, its options and the temporal head."""

    arch: str = "ViT-B/16"
    init: bool = True  # False: only the image tower is CLIP's, the text tower is random
    activation: Literal["auto", "quick_gelu", "gelu"] = "auto"  # for local files of LAION's B and L
    drop_out: float = bounded(0.0, 0.0, 0.99)
    emb_dropout: float = bounded(0.0, 0.0, 0.99)
    joint_st: bool = False  # attention over the patches of all frames
    grad_checkpointing: bool = False  # recompute the image tower's activations: less memory, more time
    fix_text: bool = True
    fix_video: bool = False
    compile: bool = False  # torch.compile of the transformer blocks
    templates: str = "mote28"
    sim_header: Literal["Transf", "None"] = "Transf"  # None: mean pooling
    temporal_layer: int = bounded(4, 1, 1000)
    num_experts: int = bounded(4, 0, 1000)  # 0: a plain FFN
    merge_temperatures: tuple[float, ...] = (
        -9.6, -4.8, -2.4, -1.2, -0.6, 0.6, 1.2, 2.4, 4.8, 9.6, float("inf"),
    )  # fmt: skip


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of the loss (paper, section 3.3); merged = feature_mse = 0: no merged pass."""

    expert: float = 1.0
    merged: float = 0.5
    feature_mse: float = 0.1


@dataclass(frozen=True)
class SolverConfig:
    """Optimisation; lrs and epochs as published."""

    type: Literal["cosine", "multistep"] = "cosine"
    epochs: int = bounded(30, 1, MANY)
    start_epoch: int = bounded(0, 0, MANY)
    optim: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9  # sgd
    lr: float = bounded(5e-5, 0.0)
    clip_ratio: float = bounded(0.07, 0.0)  # lr of CLIP's own parameters = lr * clip_ratio
    lr_warmup_step: float = bounded(5.0, 0.0, MANY)  # epochs
    lr_decay_step: tuple[float, ...] = ()  # multistep, epochs
    lr_decay_factor: float = 0.1
    weight_decay: float = 0.2
    clip_grad_norm: float = bounded(0.0, 0.0)  # 0: off
    grad_accumulation_steps: int = bounded(1, 1, MANY)
    expert_draws: Literal["rank", "shared"] = "rank"  # each process draws its own, or all draw alike
    ema: float = bounded(0.0, 0.0, 0.999999)  # decay of the averaged weights kept beside the raw ones, 0: none
    strategy: Literal["ddp", "fsdp"] = "ddp"  # every GPU holds the model, or a part of it
    collective_timeout_s: float = bounded(1800.0, 1.0, MOST_SECONDS)  # longest wait of the processes for each other
    evaluate: bool = False  # only validate


@dataclass(frozen=True)
class LoggingConfig:
    """How often to report (steps), to validate (epochs) and to save in between."""

    print_freq: int = bounded(10, 1, MANY)
    eval_freq: int = bounded(1, 1, MANY)
    save_minutes: float = bounded(15.0, 0.0, MANY)  # between checkpoints within an epoch, taken at a report
    keep: int = bounded(2, 1, MANY)  # newest checkpoints kept for resuming


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation constants of the paper and of the published code."""

    weight_average: float = bounded(0.99, 0.0, 1.0)  # share of the tuned weights, the rest is CLIP's
    modulation: bool = True
    modulation_classes: int = bounded(5, 1, MANY)
    modulation_temperature: float = bounded(0.05, 1e-6)
    softmax_scale: float = bounded(1.0, 0.0)  # of the cosines before the softmax of close-set fusion
    half_class_trials: int = bounded(10, 1, MANY)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    resume: str = ""  # a checkpoint, or auto: the newest one of the run folder
    pretrain: str = ""
    seed: int = bounded(1024, 0, 2**63 - 1)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


# Published keys without effect there: they load, with one warning.
DEAD_KEYS = {
    "data.seg_length", "network.tm", "network.drop", "network.type", "network.n_emb", "solver.epoch_offset",
}  # fmt: skip
NOT_EMPTY = ("network.merge_temperatures",)
MAY_BE_INFINITE = ("network.merge_temperatures",)
# A number in text: PyYAML takes 5e-5, without a dot, for text, and JSON has no infinity.
NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?\.?inf", re.IGNORECASE)
LONGEST_TEXT = 4096  # of a value, as of a path
OVERRIDE_KEY = re.compile(r"\w+(\.\w+){0,3}")
MOST_FILES = 100  # of a configuration, each as often as it is named
# Published keys with one meaningful value here.
FIXED_KEYS = {"network.interaction": "DP", "solver.loss_type": "CE"}


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a YAML file and apply overrides ``section.key=value`` (values are YAML).

    Raises:
        FileNotFoundError: the file or its base does not exist.
        ValueError: unknown key (with the nearest name), wrong type, wrong choice, or not YAML.
    """
    return _resolve(_read_tree(Path(path), seen=(), count=itertools.count(1)), str(path), overrides)


def parse_config(text: str, source: str, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """As ``load_config``, from YAML text such as a checkpoint carries; ``source`` names it in errors."""
    return _resolve(_tree_of(text, source), source, overrides)


def _resolve(tree: dict, path: str, overrides: list[str] | tuple[str, ...]) -> Config:
    """Overrides laid over a tree of keys, every key checked."""
    for override in overrides:
        _merge(tree, _parse_override(override))
    source = f"{path} and the command line" if overrides else path
    config = _build(Config, _drop_dead_keys(tree), where="", source=source)
    if config.solver.start_epoch >= config.solver.epochs:
        raise ValueError(f"{source}: solver.start_epoch {config.solver.start_epoch} is not below solver.epochs")
    if 0.0 in config.network.merge_temperatures:
        raise ValueError(f"{source}: network.merge_temperatures: a temperature of 0 divides by zero")
    return config


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that ``load_config`` reads back."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def changes(before: str, after: Config) -> list[str]:
    """What another configuration (YAML, of ``to_yaml``) has otherwise: ``section.key: value, was value``."""
    old, new = _leaves(_tree_of(before, "a configuration before")), _leaves(_plain(dataclasses.asdict(after)))
    return [f"{key}: {value}, was {old[key]}" for key, value in new.items() if key in old and old[key] != value]


def _leaves(tree: dict, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _read_tree(path: Path, seen: tuple[Path, ...], count: Iterator[int]) -> dict:
    if not path.is_file():
        named = f", the base of {seen[-1]}" if seen else ""
        raise FileNotFoundError(f"config {path}: {'not a file' if path.exists() else 'no such file'}{named}")
    if path.resolve() in seen:
        raise ValueError(f"config {path}: base files form a circle")
    if next(count) > MOST_FILES:
        raise ValueError(f"config {path}: base files name more than {MOST_FILES} files")
    with path.open("rb") as file:
        tree = _tree_of(file.read(MAX_BYTES + 1), f"config {path}")
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"config {path}: base: expected a file or a list of files, found {shown(bases)}")
    inherited: dict = {}
    for base in bases:
        base = _convert(base, str, "base", f"config {path}")
        _merge(inherited, _read_tree(path.parent / base, (*seen, path.resolve()), count))
    _merge(inherited, tree)
    return inherited


def _tree_of(text: str | bytes, source: str) -> dict:
    if not isinstance(text, str | bytes):
        raise ValueError(f"{source}: expected YAML text, found {shown(text)}")
    tree = read_yaml(text, source)
    if tree is None:  # an empty file
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: expected sections with keys, found {shown(tree)}")
    return tree


def _merge(tree: dict, changes: dict) -> None:
    """Lay ``changes`` over ``tree``, section by section."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif not (value is None and isinstance(tree.get(key), dict)):  # an empty section changes nothing
            tree[key] = value


def _parse_override(override: str) -> dict:
    key, separator, text = override.partition("=")
    if not separator or not OVERRIDE_KEY.fullmatch(key):
        raise ValueError(f"override {shown(override)}: expected section.key=value")
    try:
        value = read_yaml(text, f"override {shown(override)}")
    except ValueError as error:
        raise ValueError(f"{error}; put text into quotes") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _drop_dead_keys(tree: dict) -> dict:
    """Take out published keys that are dead or have one possible value, and say so."""
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    ignored = []
    for dotted in sorted(DEAD_KEYS | FIXED_KEYS.keys()):
        section, key = dotted.split(".")
        if not isinstance(tree.get(section), dict) or key not in tree[section]:
            continue
        value = tree[section].pop(key)
        if dotted in DEAD_KEYS:
            ignored.append(dotted)
        elif value not in (FIXED_KEYS[dotted], None):
            raise ValueError(f"{dotted}: only {FIXED_KEYS[dotted]!r} is implemented, found {shown(value)}")
    if ignored:
        logger.warning("keys without effect, as in the published code: %s", ", ".join(ignored))
    return tree


def _build(cls: type, tree: Any, where: str, source: str) -> Any:
    """One dataclass from one mapping."""
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: {where or 'file'}: expected keys, found {shown(tree)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        dotted = f"{where}.{key}" if where else str(key)
        if key not in hints:
            name = dotted if len(dotted) <= MAX_SHOWN else f"{dotted[:MAX_SHOWN]}..."
            raise ValueError(f"{source}: unknown key {name}; the nearest is {_nearest_key(name)}")
        if value is None and "None" in typing.get_args(hints[key]):
            value = "None"  # sim_header: null means what the published string None means
        if value is not None:  # an empty key keeps its default
            values[key] = _convert(value, hints[key], dotted, source)
    _check_ranges(cls, values, where, source)
    return cls(**values)


def _nearest_key(unknown: str) -> str:
    """The known dotted key that was probably meant: the same name elsewhere, else the most similar one."""
    known = [entry.name for entry in dataclasses.fields(Config)]
    for section, hint in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(hint):
            known += [f"{section}.{entry.name}" for entry in dataclasses.fields(hint)]
    namesakes = [key for key in known if key.split(".")[-1] == unknown.split(".")[-1]]
    return (namesakes or difflib.get_close_matches(unknown, known, n=1, cutoff=0.0))[0]


def _check_ranges(cls: type, values: dict[str, Any], where: str, source: str) -> None:
    for entry in dataclasses.fields(cls):
        least, most = (entry.metadata.get(bound) for bound in ("least", "most"))
        value = values.get(entry.name)
        if least is not None and value is not None and not least <= value <= most:
            limits = f"at least {least}" if most == float("inf") else f"{least} to {most}"
            dotted = f"{where}.{entry.name}" if where else entry.name
            raise ValueError(f"{source}: {dotted}: expected {limits}, found {shown(value)}")
    low, high = values.get("crop_area", (1.0, 1.0))
    if not 0.0 < low <= high <= 1.0:
        raise ValueError(f"{source}: {where}.crop_area: expected two shares 0 < a <= b <= 1, found {[low, high]}")


def _convert(value: Any, expected: Any, where: str, source: str) -> Any:
    """Check one value against its declared type."""
    origin, options = typing.get_origin(expected), typing.get_args(expected)
    if origin is types.UnionType:  # X | None
        return _convert(value, options[0], where, source)
    if dataclasses.is_dataclass(expected):
        return _build(expected, value, where, source)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"{source}: {where}: expected one of {', '.join(options)}, found {shown(value)}")
    if origin is tuple and isinstance(value, list | tuple):
        if options[-1] is not ... and len(value) != len(options):
            raise ValueError(f"{source}: {where}: expected {len(options)} values, found {shown(value)}")
        if not value and where in NOT_EMPTY:
            raise ValueError(f"{source}: {where}: expected at least one number, found {shown(value)}")
        return tuple(_convert(item, options[0], where, source) for item in value)
    if expected is float and (type(value) in (int, float) or (isinstance(value, str) and NUMBER.fullmatch(value))):
        number = float(value)
        if math.isfinite(number) or (where in MAY_BE_INFINITE and not math.isnan(number)):
            return number
        raise ValueError(f"{source}: {where}: expected a finite number, found {shown(value)}")
    if expected in (bool, int, str) and type(value) is expected:
        if expected is str and (len(value) > LONGEST_TEXT or has_control_characters(value)):
            limits = f"one line of at most {LONGEST_TEXT} characters"
            raise ValueError(f"{source}: {where}: expected {limits}, found {shown(value)}")
        return value
    name = "a list of numbers" if origin is tuple else expected.__name__
    raise ValueError(f"{source}: {where}: expected {name}, found {shown(value)}")
