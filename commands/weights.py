"""What ``--weights`` names: the model, and the configuration that a command works with where no file is given."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from clip.towers import Towers
from modules.build import PLAIN_CLIP, build_system, check_network, load_config, load_system, parse_config, plain
from modules.classes.base import Classes, FixedClasses
from modules.formats.infer import infer_settings
from modules.formats.ours import read_checkpoint
from modules.systems.base import System
from utils.config import Config

logger = logging.getLogger(__name__)


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
        if path:
            config = load_config(path, laid_over)
        elif self.checkpoint and not isinstance(self.checkpoint.get("config"), str):
            inferred = infer_settings(self.checkpoint, self.name)
            logger.info("%s carries no configuration; its tensors say %s", self.name, inferred["network.arch"])
            told = [f"{key}={json.dumps(value)}" for key, value in inferred.items()]
            config = parse_config("", "the default configuration", told + laid_over)
        else:
            text = self.checkpoint["config"] if self.checkpoint else ""
            config = parse_config(text, f"the configuration in {self.name}", laid_over)
        config = plain(config) if self.name == PLAIN_CLIP else config
        check_network(config)
        return config

    def build(self, config: Config, towers: Towers, classes: Classes | None = None) -> System:
        """The model around ``towers`` as tests see it; None: of the classes, it knows what the checkpoint brings."""
        if classes is None:
            classes = FixedClasses(torch.zeros(1, towers.spec.embed_dim))
        if self.checkpoint is None:
            return build_system(config, towers, classes)
        return load_system(config, towers, classes, self.checkpoint, self.name)
