"""How a training run begins: its folder and lock, its lists, and the checkpoint that it starts from."""

from commands.training.data import read_training_data
from commands.training.run import Run, begin_run, check_run, check_videos, memory_explained
from commands.training.start import find_start

__all__ = ["Run", "begin_run", "check_run", "check_videos", "find_start", "memory_explained", "read_training_data"]
