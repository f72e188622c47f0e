"""NetworkConfig to CLIP, class features and the video model. A new temporal head is one more line in HEADS."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clip.load import load_clip
from clip.model import CLIP
from modules.classes.templates import TEMPLATES, check_text_tower, encode_classes, tokenize_classes
from modules.heads.transformer import HEAD_WIDTH, MeanPooling, TemporalTransformer
from modules.video_clip import VideoCLIP
from modules.weights import config_of_tested
from utils.config import Config, NetworkConfig
from utils.distributed import first_process_first
from utils.run_folder import folder_name
from utils.weights.state_dicts import weights_sha256


def _transf(config: Config, clip: CLIP, num_train_classes: int) -> nn.Module:
    return TemporalTransformer(
        width=clip.config.embed_dim,
        layers=config.network.temporal_layer,
        heads=clip.config.text_width // HEAD_WIDTH,
        num_experts=config.network.num_experts,
        num_train_classes=num_train_classes,
        merge_temperatures=config.network.merge_temperatures,
        with_merged=config.loss.merged > 0 or config.loss.feature_mse > 0,
    )


HEADS: dict[str, Callable[[Config, CLIP, int], nn.Module]] = {
    "Transf": _transf,
    "None": lambda config, clip, num_train_classes: MeanPooling(),
}


def check_network(config: Config) -> None:
    """Settings that contradict each other, found before any weights are read.

    Raises:
        ValueError: names the keys.
    """
    network = config.network
    if network.templates not in TEMPLATES:
        raise ValueError(f"network.templates: expected one of {', '.join(TEMPLATES)}, found {network.templates!r}")
    if network.joint_st and network.sim_header != "None":
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


def image_tower(config: Config, model: VideoCLIP) -> dict[str, str]:
    """What frame features depend on beside the pictures, as a feature cache records it."""
    return {
        "arch": folder_name(config.network.arch),  # the hash tells files of one name apart
        "activation": model.clip.config.activation,
        "image_tower_sha256": weights_sha256(model.clip.visual.state_dict()),
    }


def build_clip(config: NetworkConfig, num_frames: int, input_size: int | None, seed: int) -> CLIP:
    """CLIP with the options of the configuration, fp32 on the CPU.

    What the weights do not hold (a time embedding; with ``init: False`` the text tower) is drawn from ``seed``: alike
    on every process, in training and in tests.

    Raises:
        ValueError: ``input_size`` (None: any) is not what the weights were made for.
    """
    options = {
        "drop_path": config.drop_out,
        "emb_dropout": config.emb_dropout,
        "joint_frames": num_frames if config.joint_st else 0,
    }
    if config.activation != "auto":
        options["activation"] = config.activation
    torch.manual_seed(seed)
    with first_process_first():
        clip = load_clip(config.arch, visual_only=not config.init, **options)
    if input_size not in (None, clip.config.image_size):
        raise ValueError(f"data.input_size is {input_size}, but {config.arch} takes {clip.config.image_size} pixels")
    return clip


def build_classes(config: NetworkConfig, clip: CLIP, class_names: list[str]) -> Tensor:
    """What ``VideoCLIP`` compares with, on CLIP's device: class features [K, D] of the fixed text tower, or the
    tokens [K, M, 77] where that tower trains too (``fix_text: False``)."""
    if config.fix_text:
        return encode_classes(clip, class_names, config.templates)
    tokens = tokenize_classes(class_names, config.templates)
    check_text_tower(clip, tokens)
    return tokens.to(clip.logit_scale.device)


def build_model(config: Config, clip: CLIP, classes: Tensor) -> VideoCLIP:
    """The video model around ``clip``, on its device; towers that the configuration fixes do not train.

    Args:
        classes: of the training set, see ``build_classes``; the head remembers their features.
    """
    torch.manual_seed(config.seed)  # the head starts alike on every process
    modulation = (config.eval.modulation_classes, config.eval.modulation_temperature)
    model = VideoCLIP(
        clip,
        HEADS[config.network.sim_header](config, clip, len(classes)),
        train_text=not config.network.fix_text,
        modulation=modulation if config.eval.modulation else None,
    ).to(classes.device)
    model.clip.visual.requires_grad_(not config.network.fix_video)
    model.clip.visual.transformer.grad_checkpointing = config.network.grad_checkpointing
    with torch.no_grad():
        model.eval().remember_train_classes(model.class_features(classes))
    return model.train()


def load_model(config: Config, clip: CLIP, classes: Tensor, checkpoint: Mapping[str, Any], source: str) -> VideoCLIP:
    """The video model around ``clip`` as tests see it: with a checkpoint's weights, averaged with CLIP's.

    Raises:
        ValueError: the checkpoint ``source`` does not fit.
    """
    config = config_of_tested(config, checkpoint)
    model = build_model(config, clip, classes)
    model.load_weights(checkpoint, source, config.eval.weight_average)
    return model
