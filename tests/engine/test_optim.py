"""Learning rates at points computed by hand, and who gets which."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.optim import (
    OPTIMIZERS,
    SCHEDULES,
    TransformersAdamW,
    build_optimizer,
    check_solver,
    cosine_lr,
    lr_schedule,
    multistep_lr,
    set_lr,
    timm_cosine_lr,
)
from engine.sharding import shard
from modules.systems.base import Group
from utils.config import SolverConfig
from utils.distributed import process_group


@pytest.mark.parametrize(
    ("epoch", "share"),
    [
        (0.0, 0.0),
        (0.1, 0.02),
        (2.5, 0.5),
        (5.0, 1.0),
        (11.25, 0.8535534),  # (1 + cos(45 degrees)) / 2
        (17.5, 0.5),
        (23.75, 0.1464466),
        (30.0, 0.0),
    ],
)
def test_the_cosine_schedule_at_points_of_the_published_recipe(epoch, share):
    assert cosine_lr(epoch, lr=5e-5, epochs=30, warmup=5) == pytest.approx(5e-5 * share, rel=1e-6, abs=1e-15)


def rates_of(published: dict, kind: str) -> tuple:
    """Our schedule of the settings in the file, and its rates for CLIP and for the head at the file's epochs."""
    steps, factor = tuple(published.get("steps", ())), published.get("factor", 0.1)
    schedule = lr_schedule(
        SolverConfig(
            type=kind, lr=published["lr"], epochs=published.get("epochs", 30), lr_warmup_step=published["warmup"],
            lr_decay_step=steps, lr_decay_factor=factor,
        )
    )  # fmt: skip
    head = [schedule(epoch) for epoch in published["at_epoch"]]
    ratio = published.get("clip_ratio", 1.0)
    return schedule, [ratio * rate for rate in head], head


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
def test_the_schedules_give_the_published_rates_of_text4vis(text4vis_golden, kind):
    published = json.loads((text4vis_golden / "schedule.json").read_text())[kind]
    _, clip, head = rates_of(published, kind)
    assert head == pytest.approx(published["head_lr"], rel=1e-9, abs=1e-20)
    if "clip_ratio" in published:
        assert clip == pytest.approx(published["clip_lr"], rel=1e-9, abs=1e-20)


def test_asked_at_every_tenth_step_the_schedule_gives_the_first_published_steps(text4vis_golden):
    published = json.loads((text4vis_golden / "schedule.json").read_text())["cosine"]
    schedule, *_ = rates_of(published, "cosine")
    per_epoch, rate, found = published["steps_per_epoch"], 0.0, []
    for step in range(50):
        within = step % per_epoch
        if within == 0 or (within + 1) % 10 == 0:  # the published loop asks seldom; ours asks at each step
            rate = schedule(step // per_epoch + within / per_epoch)
        found.append(rate)
    assert found == pytest.approx(published["head_lr_of_first_50_steps"], rel=1e-9, abs=1e-20)


def test_the_schedule_has_no_step_where_warm_up_ends():
    before, after = (cosine_lr(5 + shift, lr=1.0, epochs=30, warmup=5) for shift in (-1e-9, 1e-9))
    assert abs(before - after) < 1e-8


def test_without_warm_up_the_schedule_starts_at_the_full_rate():
    assert cosine_lr(0.0, lr=2.0, epochs=10, warmup=0) == 2.0
    assert multistep_lr(0.0, lr=2.0, warmup=0, steps=(), factor=0.1) == 2.0


def test_warm_up_over_all_epochs_ends_at_the_full_rate():
    assert cosine_lr(3.0, lr=2.0, epochs=3, warmup=3) == 2.0


@pytest.mark.parametrize(
    ("epoch", "lr"), [(0, 0.0), (1, 0.5), (2, 1.0), (9.99, 1.0), (10, 0.1), (19.99, 0.1), (20, 0.01), (30, 0.01)]
)
def test_the_multistep_schedule_falls_after_each_step(epoch, lr):
    assert multistep_lr(epoch, lr=1.0, warmup=2, steps=(10, 20), factor=0.1) == pytest.approx(lr)


def test_the_configuration_chooses_the_schedule():
    cosine = lr_schedule(SolverConfig(lr=1.0, epochs=10, lr_warmup_step=0))
    assert cosine(5) == pytest.approx(0.5)
    steps = lr_schedule(
        SolverConfig(type="multistep", lr=1.0, lr_warmup_step=2, lr_decay_step=(4.0,), lr_decay_factor=0.5)
    )
    assert [steps(epoch) for epoch in (1, 3, 5)] == pytest.approx([0.5, 1.0, 0.5])


@pytest.fixture(scope="module")
def ost_schedule(ost_golden) -> dict[str, np.ndarray]:
    """schedule.npz."""
    with np.load(ost_golden / "schedule.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", ["k400", "hmdb2", "hmdb16", "no_accumulation"])
def test_timm_s_cosine_gives_the_rates_of_ost_one_update_late(ost_schedule, case):
    of_case = {name.partition("/")[2]: value for name, value in ost_schedule.items() if name.startswith(f"{case}/")}
    epochs, steps = int(of_case["epochs"]), int(of_case["micro_steps_per_epoch"])
    solver = SolverConfig(
        type="timm_cosine", lr=float(of_case["lr"]), epochs=epochs, lr_warmup_step=float(of_case["warmup_epochs"])
    )
    schedule = lr_schedule(solver)
    # The published loop sets the rate after an update, of its last step; the next update uses it.
    set_after = [schedule(step / steps) for step in of_case["micro_step"].tolist()]
    assert [0.0, *set_after[:-1]] == pytest.approx(of_case["lr_used"].tolist(), rel=1e-12, abs=0)


def test_timm_s_cosine_drops_where_warm_up_ends_and_keeps_a_hundredth_at_the_end():
    rates = [timm_cosine_lr(epoch, lr=1.0, epochs=10, warmup=5) for epoch in (2.5, 5 - 1e-9, 5, 10)]
    assert rates == pytest.approx([0.5, 1.0, 0.505, 0.01])
    assert timm_cosine_lr(0.0, lr=2.0, epochs=10, warmup=0) == 2.0


@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.9, 0.999)])
def test_adamw_takes_the_published_steps_with_its_betas_and_no_others(ost_schedule, relative_error, betas):
    of_case = {name: torch.from_numpy(ost_schedule[f"no_accumulation/{name}"]) for name in ("gradients", "parameters")}
    parameter = nn.Parameter(of_case["parameters"][0].clone())
    optimizer = build_optimizer([Group("clip", [parameter], 1.0)], SolverConfig(betas=betas, weight_decay=0.001))
    found = [parameter.detach().clone()]
    for lr, gradient in zip(ost_schedule["no_accumulation/lr_used"], of_case["gradients"], strict=True):
        set_lr(optimizer, float(lr))
        parameter.grad = gradient.clone()
        optimizer.step()
        found.append(parameter.detach().clone())
    error = relative_error(torch.stack(found), of_case["parameters"])
    assert error < 1e-5 if betas == (0.9, 0.98) else error > 1e-4


@pytest.mark.parametrize(
    ("key", "value", "known"),
    [("type", "step", SCHEDULES), ("optim", "lion", OPTIMIZERS)],
    ids=["schedule", "optimizer"],
)
def test_an_unknown_name_is_an_error_that_lists_the_known(key, value, known):
    check_solver(SolverConfig())
    with pytest.raises(ValueError, match=rf"solver.{key}: expected one of {', '.join(known)}, found '{value}'"):
        check_solver(SolverConfig(**{key: value}))


@pytest.fixture
def model() -> nn.Module:
    model = nn.Module()
    model.clip, model.head = nn.Linear(3, 3), nn.Linear(3, 2)
    return model


def groups_of(model: nn.Module, clip_ratio: float = 0.1) -> list[Group]:
    """As a system names them."""
    return [
        Group("clip", list(model.clip.parameters()), clip_ratio),
        Group("head", list(model.head.parameters()), 1.0),
    ]


def test_clip_has_its_share_of_the_rate_and_the_head_all_of_it(model):
    optimizer = build_optimizer(groups_of(model, 0.07), SolverConfig(lr=1e-3, weight_decay=0.2))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert [id(p) for p in groups["clip"]["params"]] == [id(p) for p in model.clip.parameters()]
    assert [id(p) for p in groups["head"]["params"]] == [id(p) for p in model.head.parameters()]
    assert set_lr(optimizer, 2e-3) == pytest.approx({"lr_clip": 1.4e-4, "lr_head": 2e-3})
    assert (groups["clip"]["lr"], groups["head"]["lr"]) == pytest.approx((1.4e-4, 2e-3))


@pytest.mark.parametrize(
    ("optim", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_every_optimizer_decays_all_weights_alike(model, optim, kind):
    optimizer = build_optimizer(groups_of(model), SolverConfig(optim=optim, weight_decay=0.3, momentum=0.8))
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3]
    if optim == "sgd":
        assert [group["momentum"] for group in optimizer.param_groups] == [0.8, 0.8]
    else:
        assert [(group["betas"], group["eps"]) for group in optimizer.param_groups] == [((0.9, 0.999), 1e-8)] * 2
        other = build_optimizer(groups_of(model), SolverConfig(optim=optim, betas=(0.8, 0.95)))
        assert [group["betas"] for group in other.param_groups] == [(0.8, 0.95)] * 2


def test_one_step_of_adamw_equals_a_hand_computation(model):
    optimizer = build_optimizer(groups_of(model, 0.5), SolverConfig(weight_decay=0.2))
    set_lr(optimizer, 0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, -3.0)
    optimizer.step()
    for name, parameter in model.named_parameters():
        lr = 0.005 if name.startswith("clip") else 0.01
        expected = before[name] * (1 - lr * 0.2) + lr  # the first step of Adam is lr times the gradient's sign
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)


def by_hand(start: Tensor, gradients: list[Tensor], lr: float, decay: float) -> Tensor:
    """transformers' AdamW in float64, from its formula."""
    weight, mean, square = start.double(), 0.0, 0.0
    for count, gradient in enumerate(gradients, start=1):
        mean = 0.9 * mean + 0.1 * gradient.double()
        square = 0.98 * square + 0.02 * gradient.double() ** 2
        rate = lr * (1 - 0.98**count) ** 0.5 / (1 - 0.9**count)
        weight = weight - rate * mean / (square**0.5 + 1e-6)
        weight = weight - lr * decay * weight
    return weight


@pytest.mark.parametrize("size", [1.0, 1e-5], ids=["large gradients", "gradients near epsilon"])
def test_adamw_of_transformers_takes_the_steps_of_its_formula(size):
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(3, 5, generator=generator), torch.randn(7, generator=generator)]
    gradients = [[size * torch.randn(start.shape, generator=generator) for start in starts] for _ in range(4)]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    solver = SolverConfig(optim="adamw_transformers", betas=(0.9, 0.98), lr=0.01, weight_decay=0.3)
    groups = [Group("decayed", parameters[:1], 1.0), Group("not", parameters[1:], 0.5, weight_decay=0.0)]
    optimizer = build_optimizer(groups, solver)
    assert isinstance(optimizer, TransformersAdamW)
    set_lr(optimizer, solver.lr)
    for each in gradients:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for number, (lr, decay) in enumerate(((0.01, 0.3), (0.005, 0.0))):
        expected = by_hand(starts[number], [each[number] for each in gradients], lr, decay)
        assert float((parameters[number].detach() - expected).abs().max()) < 1e-6


def test_adamw_of_transformers_is_not_torch_s_with_its_epsilon():
    """At the first update its epsilon counts as 3.2e-5 does there."""
    moved = {}
    for eps in (1e-6, 1e-6 / (1 - 0.999) ** 0.5):
        weights = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
        for weight, kind in zip(weights, (torch.optim.AdamW, TransformersAdamW), strict=True):
            weight.grad = torch.tensor([1e-5, 1e-4, 1.0])
            kind([weight], lr=0.1, eps=eps if kind is torch.optim.AdamW else 1e-6, weight_decay=0.0).step()
        moved[eps] = float((weights[0] - weights[1]).detach().abs().max())
    assert moved[1e-6] > 0.05
    assert moved[1e-6 / (1 - 0.999) ** 0.5] < 1e-6


def test_adamw_of_transformers_leaves_parameters_without_gradient_and_decays_those_of_zero():
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = TransformersAdamW(weights, lr=0.1, weight_decay=0.5)
    weights[0].grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(weights[0].detach(), torch.full((3,), 0.95))
    assert torch.equal(weights[1].detach(), torch.ones(3))
    assert weights[1] not in optimizer.state


def test_adamw_of_transformers_counts_the_updates_of_each_parameter():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = TransformersAdamW(weights, lr=0.1)
    for step in range(3):
        weights[0].grad, weights[1].grad = torch.ones(2), torch.ones(2) if step == 2 else None
        optimizer.step()
    assert [int(optimizer.state[weight]["step"]) for weight in weights] == [3, 1]
    torch.testing.assert_close(weights[1].detach(), torch.full((2,), 0.9), rtol=0, atol=1e-4)  # a first update


def test_adamw_of_transformers_changes_sharded_parameters_as_whole_ones_and_takes_scaled_gradients(model, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    whole, sharded = copy.deepcopy(model), model
    inputs, solver = torch.randn(4, 3), SolverConfig(optim="adamw_transformers", weight_decay=0.1)
    with process_group(60):
        shard(sharded, sharded.children())
        for each in (whole, sharded):
            optimizer, scaler = build_optimizer(groups_of(each), solver), torch.amp.GradScaler("cpu", init_scale=256.0)
            set_lr(optimizer, 0.01)
            scaler.scale(each.head(each.clip(inputs)).square().sum()).backward()
            scaler.step(optimizer)
        for one, other in zip(whole.parameters(), sharded.parameters(), strict=True):
            assert float((one - other.full_tensor()).detach().abs().max()) < 1e-7


def test_fixed_parameters_are_left_out(model):
    model.clip.requires_grad_(False)
    (group,) = build_optimizer(groups_of(model), SolverConfig()).param_groups
    assert group["name"] == "head"


def test_scalars_are_groups_of_their_own_after_all_others(model):
    """As a model with a scale has them: checkpoints keep this order."""
    model.clip.scale = nn.Parameter(torch.tensor(1.0))
    found = build_optimizer(groups_of(model), SolverConfig()).param_groups
    shapes: list[tuple[str, list[Tensor]]] = [(group["name"], group["params"]) for group in found]
    assert [name for name, _ in shapes] == ["clip", "head", "clip"]
    assert [[p.ndim for p in parameters] for _, parameters in shapes] == [[2, 1], [2, 1], [0]]
    assert [group["lr_ratio"] for group in found] == [0.1, 1.0, 0.1]


def test_nothing_to_train_is_an_error(model):
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(groups_of(model), SolverConfig())


def test_the_rate_never_leaves_its_range():
    rates = [cosine_lr(step / 7, lr=1.0, epochs=30, warmup=5) for step in range(7 * 30 + 1)]
    assert all(0 <= rate <= 1 and math.isfinite(rate) for rate in rates)
