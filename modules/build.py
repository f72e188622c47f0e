"""From a configuration to its parts: towers, classes, system. A new part is one more line in a registry."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

import utils.config
from clip.load import load_towers
from clip.towers import Towers
from modules.classes.base import Classes
from modules.classes.templates import TEMPLATES, template_classes
from modules.heads.experts import ExpertTransformer
from modules.heads.mean import MeanPooling
from modules.heads.transformer import HEAD_WIDTH
from modules.systems.base import System
from modules.systems.clip import PlainCLIP
from modules.systems.mote import MoTE
from modules.weights import config_of_tested
from utils.config import Config, NetworkConfig, check_choice
from utils.distributed import first_process_first
from utils.run_folder import folder_name
from utils.weights.state_dicts import weights_sha256


def _experts(config: Config, towers: Towers, num_train_classes: int) -> ExpertTransformer:
    network, heads = config.network, towers.spec.text_width // HEAD_WIDTH
    return ExpertTransformer(
        towers.spec.embed_dim, network.temporal_layer, heads, network.num_experts, num_train_classes
    )


def _of_templates(config: Config, towers: Towers, class_names: list[str]) -> Classes:
    return template_classes(towers, class_names, config.network.templates, is_live=not config.network.fix_text)


# Values of network.sim_header: (configuration, towers, number of training classes) -> [B, T, D] -> [B, T, D].
HEADS: dict[str, Callable[[Config, Towers, int], nn.Module]] = {
    "Transf": _experts,
    "None": lambda config, towers, num_train_classes: MeanPooling(),
}
# Values of network.classes: (configuration, towers, class names) -> what videos are compared with.
CLASSES: dict[str, Callable[[Config, Towers, list[str]], Classes]] = {"templates": _of_templates}
# Values of network.system.
SYSTEMS: dict[str, type[System]] = {"mote": MoTE, "clip": PlainCLIP}
SETTINGS = {name: system.Settings for name, system in SYSTEMS.items()}
# Configurations with the sections of all systems.
load_config = partial(utils.config.load_config, systems=SETTINGS)
parse_config = partial(utils.config.parse_config, systems=SETTINGS)

PLAIN_CLIP = "clip"  # the pretrained model, frames averaged; in the place of a weights file, too


def plain(config: Config) -> Config:
    """The same with the pretrained towers alone, frames averaged."""
    return replace(config, network=replace(config.network, system=PLAIN_CLIP, sim_header=""))


def head_of(config: Config) -> str:
    """Name of the head: ``network.sim_header``, or the system's own."""
    return config.network.sim_header or SYSTEMS[config.network.system].own_head


def named_head(config: Config) -> Config:
    """The same with the head's name, where the file leaves it to the system."""
    return replace(config, network=replace(config.network, sim_header=head_of(config)))


def check_network(config: Config) -> None:
    """Settings that contradict each other, found before any weights are read.

    Raises:
        ValueError: names the keys.
    """
    network = config.network
    check_choice("network.system", network.system, SYSTEMS)
    check_choice("network.classes", network.classes, CLASSES)
    check_choice("network.templates", network.templates, TEMPLATES)
    check_choice("network.sim_header", head_of(config), HEADS)
    if network.joint_st and head_of(config) != "None":
        raise ValueError("network.joint_st encodes a clip as one vector, so network.sim_header must be None")
    if config.solver.ema and config.solver.strategy == "fsdp":
        raise ValueError("solver.ema keeps a whole second model, for which solver.strategy fsdp leaves no room")
    if config.data.modality == "features":
        if not network.fix_video:
            raise ValueError(
                "data.modality features has no pictures to train the image tower on: set network.fix_video to True"
            )
        if network.drop_out or network.emb_dropout:
            raise ValueError(
                "network.drop_out and network.emb_dropout act in the image tower, which data.modality features does "
                "not run: set them to 0"
            )


def build_towers(config: NetworkConfig, num_frames: int, input_size: int | None, seed: int) -> Towers:
    """The towers with the options of the configuration, fp32 on the CPU.

    What the weights do not hold (a time embedding; with ``init: False`` the text tower) is drawn from ``seed``: alike
    on every process, in training and in tests.

    Raises:
        ValueError: ``input_size`` (None: any) is not what the weights were made for.
    """
    options = {
        "visual_only": not config.init,
        "drop_path": config.drop_out,
        "emb_dropout": config.emb_dropout,
        "joint_frames": num_frames if config.joint_st else 0,
        "activation": "" if config.activation == "auto" else config.activation,
    }
    torch.manual_seed(seed)
    with first_process_first():
        towers = load_towers(config.arch, **{name: value for name, value in options.items() if value})
    if input_size not in (None, towers.spec.image_size):
        raise ValueError(f"data.input_size is {input_size}, but {config.arch} takes {towers.spec.image_size} pixels")
    return towers


def build_classes(config: Config, towers: Towers, class_names: list[str]) -> Classes:
    """Classes from their names, on the towers' device."""
    return CLASSES[config.network.classes](config, towers, class_names)


def build_system(config: Config, towers: Towers, classes: Classes) -> System:
    """The video model around ``towers``, on their device; towers that the configuration fixes do not train.

    Args:
        classes: of the training set, see ``build_classes``; what tests need of them is remembered.
    """
    network, device = config.network, towers.logit_scale.device
    torch.manual_seed(config.seed)  # the head starts alike on every process
    if network.fix_text:
        towers.drop_text()
    head = HEADS[head_of(config)](config, towers, len(classes))
    # With a head that is not its own, any system is the plain one.
    name = network.system if head_of(config) == SYSTEMS[network.system].own_head else PLAIN_CLIP
    section = config.section(name, SYSTEMS[name].Settings)
    system = SYSTEMS[name](towers, head, classes, section, config.solver.clip_ratio).to(device)
    towers.image_tower.requires_grad_(not network.fix_video)
    towers.checkpoint_activations(network.grad_checkpointing)
    with torch.no_grad():
        system.eval().remember(classes.encode(towers))
    return system.train()


def load_system(config: Config, towers: Towers, classes: Classes, checkpoint: Mapping[str, Any], source: str) -> System:
    """The video model as tests see it: with a checkpoint's weights, averaged with the pretrained ones of ``towers``.

    Raises:
        ValueError: the checkpoint ``source`` does not fit.
    """
    config = config_of_tested(config, checkpoint)
    system = build_system(config, towers, classes)
    system.load_weights(checkpoint, source, config.eval.weight_average)
    return system


def describe_towers(config: Config, towers: Towers) -> dict[str, Any]:
    """What frame features depend on beside the pictures, as a feature cache records it.

    The size of the pictures is ``data.input_size``, see ``build_towers``.
    """
    return {
        "arch": folder_name(config.network.arch),  # the hash tells files of one name apart
        **towers.facts,
        **{name: getattr(towers.spec, name) for name in ("pixel_mean", "pixel_std", "interpolation")},
        "image_tower_sha256": weights_sha256(towers.image_tower.state_dict()),
    }
