"""What training changes, and how it becomes a checkpoint and comes back."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.resume import AVERAGE, check_epoch_average, check_training_state
from engine.sharding import cut_like, whole
from modules.systems.base import System
from utils.config import SolverConfig
from utils.weights.epoch_average import EPOCH_WEIGHTS, EpochAverage


@dataclass
class TrainState:
    """Everything that training changes; what a checkpoint holds.

    Random numbers are not part of it: those of a step depend on (seed, rank, step), those of a sample on
    (seed, epoch, index), so a run that continues draws what it would have drawn.
    """

    model: System
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None = None  # weights averaged over the steps
    average: EpochAverage | None = None  # the pretrained weights and those of the epochs, averaged
    epoch: int = 0  # epochs finished
    step: int = 0  # steps done of the epoch after these
    best_top1: float = -1.0  # of the validation's first figure, whatever it is; checkpoints know it by this name
    best_epoch: int = 0
    must_validate: bool = False  # the last epoch is finished, but not validated
    verdict: Any = None  # on the last update, where the host has not read it yet, see ``engine.failures``

    def content(self) -> dict:
        """As checkpoint: the four published keys, where ``epoch`` is the last finished one, and ours.

        Every process must call it where the model is sharded; only the main process's is complete.
        """
        state = {
            "epoch": self.epoch - 1,
            **self.model.weights(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scaler_state_dict": self.scaler.state_dict(),
            "step": self.step,
            "best_top1": self.best_top1,
            "best_epoch": self.best_epoch,
            "must_validate": self.must_validate,
        }
        if self.model.remedies:
            state |= self.model.remedies.content()
        if self.ema:
            state["ema"] = {**self.ema.module.weights(), "n_averaged": self.ema.n_averaged}
        if self.average:
            state[AVERAGE] = {"mean": self.average.mean, "log_weights": self.average.log_weights}
        return whole(state)

    def average_content(self) -> dict:
        """The mean over epochs in the published format, while the model has it; as ``content`` on every process."""
        return whole({"epoch": self.epoch - 1, **self.model.weights(), "optimizer_state_dict": {}})

    def ema_content(self) -> dict:
        """The averaged weights alone, in the published format."""
        return {"epoch": self.epoch - 1, **self.ema.module.weights(), "optimizer_state_dict": {}}

    def resume(self, checkpoint: dict, source: str = "being resumed") -> None:
        """Continue where the checkpoint was written; its weights are loaded separately.

        Args:
            source: name of the checkpoint in errors.

        Raises:
            ValueError: a checkpoint without optimizer state, such as a released one, with state that cannot be, of
                another optimizer or of other parameters; or without averaged weights where they are asked for.
        """
        check_training_state(checkpoint, self.optimizer, f"checkpoint {source}")
        self._resume_optimizer(checkpoint["optimizer_state_dict"])
        if checkpoint["scaler_state_dict"]:  # empty in other precisions than fp16
            self.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        if self.ema:
            if "ema" not in checkpoint:
                raise ValueError(
                    f"checkpoint {source}: resume: it has no averaged weights; set solver.ema=0 or start anew"
                )
            self.ema.module.load_weights(checkpoint["ema"], source, with_classifier=True)
            self.ema.n_averaged.copy_(checkpoint["ema"]["n_averaged"])
        if self.average:
            self._resume_average(checkpoint, f"checkpoint {source}")
        if self.model.remedies:
            self.model.remedies.resume(checkpoint, f"checkpoint {source}")
        self.epoch, self.step = checkpoint["epoch"] + 1, checkpoint["step"]
        self.best_top1, self.best_epoch = checkpoint["best_top1"], checkpoint.get("best_epoch", 0)
        self.must_validate = checkpoint.get("must_validate", False)

    def _resume_average(self, checkpoint: dict, source: str) -> None:
        mean = self.average.mean
        check_epoch_average(checkpoint.get(AVERAGE), mean, source)
        saved = checkpoint[AVERAGE]
        for name, value in mean.items():
            value.copy_(cut_like(saved["mean"][name], value))
        self.average.log_weights = list(saved["log_weights"])

    def _resume_optimizer(self, saved: dict) -> None:
        # Weight decay, lr ratios and the like are the configuration's, not the checkpoint's. The lr is every step's:
        # the last one's stands in the next checkpoint, also where no step is left to take.
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        states = {
            index: {name: cut_like(value, parameters[index]) for name, value in entry.items()}
            for index, entry in saved["state"].items()
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        for group, before in zip(self.optimizer.param_groups, saved["param_groups"], strict=True):
            group["lr"] = before["lr"]


def averaged(model: System, decay: float) -> AveragedModel | None:
    """The exponential moving average of a model's weights, or None for a decay of 0.

    Statistics of BatchNorm are averaged like the weights that they belong to; other buffers are the model's.
    """
    use_buffers = bool(model.towers.statistics())
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers) if decay else None


def pretrained_tensors(model: System) -> dict[str, Tensor]:
    """What the towers had before training, by name, as it is now: the model's own tensors.

    The head and what else began at random have no part in averages with the pretrained weights.
    """
    tensors = model.towers.state_dict().items()
    return {name: value for name, value in tensors if value.is_floating_point() and name not in model.not_averaged}


def epoch_average(model: System, solver: SolverConfig) -> EpochAverage | None:
    """The mean over epochs of a run that begins with the model as it is, sharded already if it is to be; or None."""
    if not solver.epoch_average:
        return None
    bell = {"mean": solver.epoch_average_mean, "sigma": solver.epoch_average_sigma}
    log_weight_at = partial(EPOCH_WEIGHTS[solver.epoch_average], **bell)
    return EpochAverage.begin(pretrained_tensors(model), solver.start_epoch / solver.epochs, log_weight_at)
