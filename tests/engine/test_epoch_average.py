"""The mean over epochs: its weights, and its place in checkpoints, validation and files."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.resume import AVERAGE
from engine.state import pretrained_tensors
from engine.train import train
from modules.build import load_config
from modules.formats.ours import read_checkpoint
from tests.engine.interruptions import assert_same
from utils.weights.epoch_average import EPOCH_WEIGHTS, EpochAverage

OPTIONS = (
    "data.num_segments=2", "data.batch_size=6", "network.templates=single", "solver.epochs=3", "solver.lr=1e-2",
    "solver.lr_warmup_step=0", "solver.clip_ratio=1", "logging.keep=9",
)  # fmt: skip
TOWER, HEAD = "model_state_dict", "fusion_model_state_dict"


@pytest.fixture
def build(debug_config, tmp_path, fp32, prepare_run):
    def build(*overrides: str, name: str = "run"):
        config = load_config(debug_config, [f"data.output_path={tmp_path}", *OPTIONS, *overrides])
        return prepare_run(config, fp32, name)

    return build


@pytest.mark.parametrize(("kind", "bell"), [("uniform", (0, 0)), ("gaussian", (0.75, 0.1)), ("gaussian", (0.5, 0.01))])
def test_the_mean_has_the_weights_of_its_rule_after_every_epoch(kind, bell):
    points = np.random.default_rng(0).normal(size=(6, 5))
    places = np.arange(6) / 5
    weights = np.ones(6) if kind == "uniform" else np.exp(-((places - bell[0]) ** 2) / 2 / bell[1] ** 2)
    tensors = [{"w": torch.tensor(point)} for point in points]
    average = EpochAverage.begin(tensors[0], 0.0, lambda place: EPOCH_WEIGHTS[kind](place, *bell))
    for count in range(2, 7):
        average.add(tensors[count - 1], places[count - 1])
        if weights[:count].sum() > 1e-250:  # NumPy's sum is one of zeros else, where ours has logarithms
            expected = np.average(points[:count], axis=0, weights=weights[:count])
            np.testing.assert_allclose(average.mean["w"].numpy(), expected, rtol=1e-9, atol=1e-12)
    assert np.isfinite(average.mean["w"].numpy()).all()


def test_what_does_not_change_stays_to_the_last_bit_and_a_model_gets_its_own_values_back():
    value = torch.tensor([0.1, 1e-30, 3e7])
    average = EpochAverage.begin({"a": value, "b": value}, 0.0, lambda place: place)
    for place in (0.3, 0.6, 0.9):
        average.add({"a": value, "b": value + place}, place)
    assert torch.equal(average.mean["a"], value)
    own = {"a": value.clone(), "b": torch.tensor([1.0, 2.0, 3.0])}
    before = copy.deepcopy(own)
    with average.in_place_of(own):
        assert torch.equal(own["b"], average.mean["b"])
    assert torch.equal(own["b"], before["b"])


def test_the_pretrained_weights_and_those_of_finished_epochs_are_averaged_validated_and_saved(build):
    state, run = build("solver.epoch_average=uniform", "solver.epochs=2")
    start = {name: value.clone() for name, value in pretrained_tensors(state.model).items()}
    asked = []

    def validate(model) -> dict[str, float]:
        asked.append(model.towers.state_dict()["visual.proj"].clone())
        return {"top1": 50.0, "top5": 60.0}

    figures = train(state, replace(run, validate=validate))
    ends = [read_checkpoint(run.folder / "checkpoints" / f"epoch_000{e}_step_0000000.pt") for e in (1, 2)]
    last, saved = read_checkpoint(run.folder / "last_model.pt"), read_checkpoint(run.folder / "average_model.pt")
    for name, value in start.items():
        expected = (value + ends[0][TOWER][name] + ends[1][TOWER][name]) / 3
        torch.testing.assert_close(last[AVERAGE]["mean"][name], expected)
        assert torch.equal(saved[TOWER][name], last[AVERAGE]["mean"][name])
    assert not torch.allclose(saved[TOWER]["visual.proj"], last[TOWER]["visual.proj"])
    assert all(torch.equal(saved[HEAD][name], value) for name, value in last[HEAD].items())
    assert saved["optimizer_state_dict"] == {}
    assert saved["config"] == last["config"]
    assert figures.keys() >= {"top1", "average_top1"}
    assert torch.equal(asked[2], ends[1][TOWER]["visual.proj"])  # raw and averaged, after each epoch
    assert torch.equal(asked[3], saved[TOWER]["visual.proj"])
    assert all(torch.equal(value, last[TOWER][name]) for name, value in pretrained_tensors(state.model).items())


def test_a_training_text_tower_encodes_the_classes_of_the_mean(build):
    state, run = build("solver.epoch_average=uniform", "solver.epochs=1", "network.fix_text=false")
    train(state, run)
    last, saved = (read_checkpoint(run.folder / f"{name}_model.pt") for name in ("last", "average"))
    raw, mean = (content[HEAD]["spe_cls_feature"] for content in (last, saved))
    assert not torch.allclose(raw, mean, atol=1e-4)
    assert torch.equal(state.model.head.spe_cls_feature, raw)
    state.model.load_weights(saved, "average")
    with torch.no_grad():
        torch.testing.assert_close(state.model.eval().classes.encode(state.model.towers), mean)


def test_without_the_key_there_is_no_mean(build):
    state, run = build("solver.epochs=1")
    train(state, run)
    assert AVERAGE not in read_checkpoint(run.folder / "last_model.pt")
    assert not (run.folder / "average_model.pt").exists()


def test_a_run_that_was_stopped_between_a_checkpoint_and_its_names_writes_the_mean_when_it_goes_on(build):
    state, run = build("solver.epoch_average=gaussian", "solver.epochs=1")
    train(state, run)
    mean = run.folder / "average_model.pt"
    expected = mean.rename(mean.with_name("expected.pt"))
    state, run = build("solver.epoch_average=gaussian", "solver.epochs=1", "resume=auto")
    train(state, run)
    assert_same(mean, expected)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda found: None, r"it has no mean over epochs; set solver\.epoch_average=''"),
        (lambda found: [1], "epoch_average: expected mean and log_weights"),
        (lambda found: found | {"log_weights": []}, "log_weights: expected finite numbers"),
        (lambda found: found | {"log_weights": [0.0, float("nan")]}, "log_weights: expected finite numbers"),
        (lambda found: found | {"mean": {}}, "the mean has missing"),
        (lambda found: found | {"mean": {k: v + torch.inf for k, v in found["mean"].items()}}, "not finite"),
    ],
)
def test_a_mean_that_cannot_be_is_named(build, damage, says):
    state, _ = build("solver.epoch_average=uniform")
    state.optimizer.zero_grad()
    content = state.content() | {"step": 0}
    for parameter in (p for group in state.optimizer.param_groups for p in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    content["optimizer_state_dict"] = state.optimizer.state_dict()
    content[AVERAGE] = damage(content[AVERAGE])
    with pytest.raises(ValueError, match=rf"checkpoint x: .*{says}"):
        state.resume(content, "x")
