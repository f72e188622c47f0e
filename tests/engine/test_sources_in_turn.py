"""Training on several lists in turn: what a run takes, where it goes on, and what it is validated with."""

import json
from dataclasses import replace

import pytest
import torch

from commands.training.data import read_training_data
from engine.flops import count_flops
from engine.train import train
from modules.build import load_config
from modules.formats.ours import read_checkpoint
from modules.systems.base import Draws
from tests.engine.interruptions import assert_same, train_interrupted
from train import main

OPTIONS = (
    "solver.epochs=2", "logging.print_freq=1", "logging.save_minutes=0", "network.drop_out=0.1", "solver.lr=1e-3",
)  # fmt: skip


@pytest.fixture
def build(debug_config, debug_texts, tmp_path, fp32, prepare_run):
    def build(*overrides: str, name: str = "run"):
        config = load_config(debug_config, [*debug_texts, f"data.output_path={tmp_path}", *OPTIONS, *overrides])
        return prepare_run(config, fp32, name)

    return build


def rows_of(run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_steps_take_transcripts_and_captions_in_turn(build):
    state, run = build("solver.epochs=1")
    assert len(run.loader) == 10  # 5 batches of 10 videos with transcripts; a pass over the captions has 4
    figures = train(state, run)
    *steps, validation = rows_of(run)
    assert ["train/sorting" in row for row in steps] == [True, False] * 5
    assert all(row["train/cut_texts"] == 0 for row in steps)
    assert validation.keys() == {"step", "val/t2v_r1", "val/t2v_r5", "val/v2t_r1", "val/v2t_r5", "val/order_accuracy"}
    assert figures["best_top1"] == figures["t2v_r1"]
    checkpoint = read_checkpoint(run.folder / "model_best.pt")
    assert (checkpoint["class_names"], checkpoint["videos_per_step"], checkpoint["steps_per_epoch"]) == ([], 2, 10)


@pytest.mark.parametrize(
    ("options", "lives"),  # within a round, and within an epoch after another's end
    [((), (1, 9, 5)), (("solver.grad_accumulation_steps=3", "solver.ema=0.9"), (4, 11))],
)
def test_a_run_interrupted_between_any_two_sources_ends_with_the_same_weights(build, options, lives):
    whole, run = build(*options, name="whole")
    train(whole, run)
    expected = run.folder / "last_model.pt"
    for steps in lives:
        train_interrupted(*build(*options, "resume=auto", name="parts"), steps)
        torch.manual_seed(steps)
    state, run = build(*options, "resume=auto", name="parts")
    assert (state.epoch, state.step) != (0, 0)
    train(state, run)
    assert_same(run.folder / "last_model.pt", expected)


def test_the_best_checkpoint_follows_the_first_figure(build):
    state, run = build()
    figures = iter([30.0, 20.0])
    run = replace(run, validate=lambda model: {"t2v_r1": next(figures), "order_accuracy": 50.0})
    assert train(state, run) == {"t2v_r1": 20.0, "order_accuracy": 50.0, "best_top1": 30.0, "best_epoch": 1}
    assert read_checkpoint(run.folder / "model_best.pt")["epoch"] == 0


def test_the_command_trains_evaluates_and_says_what_it_reached(debug_config, debug_texts, tmp_path, caplog):
    arguments = ["--config", str(debug_config), "--precision", "fp32", *debug_texts, f"data.output_path={tmp_path}"]
    with caplog.at_level("INFO"):
        figures = main([*arguments, "--log_time", "run", *OPTIONS, "solver.epochs=1"])
    assert f"t2v_r1 {figures['t2v_r1']:.2f}" in caplog.text
    best = next(tmp_path.rglob("model_best.pt"))
    again = main([*arguments, "--log_time", "again", "solver.evaluate=true", f"pretrain={best}"])
    assert again == {name: value for name, value in figures.items() if not name.startswith("best_")}


WRONG = {
    "labels wanted": (
        ["network.system=mote", "solver.loss_type=CE"],
        r"data\.sources has texts .* solver\.loss_type CE of mote does not take; expected network\.system tvtsv2 with",
    ),
    "an order alone": (
        ["data.sources=[]", "solver.loss_type=CE"],
        r"data\.val_transcripts goes with data\.sources, which are not set",
    ),
    "texts wanted": (["data.sources=[]"], r"solver\.loss_type contrast of tvtsv2 matches videos with texts"),
    "two lists": (["data.train_list=a.txt"], r"data\.sources takes the place of data\.train_list"),
    "no captions": (["data.val_list="], r"data\.val_list is not set"),
    "no sorter": (["tvtsv2.sorting=0"], r"data\.val_transcripts\.num_texts is 3, but tvtsv2 puts no texts in order"),
    "another number": (["tvtsv2.sorter_places=4"], r"data\.sources\[0\]\.num_texts is 3, but tvtsv2 puts 4 texts"),
    "captions have no order": (["data.val_transcripts.kind=captions"], r"data\.val_transcripts\.kind: expected one"),
    "one clip": (["data.sources=[{kind: captions, batch_size: 1}]"], "a batch has one over all processes"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_contradict_each_other_are_named(build, name):
    overrides, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        build(*overrides)


def test_operations_are_counted_of_each_source(build, debug_config, debug_texts):
    state, _ = build()
    config = load_config(debug_config, debug_texts)
    batches = read_training_data(config).examples(state.model.towers)
    assert [batch.texts.shape for batch in batches] == [(2, 3, 77), (3, 1, 77)]
    of_transcripts, of_captions = (
        count_flops(state.model, batch, Draws(torch.Generator())) / len(batch.clips) for batch in batches
    )
    assert of_transcripts > of_captions > 0
