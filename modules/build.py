"""From a configuration to its parts: towers, classes, system. A new part is one more line in a registry."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import utils.config
from clip.load import load_towers, pictures_of
from clip.shapes import DIVIDED
from clip.spacetime import fit_to_clips
from clip.towers import Towers
from modules.classes.base import Classes, FixedClasses
from modules.classes.classifiers import TrainFeatures, build_classifier
from modules.classes.descriptors import descriptor_classes
from modules.classes.sentences import class_texts, shipped_file
from modules.classes.templates import template_classes
from modules.formats.configs import published_base
from modules.heads.experts import ExpertTransformer
from modules.heads.mean import MeanPooling
from modules.heads.projection import ResidualProjection
from modules.heads.transformer import HEAD_WIDTH, TemporalTransformer
from modules.recompute import apply_recompute
from modules.running.residual import apply_residual
from modules.systems.base import System
from modules.systems.clip import PlainCLIP
from modules.systems.mote import MoTE
from modules.systems.ost import OST, OSTSettings
from modules.systems.remedies import Remedies
from modules.systems.text4vis import Text4Vis
from modules.systems.tvtsv2 import TVTSv2
from modules.systems.vificlip import ViFiCLIP
from modules.weights import config_of_tested
from utils.config import Config, NetworkConfig
from utils.config.pixels import TOWER_PRESET
from utils.distributed import first_process_first
from utils.run_folder import folder_name
from utils.weights.four_keys import CLASSIFIER
from utils.weights.state_dicts import weights_sha256


def _experts(config: Config, towers: Towers, num_train_classes: int) -> ExpertTransformer:
    network, heads = config.network, towers.spec.text_width // HEAD_WIDTH
    return ExpertTransformer(
        towers.spec.embed_dim, network.temporal_layer, heads, network.num_experts, num_train_classes
    )


def _transformer(config: Config, towers: Towers, num_train_classes: int) -> TemporalTransformer:
    spec = towers.spec
    return TemporalTransformer(spec.embed_dim, config.network.temporal_layer, spec.text_width // HEAD_WIDTH)


def _of_templates(config: Config, towers: Towers, class_names: list[str]) -> Classes:
    network = config.network
    texts = class_texts(network.class_text, class_names, config.data.dataset)
    return template_classes(towers, texts, network.templates, is_live=not network.fix_text)


def _of_descriptors(config: Config, towers: Towers, class_names: list[str]) -> Classes:
    paths = config.section("ost", OSTSettings).descriptors or shipped_file(config.data.dataset, "ost.descriptors")
    return descriptor_classes(towers, class_names, paths, is_live=not config.network.fix_text)


# Values of network.sim_header: (configuration, towers, number of training classes) -> [B, T, D] -> [B, T, D].
HEADS: dict[str, Callable[[Config, Towers, int], nn.Module]] = {
    "Transf": _experts,
    "transformer": _transformer,
    "None": lambda config, towers, num_train_classes: MeanPooling(),
}
DESCRIPTORS = "descriptors"  # sets of them, which are no one vector a class
# Values of network.classes: (configuration, towers, class names) -> what videos are compared with.
CLASSES: dict[str, Callable[[Config, Towers, list[str]], Classes]] = {
    "templates": _of_templates,
    DESCRIPTORS: _of_descriptors,
}
# Values of network.system.
SYSTEMS: dict[str, type[System]] = {
    "mote": MoTE,
    "clip": PlainCLIP,
    "text4vis": Text4Vis,
    "vificlip": ViFiCLIP,
    "ost": OST,
    "tvtsv2": TVTSv2,
}
SETTINGS = {name: system.Settings for name, system in SYSTEMS.items()}

PICTURES = ("pixel_mean", "pixel_std", "interpolation", "resize")  # fields of ``TowerSpec`` that frame features show
PLAIN_CLIP = "clip"  # the pretrained model, frames averaged; in the place of a weights file, too


def load_config(path: str | Path, overrides: Sequence[str] = (), told: str = "") -> Config:
    """Read a YAML file, with the sections of all systems; a published one takes the settings of its system.

    Args:
        overrides: ``section.key=value``.
        told: see ``modules.formats.configs.published_base``.

    Raises:
        ValueError, FileNotFoundError: see ``utils.config.load_config``.
    """
    return _settled(utils.config.load_config(path, overrides, SETTINGS, partial(published_base, told=told)))


def parse_config(text: str, source: str, overrides: Sequence[str] = (), told: str = "") -> Config:
    """As ``load_config``, from YAML text such as a checkpoint carries; ``source`` names it in errors."""
    return _settled(utils.config.parse_config(text, source, overrides, SETTINGS, partial(published_base, told=told)))


def _settled(config: Config) -> Config:
    """The same with the system's tower, preset and loss, and the tower's size and resize, where the file is silent."""
    system = SYSTEMS[config.network.system]
    network = replace(config.network, tower=config.network.tower or system.tower)
    data = replace(config.data, transforms=config.data.transforms or system.preset)
    follows_tower = data.transforms == TOWER_PRESET and not data.resize
    if follows_tower or not data.input_size:
        pictures = pictures_of(config.network.arch)
        data = replace(
            data,
            resize=pictures.resize if follows_tower else data.resize,
            input_size=data.input_size or _size_told(pictures.size, config.network.arch),
        )
    solver = replace(config.solver, loss_type=config.solver.loss_type or system.losses[0])
    return replace(config, network=network, data=data, solver=solver)


def _size_told(size: int, arch: str) -> int:
    if not size:
        raise ValueError(f"data.input_size: 0 stands for the size that the name of a model tells, but {arch} is a file")
    return size


def plain(config: Config) -> Config:
    """The same with the pretrained towers alone: frames are not mixed; classes, score and pictures are the system's."""
    system = PLAIN_CLIP if SYSTEMS[config.network.system].knows_head else config.network.system
    return replace(config, network=replace(config.network, system=system, sim_header="None"))


def head_of(config: Config) -> str:
    """Name of the head: ``network.sim_header``, or the system's own."""
    return config.network.sim_header or next(iter(SYSTEMS[config.network.system].heads))


def named_head(config: Config) -> Config:
    """The same with the head's name, where the file leaves it to the system."""
    return replace(config, network=replace(config.network, sim_header=head_of(config)))


def _builder_of_head(config: Config) -> Callable[[Config, Towers, int], nn.Module]:
    name = head_of(config)
    return HEADS[SYSTEMS[config.network.system].heads.get(name, name)]


def remembers_classes(config: Config) -> bool:
    """Whether the head keeps the classes of training, see ``System.remember``."""
    return _builder_of_head(config) is _experts


def build_towers(
    config: NetworkConfig, num_frames: int, input_size: int | None, seed: int, rules: Mapping[str, Any] = {}
) -> Towers:
    """The towers with the options of the configuration, fp32 on the CPU.

    What the weights do not hold (a time embedding; with ``init: False`` the text tower) is drawn from ``seed``: alike
    on every process, in training and in tests.

    Args:
        rules: of pictures, in the place of the towers' own: ``of_towers`` of ``datasets.clips.presets.preset_of``.

    Raises:
        ValueError: ``input_size`` (None: any) is not what the weights were made for, or the towers lack an option.
    """
    options = {
        "visual_only": not config.init,
        "drop_path": config.drop_out,
        "emb_dropout": config.emb_dropout,
        "joint_frames": num_frames if config.joint_st else 0,
        "time_module": str(config.tm) if config.tm else "",
        "tower": DIVIDED if config.tower == DIVIDED else "",
        "head_width": config.head_width,
        "activation": "" if config.activation == "auto" else config.activation,
    }
    torch.manual_seed(seed)
    with first_process_first():
        towers = load_towers(config.arch, **{name: value for name, value in options.items() if value})
    if towers.joins_frames and not (config.joint_st or config.tower == DIVIDED):
        raise ValueError(f"network.tower: {config.arch} is a space-time tower, expected divided, found {config.tower}")
    if config.tower == DIVIDED:
        fit_to_clips(towers, num_frames, input_size)
    if input_size not in (None, towers.spec.image_size):
        raise ValueError(f"data.input_size is {input_size}, but {config.arch} takes {towers.spec.image_size} pixels")
    towers.set_spec(replace(towers.spec, **rules))
    return towers


def kind_of_classes(config: Config) -> str:
    """The key of ``CLASSES`` that counts: the system's own, or ``network.classes``."""
    return SYSTEMS[config.network.system].own_classes or config.network.classes


def build_classes(
    config: Config,
    towers: Towers,
    class_names: list[str],
    checkpoint: Mapping[str, Any] | None = None,
    train_features: TrainFeatures | None = None,
) -> Classes:
    """Classes from their names, on the towers' device.

    Args:
        checkpoint: whose classifier is taken, if it has one.
        train_features: where a classifier may learn from the training videos.
    """
    network = config.network
    section = config.section(network.system, SYSTEMS[network.system].Settings)
    if classifier := SYSTEMS[network.system].classifier(section):
        return build_classifier(classifier, towers, class_names, config.seed, checkpoint or {}, train_features)
    return CLASSES[kind_of_classes(config)](config, towers, class_names)


def brought_classes(config: Config, towers: Towers, checkpoint: Mapping[str, Any]) -> Classes:
    """The classes of a checkpoint's classifier; without one a stand-in, for a model that is asked about no classes."""
    if CLASSIFIER not in checkpoint:
        return FixedClasses(torch.zeros(1, towers.spec.embed_dim))
    return build_classes(config, towers, list(checkpoint.get("class_names", ())), checkpoint)


def build_system(config: Config, towers: Towers, classes: Classes) -> System:
    """The video model around ``towers``, on their device; towers that the configuration fixes do not train.

    Args:
        classes: of the training set, see ``build_classes``; what tests need of them is remembered.
    """
    network, device = config.network, towers.logit_scale.device
    torch.manual_seed(config.seed)  # the head starts alike on every process
    if network.fix_text:
        (towers.freeze_text if classes.needs_text else towers.drop_text)()
    head = _builder_of_head(config)(config, towers, len(classes))
    # A loss that knows its head is not for another one.
    own = SYSTEMS[network.system]
    name = PLAIN_CLIP if own.knows_head and head_of(config) not in own.heads else network.system
    section = config.section(name, SYSTEMS[name].Settings)
    system = SYSTEMS[name](towers, head, classes, section, config.solver).to(device)
    towers.image_tower.requires_grad_(not network.fix_video)
    if rank := network.residual_projection:
        system.projection = ResidualProjection(towers.spec.embed_dim, rank).to(device)
    apply_recompute(system, network.recompute)
    apply_residual(system, network.residual)
    with torch.no_grad():
        system.eval().remember(classes.encode(towers))
    return system.train()


def add_remedies(system: System, config: Config, rules: Mapping[str, Any] = {}) -> None:
    """Give a system the remedies that training asks for, and their teachers.

    After copies of it are made, which must not hold teachers, and after its weights are loaded, since the teacher that
    follows begins with them.

    Args:
        rules: of pictures, see ``build_towers``.
    """
    loss, network, data = config.loss, config.network, config.data
    frozen = follower = None
    if loss.distill and data.modality != "features":
        # CLIP has no module between frames, and a teacher drops nothing.
        bare = replace(network, tm=False, drop_out=0.0, emb_dropout=0.0)
        frozen = build_towers(bare, data.num_segments, data.input_size, config.seed, rules)
        frozen.drop_text()
        frozen.to(system.towers.logit_scale.device)
    if loss.relations:
        follower = copy.deepcopy(system.towers)
        if not network.fix_text or system.classes.needs_text:  # else it was dropped
            follower.drop_text()
    if loss.distill or loss.head_mse or loss.relations:
        system.remedies = Remedies(loss, frozen, follower)


def load_system(config: Config, towers: Towers, classes: Classes, checkpoint: Mapping[str, Any], source: str) -> System:
    """The video model as tests see it: with a checkpoint's weights, averaged with the pretrained ones of ``towers``.

    Raises:
        ValueError: the checkpoint ``source`` does not fit.
    """
    config = config_of_tested(config, checkpoint)
    system = build_system(config, towers, classes)
    system.drop_training_parts()
    system.load_weights(checkpoint, source, config.eval.weight_average)
    return system


def describe_towers(config: Config, towers: Towers) -> dict[str, Any]:
    """What frame features depend on beside the pictures, as a feature cache records it.

    The size of the pictures is ``data.input_size``, see ``build_towers``.
    """
    return {
        "arch": folder_name(config.network.arch),  # the hash tells files of one name apart
        **towers.facts,
        **{name: getattr(towers.spec, name) for name in PICTURES},
        "image_tower_sha256": weights_sha256(towers.image_tower.state_dict()),
    }
