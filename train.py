"""Train a video model: python train.py --config configs/k400/vitb16_8f.yaml"""

import argparse
import logging
from functools import partial
from pathlib import Path

import torch

from datasets.build import build_eval_loader, build_train_loader, decoder_of, read_lists
from datasets.records import read_class_names
from engine.evaluate import evaluate
from engine.protocols import accuracy, fuse_zero_shot
from engine.train import Training, TrainState, train
from modules.build import build_classes, build_clip, build_model, check_network
from modules.losses import video_loss
from utils.checkpoint import CheckpointStore, load_weights, read_checkpoint
from utils.cli import add_common_arguments, run_main
from utils.config import Config, load_config, to_yaml
from utils.distributed import broadcast, is_restarted, process_group, rank, world_size
from utils.logger import setup_logging
from utils.precision import Precision, resolve_precision
from utils.run_folder import check_run_folder, create_run_folder, folder_name, timestamp
from utils.solver import build_optimizer, lr_schedule

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
    with process_group() as device:
        setup_logging()
        config = load_config(args.config, args.overrides)
        precision = resolve_precision(args.precision, device)
        state, run = prepare(config, precision, log_time=broadcast(args.log_time or timestamp()))
        figures = run.validate() if config.solver.evaluate else train(state, run)
    logger.info("done: %s", "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    return figures


def prepare(config: Config, precision: Precision, log_time: str) -> tuple[TrainState, Training]:
    """Build everything that a run needs; whatever can be wrong is found here, cheapest checks first."""
    data, solver = config.data, config.solver
    check_network(config)
    class_names = read_class_names(data.label_list, data.num_classes)
    train_videos = read_lists(data, "train", len(class_names))
    val_videos = read_lists(data, "val", len(class_names))
    folder = Path(data.output_path, data.dataset, folder_name(config.network.arch), log_time)
    may_continue = bool(config.resume) or is_restarted()
    check_run_folder(folder, may_continue)
    store = CheckpointStore(folder, config.logging.keep)
    source, start = find_start(config, store)
    share = {"rank": rank(), "world_size": world_size()}
    train_loader = build_train_loader(data, train_videos, class_names, config.seed, **share)
    val_loader = build_eval_loader(data, val_videos, **share)

    clip = build_clip(config.network, data.num_segments, data.input_size, config.seed).to(precision.device)
    classes = build_classes(config.network, clip, class_names)
    model = build_model(config, clip, classes)
    is_resumed = start is not None and source != config.pretrain
    if start:
        load_weights(model, start, source, keep_train_classes=not is_resumed)
    optimizer = build_optimizer(model, solver)
    state = TrainState(model, optimizer, precision.grad_scaler(), epoch=solver.start_epoch)
    if is_resumed:
        state.resume(start)

    create_run_folder(folder, to_yaml(config), may_continue, decoder=decoder_of(data))
    setup_logging(folder / "log.txt")
    logger.info("run folder %s, %s, %d processes", folder, precision.name, world_size())
    if start:
        logger.info("starting from %s, epoch %d, step %d", source, state.epoch + 1, state.step)
    pass_over_val = partial(evaluate, model, val_loader, classes, 1, precision, data.batch_size, "validation")
    return state, Training(
        loader=train_loader,
        classes=classes,
        loss=partial(video_loss, **vars(config.loss)),
        lr_at=lr_schedule(solver),
        validate=lambda: accuracy(fuse_zero_shot(pass_over_val().logits), torch.from_numpy(val_videos.labels)),
        precision=precision,
        epochs=solver.epochs,
        accumulation=solver.grad_accumulation_steps,
        clip_grad_norm=solver.clip_grad_norm,
        seed=config.seed,
        print_freq=config.logging.print_freq,
        eval_freq=config.logging.eval_freq,
        save_minutes=config.logging.save_minutes,
        folder=folder,
        store=store,
        metadata={"config": to_yaml(config), "class_names": class_names},
    )


def find_start(config: Config, store: CheckpointStore) -> tuple[str, dict | None]:
    """The checkpoint that a run starts from, and its name: to resume, else to start from, else none."""
    if config.resume == AUTO or is_restarted():
        if newest := store.read_newest():
            return str(newest[0]), newest[1]
    elif config.resume:
        return config.resume, read_checkpoint(config.resume)
    return (config.pretrain, read_checkpoint(config.pretrain)) if config.pretrain else ("", None)


if __name__ == "__main__":
    run_main(main)
