"""YAML to a frozen, typed configuration; every mistake is an error that names the key.

The keys are the published ones (BIKE's spelling), so published files load unchanged; ``loss`` and ``eval``
are sections of ours. A file may name a ``base:`` file, or a list of them, whose keys it inherits and overrides.
"""

import dataclasses
import difflib
import logging
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

logger = logging.getLogger(__name__)


def bounded(default: float, least: float, most: float = float("inf")) -> Any:
    """A number with a range, which ``load_config`` checks."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class RandAugmentConfig:
    """torchvision's RandAugment: N operations of magnitude M, one draw a clip."""

    N: int = bounded(2, 0)
    M: int = bounded(9, 0, 30)


@dataclass(frozen=True)
class DataConfig:
    """Lists, frames and batches."""

    dataset: str = ""  # names the run folder
    # files, folders of extracted frames, packed files, or a cache that extract_features.py wrote
    modality: Literal["video", "RGB", "shards", "features"] = "video"
    num_segments: int = bounded(8, 1, 77)  # T, frames a clip
    batch_size: int = bounded(64, 1)  # clips a process
    workers: int = bounded(8, 0)
    prefetch: int = bounded(2, 1)  # batches that a worker prepares ahead
    loader_timeout_s: float = bounded(600.0, 0.0)  # longest wait for a batch of the workers; 0: no limit
    decoder: Literal["auto", "decord", "torchcodec", "pyav"] = "auto"  # of video files
    decode_timeout_s: float = bounded(60.0, 0.0)  # a video that takes longer counts as unreadable; 0: no limit
    num_classes: int = bounded(0, 0)  # checked against the label file; 0: whatever it holds
    image_tmpl: str = "img_{:05d}.jpg"
    index_bias: int = 1  # number of the first extracted frame
    train_root: str = ""
    train_list: str = ""
    val_root: str = ""
    val_list: str = ""
    label_list: str = ""
    folder: str = ""  # one folder a class, instead of lists and label file
    val_share: float = bounded(0.2, 0.01, 0.99)  # of each class of ``folder``
    shot: int = bounded(0, 0)  # K: train on the same K videos of each class; 0: on all
    shot_seed: int = bounded(0, 0)  # another one draws other videos
    shot_repeat: int = bounded(1, 1)  # passes over the train list an epoch
    input_size: int = bounded(224, 1)
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
    temporal_layer: int = bounded(4, 1)
    num_experts: int = 4  # 0: a plain FFN
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
    epochs: int = bounded(30, 1)
    start_epoch: int = bounded(0, 0)
    optim: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9  # sgd
    lr: float = bounded(5e-5, 0.0)
    clip_ratio: float = bounded(0.07, 0.0)  # lr of CLIP's own parameters = lr * clip_ratio
    lr_warmup_step: float = bounded(5.0, 0.0)  # epochs
    lr_decay_step: tuple[float, ...] = ()  # multistep, epochs
    lr_decay_factor: float = 0.1
    weight_decay: float = 0.2
    clip_grad_norm: float = bounded(0.0, 0.0)  # 0: off
    grad_accumulation_steps: int = bounded(1, 1)
    expert_draws: Literal["rank", "shared"] = "rank"  # each process draws its own, or all draw alike
    ema: float = bounded(0.0, 0.0, 0.999999)  # decay of the averaged weights kept beside the raw ones, 0: none
    strategy: Literal["ddp", "fsdp"] = "ddp"  # every GPU holds the model, or a part of it
    collective_timeout_s: float = bounded(1800.0, 1.0)  # longest wait of the processes for each other
    evaluate: bool = False  # only validate


@dataclass(frozen=True)
class LoggingConfig:
    """How often to report (steps), to validate (epochs) and to save in between."""

    print_freq: int = bounded(10, 1)
    eval_freq: int = bounded(1, 1)
    save_minutes: float = bounded(15.0, 0.0)  # between checkpoints within an epoch, taken at a report
    keep: int = bounded(2, 1)  # newest checkpoints kept for resuming


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation constants of the paper and of the published code."""

    weight_average: float = bounded(0.99, 0.0, 1.0)  # share of the tuned weights, the rest is CLIP's
    modulation: bool = True
    modulation_classes: int = bounded(5, 1)
    modulation_temperature: float = bounded(0.05, 1e-6)
    softmax_scale: float = bounded(1.0, 0.0)  # of the cosines before the softmax of close-set fusion
    half_class_trials: int = bounded(10, 1)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    resume: str = ""  # a checkpoint, or auto: the newest one of the run folder
    pretrain: str = ""
    seed: int = 1024
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
# Published keys with one meaningful value here.
FIXED_KEYS = {"network.interaction": "DP", "solver.loss_type": "CE"}


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a YAML file and apply overrides ``section.key=value`` (values are YAML).

    Raises:
        FileNotFoundError: the file or its base does not exist.
        ValueError: unknown key (with the nearest name), wrong type, wrong choice, or not YAML.
    """
    return _resolve(_read_tree(Path(path), seen=()), str(path), overrides)


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


def _read_tree(path: Path, seen: tuple[Path, ...]) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"config {path}: no such file")
    if path.resolve() in seen:
        raise ValueError(f"config {path}: base files form a circle")
    tree = _tree_of(path.read_bytes(), f"config {path}")
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"config {path}: base: expected a file or a list of files, found {bases!r}")
    inherited: dict = {}
    for base in bases:
        _merge(inherited, _read_tree(path.parent / base, (*seen, path.resolve())))
    _merge(inherited, tree)
    return inherited


def _tree_of(text: str | bytes, source: str) -> dict:
    try:
        tree = yaml.safe_load(text.decode() if isinstance(text, bytes) else text) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: expected sections with keys, found {type(tree).__name__}")
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
    if not separator or not key:
        raise ValueError(f"override {override!r}: expected section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"override {override!r}: {text!r} is not YAML; quote it") from None
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
            raise ValueError(f"{dotted}: only {FIXED_KEYS[dotted]!r} is implemented, found {value!r}")
    if ignored:
        logger.warning("keys without effect, as in the published code: %s", ", ".join(ignored))
    return tree


def _build(cls: type, tree: Any, where: str, source: str) -> Any:
    """One dataclass from one mapping."""
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: {where or 'file'}: expected keys, found {tree!r}")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        dotted = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise ValueError(f"{source}: unknown key {dotted}; the nearest is {_nearest_key(dotted)}")
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
            raise ValueError(f"{source}: {where}.{entry.name}: expected {limits}, found {value!r}")
    low, high = values.get("crop_area", (1.0, 1.0))
    if not 0.0 < low <= high <= 1.0:
        raise ValueError(f"{source}: {where}.crop_area: expected two shares 0 < a <= b <= 1, found {[low, high]}")


def _convert(value: Any, expected: Any, where: str, source: str) -> Any:
    """Check one value against its declared type; numbers written like 5e-5 are accepted as such."""
    origin, options = typing.get_origin(expected), typing.get_args(expected)
    if origin is types.UnionType:  # X | None
        return _convert(value, options[0], where, source)
    if dataclasses.is_dataclass(expected):
        return _build(expected, value, where, source)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"{source}: {where}: expected one of {', '.join(options)}, found {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        if options[-1] is not ... and len(value) != len(options):
            raise ValueError(f"{source}: {where}: expected {len(options)} values, found {value!r}")
        if not value and where in NOT_EMPTY:
            raise ValueError(f"{source}: {where}: expected at least one number, found {value!r}")
        return tuple(_convert(item, options[0], where, source) for item in value)
    if expected is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # PyYAML reads 5e-5, without a dot, as a string
        except ValueError:
            pass
    elif expected in (bool, int, str) and type(value) is expected:
        return value
    name = "a list of numbers" if origin is tuple else expected.__name__
    raise ValueError(f"{source}: {where}: expected {name}, found {value!r}")
