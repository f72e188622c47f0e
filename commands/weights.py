"""What ``--weights`` names: the model, and the configuration that a command works with where no file is given."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from clip.towers import Towers
from datasets.clips.presets import preset_of
from modules.build import (
    PLAIN_CLIP,
    brought_classes,
    build_classes,
    build_system,
    build_towers,
    load_config,
    load_system,
    parse_config,
    plain,
)
from modules.check import check_network
from modules.classes.base import Classes
from modules.formats.infer import infer_settings
from modules.formats.ours import read_checkpoint
from modules.formats.published import system_of
from modules.systems.base import System
from modules.weights import load_text_tower
from utils.config import Config
from utils.weights.four_keys import CLASSIFIER

logger = logging.getLogger(__name__)

# For classes that training has not seen: without what is for its classes alone. An override may say otherwise.
FOR_ANY_CLASSES = {"network.residual_projection": 0}


class Weights:
    """A checkpoint by its name (file, folder or ``hf://owner/name``), or ``clip``: the pretrained model alone."""

    def __init__(self, name: str | Path):
        self.name = str(name)

    @cached_property
    def checkpoint(self) -> dict[str, Any] | None:
        """Read once, when it is asked for, see ``modules.formats.ours``; None: the pretrained model."""
        return None if self.name == PLAIN_CLIP else read_checkpoint(self.name)

    def config(self, path: str | Path | None, overrides: Sequence[str], settings: Mapping[str, Any] = {}) -> Config:
        """The configuration file if one is given, else the checkpoint's own, else the one inferred.

        Args:
            path: YAML file.
            overrides: ``section.key=value``.
            settings: keys and values that are laid over before.

        Raises:
            ValueError, FileNotFoundError: see ``utils.config``, ``modules.formats.infer`` and ``check_network``.
        """
        laid_over = [f"{key}={json.dumps(value)}" for key, value in settings.items()] + list(overrides)
        has_config = self.checkpoint is None or isinstance(self.checkpoint.get("config"), str)
        told = "" if has_config else system_of(self.checkpoint)
        if path:
            config = load_config(path, laid_over, told)
        elif not has_config:
            inferred = infer_settings(self.checkpoint, self.name)
            logger.info("%s carries no configuration; its tensors say %s", self.name, inferred["network.arch"])
            of_tensors = [f"{key}={json.dumps(value)}" for key, value in inferred.items()]
            config = parse_config("", "the default configuration", of_tensors + laid_over, told)
        else:
            text = self.checkpoint["config"] if self.checkpoint else ""
            config = parse_config(text, f"the configuration in {self.name}", laid_over)
        config = plain(config) if self.name == PLAIN_CLIP else config
        check_network(config)
        return config

    def towers(self, config: Config, input_size: int | None) -> Towers:
        """The pretrained towers, on the CPU, see ``build_towers``; with the checkpoint's own text tower, if any."""
        rules = preset_of(config.data).of_towers
        towers = build_towers(config.network, config.data.num_segments, input_size, config.seed, rules)
        if self.checkpoint and config.network.fix_text:  # else it is averaged and loaded like all that trained
            load_text_tower(towers, self.checkpoint, self.name)
        return towers

    @property
    def classifier(self) -> dict[str, Any]:
        """The checkpoint's classifier and the names of its classes, as ``build_classes`` takes them; empty: none."""
        checkpoint = self.checkpoint or {}
        return {key: checkpoint[key] for key in (CLASSIFIER, "class_names") if CLASSIFIER in checkpoint}

    def classes(self, config: Config, towers: Towers, class_names: list[str]) -> Classes:
        """What videos are compared with; see ``build_classes``."""
        return build_classes(config, towers, class_names, self.classifier)

    def build(self, config: Config, towers: Towers, classes: Classes | None = None) -> System:
        """The model around ``towers`` as tests see it; None: of the classes, it knows what the checkpoint brings."""
        if classes is None:
            classes = brought_classes(config, towers, self.classifier)
        if self.checkpoint is None:
            system = build_system(config, towers, classes)
            system.drop_training_parts()
            return system
        return load_system(config, towers, classes, self.checkpoint, self.name)
