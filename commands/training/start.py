"""The checkpoint that a training run starts from: to go on where it was, or for its weights alone."""

import logging
from dataclasses import dataclass

from torch.utils.data import DataLoader

from clip.towers import Towers
from commands.training.run import AUTO, Run
from engine.checkpoints import CheckpointStore
from engine.resume import check_place
from engine.state import TrainState
from modules.build import named_head, parse_config
from modules.formats.ours import read_checkpoint
from modules.systems.base import System
from modules.weights import load_text_tower
from utils.config import Config, changes, to_yaml
from utils.distributed import broadcast, is_main, is_restarted

logger = logging.getLogger(__name__)


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
