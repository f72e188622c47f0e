"""Configuration: what it may hold (``schema``), and how it is read and written (``load``)."""

# ruff: noqa: F401 - offered here
from utils.config.load import changes, load_config, parse_config, to_yaml
from utils.config.old_keys import ALIASES
from utils.config.schema import (
    MANY,
    MAX_PIXELS,
    SAME_ARCHS,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    NetworkConfig,
    NoSettings,
    Number,
    ProbeConfig,
    RandAugmentConfig,
    SolverConfig,
    SourceConfig,
    Temperatures,
    Text,
    settings,
)
from utils.config.typed import check_choice
