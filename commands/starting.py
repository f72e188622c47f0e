"""How a training run begins: its folder and lock, the checkpoint that it starts from, and what is checked before."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clip.towers import Towers
from datasets.build import LabelledVideos, build_eval_loader, build_source, decoder_of
from datasets.clips.trial import problem_of
from datasets.lists.class_folders import ClassFolders
from datasets.lists.records import VideoList, write_video_list
from engine.checkpoints import CheckpointStore
from engine.collect import Pass, collect
from engine.flops import utilisation
from engine.optim import check_solver
from engine.resume import check_place
from engine.state import TrainState
from modules.build import load_config, named_head, parse_config
from modules.check import check_network
from modules.formats.ours import read_checkpoint
from modules.systems.base import Batch, System
from modules.weights import load_text_tower
from utils.config import Config, DataConfig, changes, to_yaml
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

    def write_folder(self, videos: LabelledVideos) -> None:
        """Write what the run is made of, now that nothing is wrong with it, and log into the folder from here on."""
        config = self.config
        create_run_folder(self.folder, to_yaml(config), decoder=decoder_of(config.data))
        if videos.split and is_main():
            videos.split.write(self.folder)
        if config.data.shot and is_main():
            write_video_list(self.folder / FEW_SHOT_LIST, videos.parts["train"])
        setup_logging(self.folder / "log.txt")
        logger.info("run folder %s, %s, %d processes", self.folder, self.precision.name, world_size())

    def metadata(self, videos: LabelledVideos, towers: Towers, steps_per_epoch: int) -> dict[str, Any]:
        """What every checkpoint says of the run."""
        return {
            "config": to_yaml(self.config),
            "class_names": videos.class_names,
            "towers": asdict(towers.spec),
            "videos_per_step": self.config.data.batch_size * world_size(),
            "steps_per_epoch": steps_per_epoch,
            "train_list": videos.parts["train"].order_fingerprint(),
        }

    def utilisation(self, system: System) -> tuple[float | None, float | None]:
        """Operations of a video and of the device, see ``engine.flops``."""
        return utilisation(system, example_of(self.config.data, system.towers.spec.embed_dim), self.precision)

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
        with run_lock(folder):
            yield Run(config, precision, folder)


def check_run(run: Run) -> None:
    """See that the settings of a run do not contradict each other.

    Raises:
        ValueError: names the keys.
    """
    check_network(run.config, run.config.data.batch_size * world_size())
    check_solver(run.config.solver)


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts from, if any."""

    source: str  # its name
    checkpoint: dict | None
    is_resumed: bool  # the run goes on where it was; else it takes the weights alone

    @property
    def known(self) -> dict | None:
        """The checkpoint whose classifier goes on learning."""
        return self.checkpoint if self.is_resumed else None

    def load_text_tower(self, towers: Towers, config: Config) -> None:
        """Take a text tower that the checkpoint brings, for class features that are encoded once."""
        if self.checkpoint and config.network.fix_text:
            load_text_tower(towers, self.checkpoint, self.source)

    def load_weights(self, system: System) -> None:
        """Load the checkpoint's weights; a start from another data set keeps the classes of this one."""
        if self.checkpoint:
            is_new = not self.is_resumed
            system.load_weights(self.checkpoint, self.source, keep_train_classes=is_new, with_classifier=not is_new)

    def resume(self, run: Run, state: TrainState, loader: DataLoader) -> None:
        """Take up training where the checkpoint left it.

        Raises:
            ValueError: its training state cannot be one of this run.
        """
        if not self.is_resumed:
            return
        state.resume(self.checkpoint, self.source)
        data, solver = run.config.data, run.config.solver
        videos_per_step = data.batch_size * world_size()
        videos_per_epoch = len(loader.dataset) * loader.batch_sampler.num_passes
        check_place(self.checkpoint, solver.epochs, videos_per_epoch, videos_per_step, f"checkpoint {self.source}")
        state.step = resumed_step(
            state.step, self.checkpoint, videos_per_step, len(loader), solver.grad_accumulation_steps
        )

    def report(self, run: Run, state: TrainState, train_list: str) -> None:
        """Log where the run starts from, and what is not as it was when the checkpoint was written."""
        if not self.checkpoint:
            return
        if self.is_resumed:
            self._report_changes(run, train_list)
        logger.info("starting from %s, epoch %d, step %d", self.source, state.epoch + 1, state.step)

    def _report_changes(self, run: Run, train_list: str) -> None:
        try:
            before = parse_config(self.checkpoint.get("config", ""), f"the configuration in {self.source}")
            found = changes(to_yaml(named_head(before)), named_head(run.config))
        except ValueError as error:  # of another version; the run goes on with the configuration of now
            found = [f"its configuration, which cannot be compared: {error}"]
        for change in found:
            if not change.startswith("resume: "):
                logger.info("not as in the checkpoint: %s", change)
        if self.checkpoint.get("train_list", train_list) != train_list:
            logger.warning(
                "the training list is not the one of the checkpoint: this epoch goes on in the new list's order"
            )


def find_start(config: Config, store: CheckpointStore) -> Start:
    """The checkpoint to resume, else the one to take weights from, else none."""
    if config.resume == AUTO or is_restarted():
        # One process chooses: on a file system of several machines not all may see the newest at once.
        path, checkpoint = (store.read_newest() if is_main() else None) or (None, None)
        if path := broadcast(path):
            return Start(str(path), checkpoint or read_checkpoint(path), is_resumed=True)
    source = config.resume if config.resume not in ("", AUTO) else config.pretrain
    return Start(source, read_checkpoint(source) if source else None, is_resumed=source != config.pretrain)


def resumed_step(step: int, checkpoint: dict, videos_per_step: int, steps_per_epoch: int, accumulation: int) -> int:
    """Where an epoch goes on whose first ``step`` steps were of another size, perhaps: at the start of an accumulation
    window, with no video left out; or at its end, where only the end's work is left to do."""
    if step and step == checkpoint.get("steps_per_epoch"):
        return steps_per_epoch
    videos = min(step * checkpoint.get("videos_per_step", videos_per_step), steps_per_epoch * videos_per_step)
    step = videos // videos_per_step
    if step < steps_per_epoch:  # the last window may be shorter
        step -= step % accumulation
    if again := videos - step * videos_per_step:
        logger.warning("batches have changed: %d videos of this epoch are trained on once more", again)
    return step


def check_videos(data: DataConfig, videos: dict[str, VideoList]) -> None:
    """Read a few videos of every list.

    Raises:
        ValueError: on every process, if none of a list's can be read.
    """
    if data.modality == "features":
        return
    sources = {part: build_source(data, listed) for part, listed in videos.items()} if is_main() else {}
    problems = [problem_of(source, data.folder or f"data.{part}_list") for part, source in sources.items()]
    if problem := broadcast("; ".join(filter(None, problems))):
        raise ValueError(problem)


@torch.inference_mode()
def frozen_features(towers: Towers, data: DataConfig, videos: VideoList, how: Pass) -> tuple[Tensor, Tensor]:
    """Mean frame features [N, D] of the pretrained image tower, one clip a video, and labels int64 [N]; on the CPU.

    Rows of videos that could not be read are NaN.

    Raises:
        ValueError: the list is one of cached features, whose views may be augmented ones.
    """
    if data.modality == "features":
        raise ValueError("text4vis.classifier: lda reads the training videos, but data.modality is features")
    was_training = towers.training
    towers.eval()
    found = collect(
        lambda batch: {"features": towers.encode_clips(batch.clips).float().mean(dim=1)},
        build_eval_loader(data, videos, rank(), world_size()),
        {"features": (1, towers.spec.embed_dim)},
        how,
    )
    towers.train(was_training)
    return found.tables["features"][:, 0], torch.from_numpy(videos.labels)


def example_of(data: DataConfig, width: int) -> Batch:
    """A training batch of the right shape on the meta device, where it takes no memory.

    Args:
        width: D of features.
    """
    size, clips = data.input_size, (data.batch_size, data.num_segments)
    labels = torch.zeros(data.batch_size, dtype=torch.long, device="meta")
    if data.modality == "features":
        return Batch(features=torch.zeros(*clips, width, device="meta"), labels=labels)
    return Batch(clips=torch.zeros(*clips, 3, size, size, dtype=torch.uint8, device="meta"), labels=labels)
