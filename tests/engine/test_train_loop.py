"""The training loop: it learns, it can be interrupted, and it says what it could not read."""

import copy
import itertools
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from datasets.clips.video import Failure
from engine.draws import draws_of_step
from engine.meter import Meter
from engine.state import TrainState
from engine.train import Training, batch_of, train, train_epoch
from modules.build import load_config
from modules.formats.ours import read_checkpoint
from modules.systems.base import Losses
from utils.logger import MetricWriter
from utils.precision import Precision
from utils.signals import StopRequest


@pytest.fixture
def build(debug_config, tmp_path, fp32, prepare_run):
    """Prepare a run of the debug configuration; overrides as on the command line."""

    def build(*overrides: str, name: str = "run") -> tuple[TrainState, Training]:
        small = ["data.num_segments=2", "network.templates=single", "network.temporal_layer=1", "logging.print_freq=1"]
        config = load_config(debug_config, [f"data.output_path={tmp_path}", *small, *overrides])
        return prepare_run(config, fp32, name)

    return build


def metric_rows(run: Training) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_the_debug_configuration_learns(build):
    state, run = build("solver.epochs=12", "solver.lr=5e-3", "data.crop_area=[1, 1]", "data.random_shift=false")
    figures = train(state, run)
    losses = [row["train/loss"] for row in metric_rows(run) if "train/loss" in row]
    assert len(losses) == 12 * 3

    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert figures.keys() == {"top1", "top5", "best_top1", "best_epoch"}
    assert figures["best_top1"] >= figures["top1"]
    assert figures["top5"] == 100.0  # of four classes


def test_metrics_hold_every_part_rate_and_validation(build):
    state, run = build("solver.epochs=1", "solver.lr_warmup_step=0")
    train(state, run)
    *steps, validation = metric_rows(run)
    assert [row["step"] for row in steps] == [1, 2, 3]
    parts = {"loss", "expert_ce", "merged_ce", "feature_mse", "logit_scale", "grad_norm", "lr_clip", "lr_head"}
    assert {f"train/{part}" for part in parts} <= steps[0].keys()
    first = {name.removeprefix("train/"): value for name, value in steps[0].items()}
    total = first["expert_ce"] + 0.5 * first["merged_ce"] + 0.1 * first["feature_mse"]
    assert first["loss"] == pytest.approx(total, rel=1e-5)
    assert (first["lr_head"], first["lr_clip"]) == pytest.approx((1e-3, 1e-4))
    assert steps[1]["train/lr_head"] == pytest.approx(1e-3 * (1 + math.cos(math.pi / 3)) / 2)
    assert validation.keys() == {"step", "val/top1", "val/top5"}


def test_a_checkpoint_has_the_published_keys_and_loads_into_another_model(build):
    state, run = build("solver.epochs=1")
    train(state, run)
    content = torch.load(run.folder / "last_model.pt", weights_only=True)
    published = {"epoch", "model_state_dict", "fusion_model_state_dict", "optimizer_state_dict"}
    assert content.keys() == published | {
        "scaler_state_dict",
        "step",
        "best_top1",
        "best_epoch",
        "must_validate",
        "videos_per_step",
        "steps_per_epoch",
        "train_list",
        "config",
        "class_names",
        "towers",
    }
    assert content["epoch"] == 0  # the last finished one
    assert content["class_names"][0] == "a bar moving left"
    assert (content["towers"]["image_size"], content["towers"]["context_length"]) == (32, 77)
    assert "num_experts: 4" in content["config"]
    assert {name.split(".")[0] for name in content["model_state_dict"]} == {"visual", "logit_scale"}
    other, _ = build("seed=1", name="other")
    other.model.load_weights(read_checkpoint(run.folder / "last_model.pt"), "last_model.pt")
    assert_same_weights(other.model.state_dict(), state.model.state_dict())
    assert (run.folder / "model_best.pt").is_file()


def test_the_best_checkpoint_is_that_of_the_best_validation(build):
    state, run = build("solver.epochs=4", "data.batch_size=12")
    scores = iter([10.0, 30.0, 20.0, 30.0])
    run = replace(run, validate=lambda model: {"top1": next(scores), "top5": 50.0})
    assert train(state, run) == {"top1": 30.0, "top5": 50.0, "best_top1": 30.0, "best_epoch": 2}
    assert read_checkpoint(run.folder / "model_best.pt")["epoch"] == 1  # a tie is no improvement
    assert read_checkpoint(run.folder / "last_model.pt")["epoch"] == 3


def test_validation_follows_its_frequency_and_ends_the_run(build):
    state, run = build("solver.epochs=5", "logging.eval_freq=2", "data.batch_size=12")
    epochs = []
    run = replace(run, validate=lambda model: epochs.append(state.epoch) or {"top1": 0.0, "top5": 0.0})
    train(state, run)
    assert epochs == [2, 4, 5]


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(build):
    options = ("solver.epochs=3", "data.batch_size=6", "network.temporal_layer=2")
    whole, run = build(*options, name="whole")
    train(whole, run)

    state, run = build(*options, name="parts")
    train(state, replace(run, epochs=1))
    torch.manual_seed(99)  # another process
    checkpoint = run.folder / "last_model.pt"
    state, run = build(*options, f"resume={checkpoint}", name="parts")
    assert state.epoch == 1
    train(state, run)

    found, expected = read_checkpoint(checkpoint), read_checkpoint(checkpoint.parents[1] / "whole" / "last_model.pt")
    assert found["epoch"] == expected["epoch"] == 2
    assert found["best_top1"] == expected["best_top1"]
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert_same_weights(found[part], expected[part])
    for key, values in expected["optimizer_state_dict"]["state"].items():
        assert_same_weights(found["optimizer_state_dict"]["state"][key], values)


def test_starting_from_weights_is_not_resuming(build):
    state, run = build("solver.epochs=1", "data.batch_size=12", name="first")
    train(state, run)
    started, _ = build(f"pretrain={run.folder / 'last_model.pt'}", name="second")
    assert started.epoch == 0
    assert not started.optimizer.state
    assert torch.equal(started.model.towers.visual.proj, state.model.towers.visual.proj)


def test_a_released_checkpoint_cannot_be_resumed(build):
    state, _ = build()
    released = {k: state.content()[k] for k in ("epoch", "model_state_dict", "fusion_model_state_dict")}
    with pytest.raises(ValueError, match=r"no training state; to start from its weights use pretrain"):
        state.resume(released | {"optimizer_state_dict": {}})


MEAN_POOLING = ("network.sim_header=None", "solver.optim=sgd", "solver.momentum=0", "solver.weight_decay=0")


def train_one_epoch(state: TrainState, run: Training) -> None:
    writer = MetricWriter(run.folder)
    train_epoch(state.model, state, run, writer, StopRequest(), Meter(run.precision.device))
    writer.close()


def test_accumulated_small_batches_equal_large_ones(build):
    weights = []
    for number, options in enumerate(
        (["data.batch_size=4"], ["data.batch_size=2", "solver.grad_accumulation_steps=2"])
    ):
        state, run = build(*MEAN_POOLING, *options, name=str(number))
        train_one_epoch(state, replace(run, lr_at=lambda epoch: 1.0))
        weights.append(state.model.state_dict())
    start = build(*MEAN_POOLING, name="start")[0].model.state_dict()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(weights[0]["towers.visual.proj"], start["towers.visual.proj"], rtol=1e-3)


def test_accumulation_equals_updates_by_hand_and_flushes_at_the_end_of_an_epoch(build):
    state, run = build(*MEAN_POOLING, "data.batch_size=2", "solver.grad_accumulation_steps=4")  # windows of 4 and 2
    rates = [0.1 * (1 + step) for step in range(6)]
    model = copy.deepcopy(state.model)
    run.loader.batch_sampler.set_epoch(0)
    batches = [(batch.clips[:, 0], batch.labels) for batch in run.loader]
    for window in (range(4), range(4, 6)):
        clips, labels = (torch.cat(parts) for parts in zip(*(batches[step] for step in window), strict=True))
        features = F.normalize(model.train().encode(clips).frames.mean(dim=1), dim=-1)
        parameters = list(model.parameters())
        loss = F.cross_entropy(model.logit_scale * features @ model.classes.features.T, labels)
        with torch.no_grad():
            for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter -= rates[window.start] * 0.1 * grad  # clip_ratio 0.1
    train_one_epoch(state, replace(run, lr_at=lambda epoch: rates[round(epoch * 6)]))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in state.model.parameters())


def test_expert_draws_depend_on_seed_rank_and_step_alone():
    def draw(*key: int) -> tuple:
        return tuple(torch.rand(2, generator=draws_of_step(*key).generator).tolist())

    keys = [(seed, rank, step) for seed in range(4) for rank in range(4) for step in range(50)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(3, 2, 1) == draw(3, 2, 1)


def test_every_step_draws_experts_of_its_own(build, monkeypatch):
    state, run = build()
    draws = []
    draw = state.model.head.draw
    monkeypatch.setattr(state.model.head, "draw", lambda *how: draws.append(draw(*how)) or draws[-1])
    for epoch in (0, 1):
        state.epoch, state.step = epoch, 0
        train_one_epoch(state, run)
    temperatures = state.model.settings.merge_temperatures
    expected = [draw(draws_of_step(1024, 0, step).generator, temperatures, True) for step in range(6)]
    assert all(torch.equal(found, wanted) for found, wanted in zip(draws, expected, strict=True))
    assert len({tuple(found.flatten().tolist()) for found in draws}) > 3


def test_shared_draws_depend_on_the_update_alone(build, monkeypatch):
    draws = {}
    for name, options in (
        ("whole", ["data.batch_size=4"]),  # three updates an epoch
        ("halves", ["data.batch_size=2", "solver.grad_accumulation_steps=2"]),
    ):
        state, run = build("solver.draws=shared", *options, name=name)
        draws[name] = found = []
        draw = state.model.head.draw
        monkeypatch.setattr(state.model.head, "draw", lambda *how, draw=draw, to=found: to.append(draw(*how)) or to[-1])
        for epoch in (0, 1):
            state.epoch, state.step = epoch, 0
            train_one_epoch(state, run)
    for update, expected in enumerate(draws["whole"]):
        assert torch.equal(draws["halves"][2 * update], expected)
        assert torch.equal(draws["halves"][2 * update + 1], expected)
    assert len({tuple(found.flatten().tolist()) for found in draws["whole"]}) > 3


def test_metrics_count_how_often_each_expert_was_drawn(build):
    state, run = build("network.temporal_layer=2", "logging.print_freq=3", "solver.epochs=1")
    train(state, run)
    row = metric_rows(run)[0]
    for layer in range(2):
        shares = [row[f"train/draws/{layer}/{expert}"] for expert in range(4)]
        assert sum(shares) == pytest.approx(1.0)
        assert all(share * 3 == pytest.approx(round(share * 3)) for share in shares)  # of three steps
    assert "train/draws/2/0" not in row


EMA = ("solver.ema=0.5", "solver.epochs=2", "data.batch_size=6", "solver.lr=1e-2", "solver.lr_warmup_step=0")


def test_averaged_weights_follow_their_rule_are_validated_and_saved(build):
    state, run = build(*EMA)
    seen = []
    step = state.optimizer.step

    def watched_step() -> None:
        step()
        seen.append(state.model.head.frame_position_embeddings.weight.detach().clone())

    state.optimizer.step = watched_step
    figures = train(state, run)
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.5 * expected + 0.5 * weight
    assert len(seen) == 4
    saved = read_checkpoint(run.folder / "ema_model.pt")
    torch.testing.assert_close(saved["fusion_model_state_dict"]["frame_position_embeddings.weight"], expected)
    assert saved["optimizer_state_dict"] == {}
    assert {"top1", "ema_top1", "ema_top5"} <= figures.keys()
    assert {"val/ema_top1", "val/top1"} <= metric_rows(run)[-1].keys()


def test_a_resumed_run_continues_its_averaged_weights(build):
    whole, run = build(*EMA, name="whole")
    train(whole, run)
    state, run = build(*EMA, name="parts")
    train(state, replace(run, epochs=1))
    state, run = build(*EMA, "resume=auto", name="parts")
    train(state, run)
    assert_same_weights(state.ema.module.state_dict(), whole.ema.module.state_dict())
    with pytest.raises(ValueError, match=r"no averaged weights; set solver.ema=0 or start anew"):
        state.resume({name: value for name, value in state.content().items() if name != "ema"})


def test_a_run_killed_between_writing_a_checkpoint_and_naming_it_names_it_when_it_goes_on(build):
    state, run = build("solver.epochs=2", "data.batch_size=12")
    train(state, replace(run, validate=lambda model: {"top1": float(state.epoch), "top5": 50.0}))
    for name in ("last_model.pt", "model_best.pt"):
        (run.folder / name).unlink()
    state, run = build("solver.epochs=2", "data.batch_size=12", "resume=auto")
    assert train(state, run) == {"best_top1": 2.0, "best_epoch": 2}  # nothing left to train
    for name in ("last_model.pt", "model_best.pt"):
        assert read_checkpoint(run.folder / name)["epoch"] == 1


def write_list(folder: Path, source: str, repeats: int, broken: int) -> str:
    """A training list with the first ``broken`` of its videos missing."""
    lines = Path(source).read_text().splitlines() * repeats
    lines[:broken] = [f"gone {number}.mp4 0" for number in range(broken)]
    (folder / "train.txt").write_text("\n".join(lines))
    return f"data.train_list={folder / 'train.txt'}"


def test_an_unreadable_training_video_is_replaced_by_the_same_one_every_time(build, debug_data, tmp_path, caplog):
    train_list = write_list(tmp_path, str(debug_data / "train.txt"), repeats=2, broken=1)  # 1 of 24
    weights = []
    for name in ("one", "two"):
        state, run = build(train_list, "solver.epochs=1", name=name)
        with caplog.at_level(logging.WARNING):
            train(state, run)
        weights.append(state.model.state_dict())
    assert_same_weights(*weights)
    messages = [record.message for record in caplog.records]
    assert messages.count("unreadable, replaced by another video: gone 0.mp4 (no such file)") == 2
    assert messages.count("1 of 24 videos of this epoch could not be read") == 2


def test_more_than_five_percent_of_unreadable_videos_stop_the_run(build, debug_data, tmp_path):
    train_list = write_list(tmp_path, str(debug_data / "train.txt"), repeats=2, broken=2)  # 8 %
    state, run = build(train_list)
    with pytest.raises(ValueError, match=r"2 of 24 training videos could not be read, more than 5%; check data"):
        train(state, run)
    assert not (run.folder / "last_model.pt").exists()


def multiply_loss(state: TrainState, factors: Iterator[float]) -> None:
    """Make each step's loss so many times as large."""
    loss = state.model.loss

    def broken_loss(batch, draws) -> Losses:
        total, reported = loss(batch, draws)
        return Losses(total * next(factors), reported)

    state.model.loss = broken_loss


def test_a_loss_that_is_not_finite_stops_the_run(build):
    state, run = build()
    multiply_loss(state, itertools.repeat(math.nan))
    before = copy.deepcopy(state.model.state_dict())
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 1: loss nan, expert_ce 1.*lower solver.lr"):
        train(state, run)
    assert_same_weights(state.model.state_dict(), before)
    assert_same_weights(
        read_checkpoint(run.folder / "non_finite.pt")["fusion_model_state_dict"],
        {name.removeprefix("head."): value for name, value in before.items() if name.startswith("head.")},
    )


def test_a_loss_that_is_not_finite_in_the_first_step_of_a_window_is_named(build):
    state, run = build("solver.grad_accumulation_steps=2", "logging.print_freq=2")
    multiply_loss(state, iter([math.inf, 1.0]))
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2: loss inf, .* on process 0; gradient norm nan"):
        train(state, run)


def test_a_training_text_tower_trains_and_its_last_classes_are_remembered(build):
    state, run = build("network.fix_text=false", "solver.epochs=1", "solver.lr_warmup_step=0")
    before = copy.deepcopy(state.model.state_dict())
    train(state, run)
    after = state.model.state_dict()
    assert not torch.equal(before["towers.token_embedding.weight"], after["towers.token_embedding.weight"])
    with torch.no_grad():
        features = state.model.classes.encode(state.model.eval().towers)
    torch.testing.assert_close(after["head.spe_cls_feature"], features)
    assert not torch.allclose(before["head.spe_cls_feature"], features, atol=1e-4)


def test_backward_runs_outside_autocast(build):
    state, run = build("solver.epochs=1")
    found, loss = [], state.model.loss

    def watched_loss(batch, draws) -> Losses:
        assert torch.is_autocast_enabled("cpu")  # the forward pass is inside
        losses = loss(batch, draws)
        losses.total.register_hook(lambda grad: found.append(torch.is_autocast_enabled("cpu")))
        return losses

    state.model.loss = watched_loss
    train_one_epoch(state, replace(run, precision=Precision("bf16", torch.device("cpu"))))
    assert found == [False] * len(run.loader)


class Loaded(NamedTuple):
    """A batch of a loader."""

    clips: torch.Tensor | None
    features: torch.Tensor | None
    labels: torch.Tensor
    failures: tuple = ()
    lengths: torch.Tensor | None = None
    texts: torch.Tensor | None = None

    @property
    def is_empty(self) -> bool:
        return self.clips is None and self.features is None


def test_a_batch_holds_one_view_of_clips_or_of_features(fp32):
    clips = torch.randint(256, (2, 1, 3, 3, 4, 4), dtype=torch.uint8)
    labels = torch.tensor([3, 1])
    batch = batch_of(Loaded(clips, None, labels), fp32.device)
    assert torch.equal(batch.clips, clips[:, 0])
    assert (batch.features, batch.labels.tolist(), batch.lengths) == (None, [3, 1], None)
    batch = batch_of(Loaded(clips, None, labels, lengths=torch.tensor([[3], [2]])), fp32.device)
    assert batch.lengths.tolist() == [3, 2]
    texts = torch.zeros(2, 4, 77, dtype=torch.long)
    batch = batch_of(Loaded(clips, None, labels, texts=texts), fp32.device)
    assert (batch.labels, batch.texts.shape) == (None, (2, 4, 77))
    features = torch.randn(2, 1, 3, 8)
    batch = batch_of(Loaded(None, features, labels), fp32.device)
    assert torch.equal(batch.features, features[:, 0])
    assert batch.clips is None


def test_a_batch_without_a_readable_video_is_an_error_that_names_the_last(fp32):
    empty = Loaded(None, None, torch.tensor([]), (Failure("a.mp4", "gone"), Failure("b.mp4", "gone")))
    with pytest.raises(ValueError, match=r"no video of a batch could be read, the last was b\.mp4"):
        batch_of(empty, fp32.device)
