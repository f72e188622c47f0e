"""Train a video model: python train.py --config configs/k400/vitb16_8f.yaml"""

import argparse

from commands.extraction import check_features
from commands.training import (
    Run,
    begin_run,
    check_run,
    check_videos,
    find_start,
    memory_explained,
    read_training_data,
)
from datasets.clips.presets import preset_of
from engine.optim import build_optimizer, lr_schedule
from engine.sharding import gathered, shard
from engine.state import TrainState, averaged, epoch_average
from engine.train import Training, train
from modules.build import add_remedies, build_system, build_towers
from modules.compile import compile_system
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
    with begin_run(parse_args(argv)) as run, memory_explained(run):
        state, training = prepare(run)
        if run.config.solver.evaluate:
            with gathered(state.model):
                return training.validate(state.model)
        figures = train(state, training)
        finish_run(run.folder, figures)
    return figures


def prepare(run: Run) -> tuple[TrainState, Training]:
    """Build everything that a run needs; whatever can be wrong is found here, cheapest checks first."""
    config, solver = run.config, run.config.solver
    check_run(run)

    # The lists, the run's folder, the checkpoint that it starts from (to resume, or for its weights).
    data = read_training_data(config)
    run.claim_folder(data.split)
    start = find_start(config, run.store)
    loader_with = data.loader(run)
    check_videos(data.readers())

    # The model. Its weights are loaded and its operations counted before it is sharded, and the optimizer gets what
    # sharding made of the weights.
    rules = preset_of(config.data).of_towers
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed, rules)
    towers = towers.to(run.precision.device)
    train_loader = loader_with(towers)
    start.load_text_tower(towers, config)
    system = build_system(config, towers, data.classes(run, towers, start))
    validation = data.validation(run, system)
    start.load_weights(system)
    check_features(config, system)
    examples = data.examples(towers)
    operations = run.utilisation(system, examples)
    run.choose_attention(system, examples)
    compile_system(system, config.network.compile, config.network.compile_cache, run.precision.device)
    if solver.strategy == "fsdp":
        shard(system, system.blocks())

    # What training changes; a resumed run takes optimizer, scaler, averaged weights and its place in the epoch.
    optimizer, ema = build_optimizer(system.groups(), solver), averaged(system, solver.ema)
    add_remedies(system, config, rules)
    average = epoch_average(system, solver)
    state = TrainState(system, optimizer, run.precision.grad_scaler(), ema, average, epoch=solver.start_epoch)
    start.resume(run, state, train_loader)
    run.write_folder(data.split, data.few_shot)
    start.report(run, state, data.fingerprint)
    return state, Training(
        loader=train_loader,
        lr_at=lr_schedule(solver),
        validate=validation,
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
        metadata=run.metadata(data.class_names, data.fingerprint, towers, train_loader),
    )


if __name__ == "__main__":
    run_main(main)
