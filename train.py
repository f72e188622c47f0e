"""Train a video model: python train.py --config configs/k400/vitb16_8f.yaml"""

import argparse
from dataclasses import replace
from functools import partial

import torch

from commands.extraction import check_features
from commands.starting import Run, begin_run, check_run, check_videos, find_start, frozen_features
from datasets.build import build_eval_loader, build_train_loader, preset_of, read_data
from engine.optim import build_optimizer, lr_schedule
from engine.protocols.validation import validate
from engine.sharding import gathered, shard
from engine.state import TrainState, averaged
from engine.train import Training, train
from modules.build import build_classes, build_system, build_towers
from modules.compile import compile_blocks
from reports.tables import finish_run
from utils.cli import add_common_arguments, run_main


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument("--log_time", help="name of the run folder (default: the time)")
    add_common_arguments(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train as the configuration says; returns the last validation's figures."""
    with begin_run(parse_args(argv)) as run:
        state, training = prepare(run)
        if run.config.solver.evaluate:
            with gathered(state.model):
                return training.validate(state.model)
        figures = train(state, training)
        finish_run(run.folder, figures)
    return figures


def prepare(run: Run) -> tuple[TrainState, Training]:
    """Build everything that a run needs; whatever can be wrong is found here, cheapest checks first."""
    config, data, solver = run.config, run.config.data, run.config.solver
    check_run(run)

    # The lists, the run's folder, the checkpoint that it starts from (to resume, or for its weights), the loaders.
    videos = read_data(data, ("train", "val"))
    for part, listed in videos.parts.items():
        listed.check_one_label(f"data.{part}_list", "training")
    data = replace(data, shot_repeat=videos.num_passes)  # the run keeps 0 in its configuration
    run.claim_folder(videos.split)
    start = find_start(config, run.store)
    train_loader = build_train_loader(data, videos.parts["train"], videos.class_names, config.seed, *run.share)
    val_loader = build_eval_loader(data, videos.parts["val"], *run.share)
    check_videos(data, videos.parts)

    # The model. Its weights are loaded and its operations counted before it is sharded, and the optimizer gets what
    # sharding made of the weights.
    rules = preset_of(data).of_towers
    towers = build_towers(config.network, data.num_segments, data.input_size, config.seed, rules)
    towers = towers.to(run.precision.device)
    start.load_text_tower(towers, config)
    train_features = partial(frozen_features, towers, data, videos.parts["train"], run.pass_over("the classifier"))
    classes = build_classes(config, towers, videos.class_names, start.known, train_features)
    system = build_system(config, towers, classes)
    start.load_weights(system)
    check_features(config, system)
    operations = run.utilisation(system)
    if config.network.compile:
        compile_blocks(system, run.precision.device)
    if solver.strategy == "fsdp":
        shard(system, system.blocks())

    # What training changes; a resumed run takes optimizer, scaler, averaged weights and its place in the epoch.
    optimizer, ema = build_optimizer(system.groups(), solver), averaged(system, solver.ema)
    state = TrainState(system, optimizer, run.precision.grad_scaler(), ema, epoch=solver.start_epoch)
    start.resume(run, state, train_loader)
    run.write_folder(videos)
    start.report(run, state, videos.parts["train"].order_fingerprint())
    labels = torch.from_numpy(videos.parts["val"].labels)
    return state, Training(
        loader=train_loader,
        lr_at=lr_schedule(solver),
        validate=partial(validate, loader=val_loader, labels=labels, how=run.pass_over("validation")),
        precision=run.precision,
        epochs=solver.epochs,
        accumulation=solver.grad_accumulation_steps,
        clip_grad_norm=solver.clip_grad_norm,
        seed=config.seed,
        shared_draws=solver.draws == "shared",
        print_freq=config.logging.print_freq,
        eval_freq=config.logging.eval_freq,
        save_minutes=config.logging.save_minutes,
        folder=run.folder,
        store=run.store,
        utilisation=operations,
        metadata=run.metadata(videos, towers, len(train_loader)),
    )


if __name__ == "__main__":
    run_main(main)
