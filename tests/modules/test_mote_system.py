"""MoTE: a step equal to the published one, its loss by hand, and what is different in a test."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modules.classes.base import FixedClasses
from modules.classes.templates import template_classes
from modules.heads.experts import ExpertTransformer, merge_mixing, one_hot_mixing
from modules.modulation import fitted_temperature, modulation_gate
from modules.systems.base import Batch, Draws, Losses, cosines
from modules.systems.mote import MoTE, MoTESettings

TOLERANCE = 1e-5  # the README of the golden data
CLASSES = ["yoga", "juggling balls", "zumba", "tai chi", "archery", "drumming", "bowling"]
LABELS = torch.tensor([0, 2])


class Case:
    """One golden step of the published head."""

    def __init__(self, path, mote_of):
        self.arrays = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
        parameters = {k.removeprefix("param/"): v for k, v in self.arrays.items() if k.startswith("param/")}
        layers = len(self["expert_index"])
        head = ExpertTransformer(64, layers, int(self["heads"]), 4, len(parameters["spe_cls_feature"]))
        head.load_state_dict(parameters)
        routes = one_hot_mixing(self["expert_index"], 4), merge_mixing(self["temperature"].float(), 4)
        self.mixing = torch.stack(routes, dim=1)
        self.system = mote_of(head, self["class_features"], self["scale"], self.mixing)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.arrays[name]

    def step(self, draws: Draws) -> Losses:
        return self.system(Batch(features=self["frame_features"], labels=self["labels"]), draws)


@pytest.fixture(params=[1, 2])
def case(request, golden, mote_of) -> Case:
    return Case(golden / f"mote_head_{request.param}.npz", mote_of)


def test_training_losses_equal_the_published_ones(case, draws, relative_error):
    scores = cosines(case.system.head.routes(case["frame_features"], case.mixing), case["class_features"])
    assert relative_error(scores[0], case["train_logits_expert"]) < TOLERANCE
    assert relative_error(scores[1], case["train_logits_merged"]) < TOLERANCE
    losses = case.step(draws)
    assert relative_error(losses.reported["feature_mse"], case["train_feature_mse"]) < TOLERANCE
    assert relative_error(losses.total, case["train_loss"]) < TOLERANCE


def test_every_training_gradient_equals_the_published_one(case, draws, relative_error):
    frame_features = case["frame_features"].requires_grad_()
    case.step(draws).total.backward()
    assert relative_error(frame_features.grad, case["grad_frame_features"]) < TOLERANCE
    parameters = dict(case.system.head.named_parameters())
    expected = {k.removeprefix("grad/"): v for k, v in case.arrays.items() if k.startswith("grad/")}
    assert parameters.keys() == expected.keys()
    for name, parameter in parameters.items():
        if expected[name].any():
            assert relative_error(parameter.grad, expected[name]) < TOLERANCE, name
        else:
            assert not parameter.grad.any(), name


@pytest.mark.parametrize("is_merged", [False, True], ids=["experts", "merged once"])
@torch.no_grad()
def test_evaluation_equals_the_published_one(case, is_merged, relative_error):
    system, classes = case.system.eval(), case["class_features"]
    video = system.video_of(Batch(features=case["frame_features"]))

    def check() -> None:
        assert relative_error(system.after_head(video), case["eval_features_unmodulated"]) < TOLERANCE
        assert relative_error(system.after_head(video, classes), case["eval_features_modulated"]) < TOLERANCE
        assert relative_error(system.score(video, classes), case["eval_logits"]) < TOLERANCE

    if is_merged:
        with system.for_tests():
            check()
    else:
        check()


@pytest.fixture
def make(tiny_clip, expert_head, class_features):
    """MoTE on copies of one CLIP and one head; settings by name."""

    def make(**settings) -> MoTE:
        clip, head = copy.deepcopy(tiny_clip), copy.deepcopy(expert_head)
        return MoTE(clip, head, FixedClasses(class_features), MoTESettings(**settings))

    return make


def cross_entropy(scores: torch.Tensor, scale: float) -> float:
    losses = []
    for row, label in zip(scores.tolist(), LABELS.tolist(), strict=True):
        shares = [math.exp(scale * value) for value in row]
        losses.append(-math.log(shares[label] / sum(shares)))
    return sum(losses) / len(losses)


@pytest.fixture
def parts(make, frames, class_features) -> dict[str, float]:
    """The parts of the step of ``draws``, one route after the other."""
    system = make()
    with torch.no_grad():
        mixing = system.head.draw(torch.Generator().manual_seed(0), system.settings.merge_temperatures, True)
        video = system.encode(frames)
        routes = [system.head.routes(video.frames, mixing[:, route, None])[0] for route in (0, 1)]
        scale = float(system.logit_scale)
    return {
        "expert_ce": cross_entropy(cosines(routes[0], class_features), scale),
        "merged_ce": cross_entropy(cosines(routes[1], class_features), scale),
        "feature_mse": float((routes[1] - video.frames).square().mean()),
    }


def test_a_step_reports_the_parts_the_scale_and_the_draws(make, frames, draws, parts):
    system = make().train()
    losses = system(Batch(clips=frames, labels=LABELS), draws)
    reported = dict(losses.reported)
    drawn = reported.pop("draws")
    mixing = system.head.draw(torch.Generator().manual_seed(0), system.settings.merge_temperatures, True)
    assert torch.equal(drawn, mixing[:, 0])  # which of three experts each of two layers ran
    assert float(reported.pop("logit_scale")) == pytest.approx(1 / 0.07, rel=1e-5)
    assert {name: float(part) for name, part in reported.items()} == pytest.approx(parts, rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_parts(make, frames, draws, parts):
    total = make().train()(Batch(clips=frames, labels=LABELS), draws).total.detach()
    expected = parts["expert_ce"] + 0.5 * parts["merged_ce"] + 0.1 * parts["feature_mse"]
    assert float(total) == pytest.approx(expected, rel=1e-4)


def test_weights_of_the_parts_can_be_set(make, frames, draws, parts):
    system = make(expert=3.0, merged=0.0, feature_mse=2.0).train()
    total = system(Batch(clips=frames, labels=LABELS), draws).total.detach()
    assert float(total) == pytest.approx(3 * parts["expert_ce"] + 2 * parts["feature_mse"], rel=1e-4)


def test_one_route_has_one_part(make, frames, draws, parts):
    losses = make(merged=0.0, feature_mse=0.0).train()(Batch(clips=frames, labels=LABELS), draws)
    assert losses.reported.keys() == {"expert_ce", "logit_scale", "draws"}
    assert float(losses.total.detach()) == pytest.approx(parts["expert_ce"], rel=1e-4)


def test_without_experts_there_is_nothing_to_draw(tiny_clip, class_features, frames, draws):
    head = ExpertTransformer(width=64, layers=1, heads=1, num_experts=0, num_train_classes=7)
    losses = MoTE(tiny_clip, head, FixedClasses(class_features))(Batch(clips=frames, labels=LABELS), draws)
    assert losses.reported.keys() == {"expert_ce", "logit_scale"}
    assert torch.equal(losses.total.detach(), losses.reported["expert_ce"])


def test_what_is_reported_carries_no_graph(make, frames, draws):
    losses = make().train()(Batch(clips=frames, labels=LABELS), draws)
    assert losses.total.requires_grad
    assert not any(value.requires_grad for value in losses.reported.values())


@torch.no_grad()
def test_training_and_evaluation_return_the_same_types(make, frames, draws, class_features):
    system = make()
    for is_training in (True, False):
        system.train(is_training)
        assert isinstance(system(Batch(clips=frames, labels=LABELS), draws), Losses)
        video = system.encode(frames)
        assert video.frames.shape == system.after_head(video).shape == (2, 3, 64)
        assert system.embed(video).shape == (2, 64)
        assert system.score(video, class_features).shape == (2, 7)
        assert system.score_frames(video, class_features).shape == (2, 3, 7)


@torch.no_grad()
def test_modulation_weighs_the_temporal_branch_of_scores_alone(make, frames, class_features):
    system = make(modulation_classes=4, modulation_temperature=0.5).eval()
    video = system.encode(frames)
    gate = modulation_gate(video.frames, class_features, system.head.spe_cls_feature, 4, 0.5)
    assert ((gate > 0.01) & (gate < 0.99)).all()
    merge = torch.full((2, 1, 3), 1 / 3)  # the evaluation merge
    trained = system.head.routes(video.frames, merge)[0]
    expected = gate.view(2, 1, 1) * (trained - video.frames) + video.frames
    torch.testing.assert_close(system.after_head(video, class_features), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(system.score(video, class_features), cosines(expected, class_features))
    frame_scores = F.normalize(expected, dim=-1) @ class_features.T
    torch.testing.assert_close(system.score_frames(video, class_features), frame_scores)
    torch.testing.assert_close(system.embed(video), trained.mean(dim=1), rtol=1e-4, atol=1e-5)
    off = make(modulation=False).eval()
    torch.testing.assert_close(off.after_head(video, class_features), trained, rtol=1e-4, atol=1e-5)


def test_the_temperature_is_the_configured_one_to_the_bit_for_towers_like_openai_s(make):
    system = make(modulation_temperature=0.05)
    assert system.towers.has_narrow_cone
    assert system.temperature == 0.05
    assert isinstance(system.temperature, float)


@torch.no_grad()
def test_other_towers_take_the_temperature_from_how_far_apart_their_training_classes_lie(make, frames, class_features):
    system = make(modulation_classes=4, modulation_temperature=0.5).eval()
    video = system.encode(frames)
    as_configured = system.after_head(video, class_features)
    system.towers.has_narrow_cone = False
    expected = fitted_temperature(0.5, system.head.spe_cls_feature)
    assert float(expected) != pytest.approx(0.5, rel=0.1)
    assert torch.equal(system.temperature, expected)
    assert not torch.allclose(system.after_head(video, class_features), as_configured)
    as_fitted = make(modulation_classes=4, modulation_temperature=float(expected)).eval()
    torch.testing.assert_close(system.after_head(video, class_features), as_fitted.after_head(video, class_features))


def test_modulation_has_no_part_in_training(make, frames, class_features):
    """Whatever the training classes, and whether it is on."""
    totals = []
    for system in (make(), make(modulation=False), make()):
        if totals:
            system.remember(torch.zeros(7, 64))
        draws = Draws(torch.Generator().manual_seed(0))
        totals.append(system.train()(Batch(clips=frames, labels=LABELS), draws).total)
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])


def test_remembered_training_classes_make_the_gate_one_for_themselves(make, frames, class_features):
    system, off = make().eval(), make(modulation=False).eval()
    with torch.no_grad():
        video = system.encode(frames)
        ungated = off.after_head(video, class_features)
        assert not torch.allclose(system.after_head(video, class_features), ungated, atol=1e-3)
    given = class_features.clone().requires_grad_()
    system.remember(given)
    assert not system.head.spe_cls_feature.requires_grad
    assert torch.equal(system.state_dict()["head.spe_cls_feature"], class_features)
    torch.testing.assert_close(system.after_head(video, class_features), ungated, rtol=1e-4, atol=1e-4)


def test_a_training_text_tower_gets_gradients_from_tokens(tiny_clip, expert_head, frames, draws):
    classes = template_classes(tiny_clip, CLASSES[:3], "single", is_live=True)
    system = MoTE(tiny_clip, expert_head, classes).train()
    system(Batch(clips=frames, labels=LABELS), draws).total.backward()
    for name in ("token_embedding.weight", "text_projection", "transformer.resblocks.0.mlp.c_fc.weight"):
        assert system.towers.get_parameter(name).grad.abs().sum() > 0, name


def test_gradients_reach_the_image_tower_and_the_scale(make, frames, draws):
    system = make().train()
    system.towers.drop_text()
    system(Batch(clips=frames, labels=LABELS), draws).total.backward()
    untouched = [name for name, p in system.named_parameters() if p.grad is None or not p.grad.any()]
    # An expert that no layer drew still gets gradients from the merged pass.
    assert untouched == []


@torch.no_grad()
def test_cosines_are_single_precision_under_autocast(make, frames, class_features):
    system = make().eval()
    exact = system.score(system.encode(frames), class_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = system.score(system.encode(frames), class_features)
    assert found.dtype == torch.float32
    # In bf16 a cosine has 8 significant bits: products of single precision do not fall on that grid.
    assert not torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05)


@torch.no_grad()
def test_merged_experts_change_no_cosine(make, frames, class_features):
    system = make().eval()
    video = system.encode(frames)
    expected = system.score(video, class_features)
    with system.for_tests():
        torch.testing.assert_close(system.score(video, class_features), expected, rtol=1e-4, atol=1e-5)


def test_modulation_has_a_fewest_number_of_classes(make):
    assert make(modulation_classes=4).fewest_classes == 4
    assert make(modulation=False).fewest_classes == 1
