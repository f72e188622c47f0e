"""Train a video model: python train.py --config configs/k400/vitb16_8f.yaml"""

import argparse
import logging
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets.build import build_eval_loader, build_source, build_train_loader, decoder_of, read_data
from datasets.clips.trial import problem_of
from datasets.features import FeatureCache
from datasets.lists.records import VideoList, write_video_list
from engine.checkpoints import CheckpointStore
from engine.collect import check_some_read, evaluate
from engine.optim import build_optimizer, lr_schedule
from engine.protocols.rules import accuracy, fuse_zero_shot
from engine.resume import check_place
from engine.run_lock import run_lock
from engine.sharding import gathered, shard
from engine.state import TrainState, averaged
from engine.train import Training, train
from modules.build import build_classes, build_clip, build_model, check_network, image_tower
from modules.compile import compile_blocks
from modules.formats.ours import read_checkpoint
from modules.objectives.classify import video_loss
from reports.tables import finish_run
from utils.cli import add_common_arguments, run_main
from utils.config import Config, DataConfig, changes, load_config, to_yaml
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

logger = logging.getLogger(__name__)

AUTO = "auto"  # resume: the newest checkpoint of the run folder, or a new run


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument("--log_time", help="name of the run folder (default: the time)")
    add_common_arguments(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train as the configuration says; returns the last validation's figures."""
    args = parse_args(argv)
    setup_logging()
    config = load_config(args.config, args.overrides)
    with process_group(config.solver.collective_timeout_s) as device:
        precision = resolve_precision(args.precision, device)
        if config.resume == AUTO and not args.log_time:
            raise ValueError("resume=auto continues a run by its name: give its --log_time")
        log_time = broadcast(args.log_time or timestamp())
        with run_lock(run_folder(config.data.output_path, config.data.dataset, config.network.arch, log_time)):
            state, run = prepare(config, precision, log_time)
            if config.solver.evaluate:
                with gathered(state.model):
                    return run.validate(state.model)
            figures = train(state, run)
            finish_run(run.folder, figures)
    return figures


def prepare(config: Config, precision: Precision, log_time: str) -> tuple[TrainState, Training]:
    """Build everything that a run needs; whatever can be wrong is found here, cheapest checks first."""
    data, solver = config.data, config.solver
    check_network(config)
    class_names, videos, split = read_data(data, ("train", "val"))
    folder = run_folder(data.output_path, data.dataset, config.network.arch, log_time)
    may_continue = bool(config.resume) or (is_restarted() and is_of_this_launch(folder))
    check_run_folder(folder, may_continue)
    if split:
        split.check_written(folder)
    store = CheckpointStore(folder, config.logging.keep)
    source, start = find_start(config, store)
    share = {"rank": rank(), "world_size": world_size()}
    videos_per_step, train_list = data.batch_size * world_size(), videos["train"].order_fingerprint()
    train_loader = build_train_loader(data, videos["train"], class_names, config.seed, **share)
    val_loader = build_eval_loader(data, videos["val"], **share)
    check_videos(data, videos)

    state, classes = build_state(config, class_names, precision, source, start)
    if start:
        state.step = place_in_epoch(state.step, start, source, config, train_loader)

    create_run_folder(folder, to_yaml(config), may_continue, decoder=decoder_of(data))
    if split and is_main():
        split.write(folder)
    if data.shot and is_main():
        write_video_list(folder / FEW_SHOT_LIST, videos["train"])
    setup_logging(folder / "log.txt")
    logger.info("run folder %s, %s, %d processes", folder, precision.name, world_size())
    if start:
        if source != config.pretrain:
            log_changes(start, config, train_list)
        logger.info("starting from %s, epoch %d, step %d", source, state.epoch + 1, state.step)
    labels = torch.from_numpy(videos["val"].labels)
    return state, Training(
        loader=train_loader,
        classes=classes,
        loss=partial(video_loss, **vars(config.loss)),
        lr_at=lr_schedule(solver),
        validate=partial(validate, val_loader, labels, classes, precision, data.batch_size),
        precision=precision,
        epochs=solver.epochs,
        accumulation=solver.grad_accumulation_steps,
        clip_grad_norm=solver.clip_grad_norm,
        seed=config.seed,
        shared_draws=solver.expert_draws == "shared",
        print_freq=config.logging.print_freq,
        eval_freq=config.logging.eval_freq,
        save_minutes=config.logging.save_minutes,
        folder=folder,
        store=store,
        example=empty_clips(data, state.model.clip.config.embed_dim),
        metadata={
            "config": to_yaml(config),
            "class_names": class_names,
            "videos_per_step": videos_per_step,
            "steps_per_epoch": len(train_loader),
            "train_list": train_list,
        },
    )


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


def build_state(
    config: Config, class_names: list[str], precision: Precision, source: str, start: dict | None
) -> tuple[TrainState, Tensor]:
    """Model and optimizer, new or as the checkpoint ``start`` left them, and the classes to compare with."""
    network, solver = config.network, config.solver
    clip = build_clip(network, config.data.num_segments, config.data.input_size, config.seed).to(precision.device)
    classes = build_classes(network, clip, class_names)
    model = build_model(config, clip, classes)
    is_resumed = start is not None and source != config.pretrain
    if start:
        model.load_weights(start, source, keep_train_classes=not is_resumed)
    if config.data.modality == "features":
        tower = image_tower(config, model)
        FeatureCache.open(config.data.train_root, "train_root").check(tower)
        FeatureCache.open(config.data.val_root, "val_root").check(tower)
    if network.compile:
        compile_blocks(model, precision.device)
    if solver.strategy == "fsdp":
        shard(model, model.blocks())
    optimizer, ema = build_optimizer(model, solver), averaged(model, solver.ema)
    state = TrainState(model, optimizer, precision.grad_scaler(), ema, epoch=solver.start_epoch)
    if is_resumed:
        state.resume(start, source)
    return state, classes


def place_in_epoch(step: int, start: dict, source: str, config: Config, loader: DataLoader) -> int:
    """The step of its epoch at which a run goes on that starts from a checkpoint.

    Raises:
        ValueError: the checkpoint's place is none of this run.
    """
    videos_per_step = config.data.batch_size * world_size()
    if source != config.pretrain:
        videos_per_epoch = len(loader.dataset) * config.data.shot_repeat
        check_place(start, config.solver.epochs, videos_per_epoch, videos_per_step, f"checkpoint {source}")
    return resumed_step(step, start, videos_per_step, len(loader), config.solver.grad_accumulation_steps)


def log_changes(start: dict, config: Config, train_list: str) -> None:
    """Log what is not as it was when the checkpoint was written."""
    for change in changes(start.get("config", ""), config):
        if not change.startswith("resume: "):
            logger.info("not as in the checkpoint: %s", change)
    if start.get("train_list", train_list) != train_list:
        logger.warning("the training list is not the one of the checkpoint: this epoch goes on in the new list's order")


def resumed_step(step: int, start: dict, videos_per_step: int, steps_per_epoch: int, accumulation: int) -> int:
    """Where an epoch goes on whose first ``step`` steps were of another size, perhaps: at the start of an accumulation
    window, with no video left out; or at its end, where only the end's work is left to do."""
    if step and step == start.get("steps_per_epoch"):
        return steps_per_epoch
    videos = min(step * start.get("videos_per_step", videos_per_step), steps_per_epoch * videos_per_step)
    step = videos // videos_per_step
    if step < steps_per_epoch:  # the last window may be shorter
        step -= step % accumulation
    if again := videos - step * videos_per_step:
        logger.warning("batches have changed: %d videos of this epoch are trained on once more", again)
    return step


def empty_clips(data: DataConfig, width: int) -> Tensor:
    """A batch of the training loader's clips, uint8 [B, T, 3, S, S] or float features [B, T, D], of zeros and without
    memory of its own."""
    size = data.input_size
    if data.modality == "features":
        return torch.zeros(()).expand(data.batch_size, data.num_segments, width)
    return torch.zeros((), dtype=torch.uint8).expand(data.batch_size, data.num_segments, 3, size, size)


def validate(
    loader: DataLoader, labels: Tensor, classes: Tensor, precision: Precision, clips_per_pass: int, model: nn.Module
) -> dict[str, float]:
    """Top-1 and top-5 of a model on the validation list, one view a video."""
    views = evaluate(model, loader, classes, 1, precision, clips_per_pass, desc="validation")
    check_some_read(views, "data.val_list")
    return accuracy(fuse_zero_shot(views.logits), labels)


def find_start(config: Config, store: CheckpointStore) -> tuple[str, dict | None]:
    """The checkpoint that a run starts from, and its name: to resume, else to start from, else none."""
    if config.resume == AUTO or is_restarted():
        # One process chooses: on a file system of several machines not all may see the newest at once.
        path, checkpoint = (store.read_newest() if is_main() else None) or (None, None)
        if path := broadcast(path):
            return str(path), checkpoint or read_checkpoint(path)
    if config.resume not in ("", AUTO):
        return config.resume, read_checkpoint(config.resume)
    return (config.pretrain, read_checkpoint(config.pretrain)) if config.pretrain else ("", None)


if __name__ == "__main__":
    run_main(main)
