"""How a training run begins: its folder and lock, the checkpoint that it starts from, and what is checked before."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clip.towers import Towers
from datasets.build import build_eval_loader, decoder_of
from datasets.clips.trial import problem_of
from datasets.clips.video import VideoSource
from datasets.lists.class_folders import ClassFolders
from datasets.lists.records import VideoList, write_video_list
from engine.checkpoints import CheckpointStore
from engine.collect import Pass, collect
from engine.flops import count_flops, utilisation
from engine.optim import check_solver
from engine.resume import check_place
from engine.state import TrainState
from modules.build import load_config, named_head, parse_config
from modules.check import check_network
from modules.formats.ours import read_checkpoint
from modules.recompute import default_recompute, keeping_less_than
from modules.running.attention import AttentionCalls, fastest_attention
from modules.systems.base import Batch, Draws, System
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
        solver, batches = run.config.solver, loader.batch_sampler
        videos_per_epoch, videos_per_step = batches.videos_per_epoch, batches.videos_per_step
        check_place(self.checkpoint, solver.epochs, videos_per_epoch, videos_per_step, f"checkpoint {self.source}")
        state.step = resumed_step(
            state.step, self.checkpoint, videos_per_step, len(loader), solver.grad_accumulation_steps, batches.turns
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


def resumed_step(
    step: int, checkpoint: dict, videos_per_step: int, steps_per_epoch: int, accumulation: int, turns: int = 1
) -> int:
    """Where an epoch goes on whose first ``step`` steps were of another size, perhaps: at the start of an accumulation
    window, with no video left out; or at its end, where only the end's work is left to do.

    Args:
        turns: lists that steps take videos from in turn. With batches of another size the epoch then goes on with the
            first, where its videos are.
    """
    if step and step == checkpoint.get("steps_per_epoch"):
        return steps_per_epoch
    if turns > 1 and checkpoint.get("videos_per_step") == videos_per_step:
        return step - step % accumulation
    if turns > 1:
        rounds = checkpoint | {"steps_per_epoch": None}
        step = turns * resumed_step(step // turns, rounds, videos_per_step, steps_per_epoch // turns, 1)
        return step if step == steps_per_epoch else step - step % accumulation
    videos = min(step * checkpoint.get("videos_per_step", videos_per_step), steps_per_epoch * videos_per_step)
    step = videos // videos_per_step
    if step < steps_per_epoch:  # the last window may be shorter
        step -= step % accumulation
    if again := videos - step * videos_per_step:
        logger.warning("batches have changed: %d videos of this epoch are trained on once more", again)
    return step


def check_videos(readers: list[tuple[str, VideoSource]]) -> None:
    """Read a few videos of every list, which is given with its name.

    Raises:
        ValueError: on every process, if none of a list's can be read.
    """
    problems = [problem_of(reader, name) for name, reader in readers] if is_main() else []
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
        lambda batch: {"features": towers.encode_clips(batch.clips, batch.lengths).float().mean(dim=1)},
        build_eval_loader(data, videos, rank(), world_size()),
        {"features": (1, towers.spec.embed_dim)},
        how,
    )
    towers.train(was_training)
    return found.tables["features"][:, 0], torch.from_numpy(videos.labels)


def example_of(data: DataConfig, width: int, texts: tuple[int, int] | None = None) -> Batch:
    """A training batch of the right shape on the meta device, where it takes no memory.

    Args:
        width: D of features.
        texts: how many a clip has, and the tokens of each, where they are in the place of labels; they have values.
    """
    size, clips = data.input_size, (data.batch_size, data.num_segments)
    labels = torch.zeros(data.batch_size, dtype=torch.long, device="meta")
    if texts:
        # Text towers look at the values, to see where texts end: these fill their rows, which is the most.
        tokens = torch.ones(data.batch_size, *texts, dtype=torch.long).cumsum(dim=-1)
        return Batch(clips=torch.zeros(*clips, 3, size, size, dtype=torch.uint8, device="meta"), texts=tokens)
    if data.modality == "features":
        return Batch(features=torch.zeros(*clips, width, device="meta"), labels=labels)
    return Batch(clips=torch.zeros(*clips, 3, size, size, dtype=torch.uint8, device="meta"), labels=labels)
