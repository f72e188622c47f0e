"""A training run: its name, folder and lock, and what is checked before anything is built."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from clip.towers import Towers
from datasets.build import decoder_of
from datasets.clips.trial import problem_of
from datasets.clips.video import VideoSource
from datasets.lists.class_folders import ClassFolders
from datasets.lists.records import VideoList, write_video_list
from engine.checkpoints import CheckpointStore
from engine.collect import Pass
from engine.flops import count_flops, utilisation
from engine.optim import check_solver
from modules.build import load_config
from modules.check import check_network
from modules.recompute import default_recompute, keeping_less_than
from modules.running.attention import AttentionCalls, fastest_attention
from modules.systems.base import Batch, Draws, System
from utils.config import Config, to_yaml
from utils.distributed import broadcast, is_main, is_restarted, process_group, rank, world_size
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.run_folder import (
    FEW_SHOT_LIST,
    check_run_folder,
    create_run_folder,
    is_of_this_launch,
    run_folder,
    timestamp,
)
from utils.run_lock import run_lock

logger = logging.getLogger(__name__)

AUTO = "auto"  # resume: the newest checkpoint of the run folder, or a new run


@dataclass(frozen=True)
class Run:
    """A run that has a name, and nobody else's folder."""

    config: Config
    precision: Precision
    folder: Path
    contexts: ExitStack = field(default_factory=ExitStack)  # what holds until the run ends

    @property
    def share(self) -> tuple[int, int]:
        """This process among all: rank and world size."""
        return rank(), world_size()

    @property
    def store(self) -> CheckpointStore:
        """The checkpoints in its folder."""
        return CheckpointStore(self.folder, self.config.logging.keep)

    def claim_folder(self, split: ClassFolders | None) -> None:
        """See that the run may use its folder.

        Raises:
            ValueError, FileExistsError: it is another run's, or was made with another split of the videos.
        """
        may_continue = bool(self.config.resume) or (is_restarted() and is_of_this_launch(self.folder))
        check_run_folder(self.folder, may_continue)
        if split:
            split.check_written(self.folder)

    def write_folder(self, split: ClassFolders | None, few_shot: VideoList | None) -> None:
        """Write what the run is made of, now that nothing is wrong with it, and log into the folder from here on.

        Args:
            split: what the lists were made from, where they were.
            few_shot: what was chosen of a list, if so.
        """
        config = self.config
        create_run_folder(self.folder, to_yaml(config), decoder=decoder_of(config.data))
        if split and is_main():
            split.write(self.folder)
        if few_shot is not None and is_main():
            write_video_list(self.folder / FEW_SHOT_LIST, few_shot)
        setup_logging(self.folder / "log.txt")
        logger.info("run folder %s, %s, %d processes", self.folder, self.precision.name, world_size())

    def metadata(self, class_names: list[str], train_list: str, towers: Towers, loader: DataLoader) -> dict[str, Any]:
        """What every checkpoint says of the run.

        Args:
            train_list: fingerprint of what is trained on, in its order.
        """
        return {
            "config": to_yaml(self.config),
            "class_names": class_names,
            "towers": asdict(towers.spec),
            "videos_per_step": loader.batch_sampler.videos_per_step,
            "steps_per_epoch": len(loader),
            "train_list": train_list,
        }

    def utilisation(self, system: System, examples: list[Batch]) -> tuple[float | None, float | None]:
        """Operations of a video, the mean over batches of each kind, and of the device; see ``engine.flops``."""
        found = [utilisation(system, example, self.precision) for example in examples]
        operations = [each for each, _ in found if each is not None]
        return (sum(operations) / len(operations) if operations else None), found[0][1]

    def choose_attention(self, system: System, examples: list[Batch]) -> None:
        """From here on take the kernel of attention that is the fastest at the shapes of examples (on the meta device).

        A GPU does so in half precision; elsewhere torch chooses among one or two.
        """
        if self.precision.device.type != "cuda" or not self.precision.half:
            return
        with AttentionCalls() as calls:
            for example in examples:
                count_flops(system, example, Draws(torch.Generator().manual_seed(0)))
        self.contexts.enter_context(fastest_attention(calls.counts, self.precision.device, self.precision.half))

    def pass_over(self, what: str) -> Pass:
        """How clips go through the model outside training."""
        return Pass(self.precision, self.config.data.batch_size, what)


@contextmanager
def begin_run(args: argparse.Namespace) -> Iterator[Run]:
    """Read the configuration, join the processes, choose the number format, and take the run's folder."""
    setup_logging()
    config = load_config(args.config, args.overrides)
    with process_group(config.solver.collective_timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        if config.resume == AUTO and not args.log_time:
            raise ValueError("resume=auto continues a run by its name: give its --log_time")
        log_time = broadcast(args.log_time or timestamp())
        folder = run_folder(config.data.output_path, config.data.dataset, config.network.arch, log_time)
        with run_lock(folder), ExitStack() as contexts:
            yield Run(config, precision, folder, contexts)


@contextmanager
def memory_explained(run: Run) -> Iterator[None]:
    """Context of a run, in which a GPU's memory that does not suffice is an error that says what needs less.

    Raises:
        ValueError: names the settings.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        config, device = run.config, run.precision.device
        recompute = config.network.recompute or default_recompute(device)
        less = f", or {advice}" if (advice := keeping_less_than(recompute)) else ""
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"out of memory on {device}: data.batch_size {config.data.batch_size}, network.recompute {recompute}, "
            f"solver.grad_accumulation_steps {config.solver.grad_accumulation_steps}; try half the batch with twice "
            f"the accumulation{less} ({reason})"
        ) from error


def check_run(run: Run) -> None:
    """See that the settings of a run do not contradict each other.

    Raises:
        ValueError: names the keys.
    """
    data = run.config.data
    batch_size = min((source.batch_size or data.batch_size for source in data.sources), default=data.batch_size)
    check_network(run.config, batch_size * world_size())
    check_solver(run.config.solver)


def check_videos(readers: list[tuple[str, VideoSource]]) -> None:
    """Read a few videos of every list, which is given with its name.

    Raises:
        ValueError: on every process, if none of a list's can be read.
    """
    problems = [problem_of(reader, name) for name, reader in readers] if is_main() else []
    if problem := broadcast("; ".join(filter(None, problems))):
        raise ValueError(problem)
