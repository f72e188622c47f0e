"""Remedies against forgetting in every system: what they add, to whom it is a lesson, and where they cannot be."""

import copy

import pytest
import torch

from engine.draws import draws_of_step, draws_of_update
from engine.train import batch_of, train_step, update
from modules.build import SYSTEMS, add_remedies, build_towers, load_config
from modules.check import check_network
from modules.heads.mean import MeanPooling
from modules.objectives.keep import cosine_distance, head_mse, random_anchors, relations_loss, teacher_momentum
from modules.systems.base import Batch
from modules.systems.remedies import TEACHER

OPTIONS = (
    "data.num_segments=2", "data.batch_size=2", "network.templates=single", "network.drop_out=0.1",
    "solver.lr_warmup_step=0",
)  # fmt: skip
KINDS = {
    "mote": (),
    "clip": ("network.system=clip", "network.sim_header=transformer"),
    "text4vis": ("network.system=text4vis", "solver.loss_type=NCE", "network.fix_text=false"),
    "vificlip": ("network.system=vificlip", "network.fix_text=false", "solver.mixup=0.8", "solver.label_smoothing=0.1"),
    "ost": ("network.system=ost", "network.fix_text=false"),
    "tvtsv2": ("network.system=tvtsv2", "solver.loss_type=CE", "data.transforms=tvts"),
}  # fmt: skip
assert KINDS.keys() == SYSTEMS.keys()


@pytest.fixture
def build(debug_config, debug_descriptors, tmp_path, fp32, prepare_run):
    def build(*overrides: str, name: str = "run"):
        options = [f"data.output_path={tmp_path}", f"ost.descriptors={debug_descriptors}", *OPTIONS, *overrides]
        return prepare_run(load_config(debug_config, options), fp32, name)

    return build


def moved(model: torch.nn.Module, seed: int = 3) -> torch.nn.Module:
    """The model with weights that are not those it began with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def first_batch(run) -> Batch:
    run.loader.batch_sampler.set_epoch(0, 0)
    return batch_of(next(iter(run.loader)), torch.device("cpu"))


@pytest.mark.parametrize("name", KINDS)
def test_a_remedy_is_added_to_the_loss_of_every_system_which_stays_what_it_is(build, name):
    (plain, run), remedy = build(*KINDS[name], name="plain"), "loss.relations=0.5"
    with_remedy, _ = build(*KINDS[name], remedy, name="with")
    batch = first_batch(run)
    found, own = (moved(state.model)(batch, draws_of_step(1, 0, 2)) for state in (with_remedy, plain))
    assert found.reported.keys() - own.reported.keys() == {"relations"}
    assert found.reported["relations"] > 1e-4
    assert all(torch.equal(found.reported[part], value) for part, value in own.reported.items())
    torch.testing.assert_close(found.total, own.total + 0.5 * found.reported["relations"])


def test_what_is_added_is_what_the_functions_say_of_the_pretrained_tower_and_of_the_one_that_follows(build):
    state, run = build(
        "network.drop_out=0", "loss.distill=2", "loss.head_mse=3", "loss.relations=0.5", "loss.anchors=9",
        "loss.relations_temperature=0.2",
    )  # fmt: skip
    config = load_config(run.folder / "config.yaml")
    batch, model = first_batch(run), state.model
    frozen = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    follower = copy.deepcopy(moved(model.remedies.follower, seed=4))
    losses = moved(model)(batch, draws_of_step(1, 0, 2))
    frames = model.towers.encode_clips(batch.clips)
    after = model.head(frames)
    anchors = random_anchors(draws_of_step(1, 0, 2).shared, 9, frames)
    expected = {
        "distill": cosine_distance(frames, frozen.encode_clips(batch.clips)),
        "head_mse": head_mse(after, frames),
        "relations": relations_loss(frames, follower.encode_clips(batch.clips), anchors, 0.2),
    }
    for part, value in expected.items():
        torch.testing.assert_close(losses.reported[part], value.detach())
        assert value > 1e-4
    own = model.loss(batch, draws_of_step(1, 0, 2)).total
    total = own + 2 * expected["distill"] + 3 * expected["head_mse"] + 0.5 * expected["relations"]
    torch.testing.assert_close(losses.total, total)
    losses.total.backward()
    teachers = [*model.remedies.frozen.parameters(), *model.remedies.follower.parameters()]
    assert all(each.grad is None and not each.requires_grad for each in teachers)
    known = {id(each) for group in state.optimizer.param_groups for each in group["params"]}
    assert known.isdisjoint(map(id, teachers))
    assert {id(each) for each in model.parameters()}.isdisjoint(map(id, teachers))
    assert sum(map(len, model.weights().values())) == len(model.state_dict())


def test_the_distance_behind_the_head_is_that_of_its_output(build):
    state, run = build("network.drop_out=0", "loss.distill=1", "loss.distill_at=head")
    batch = first_batch(run)
    start = state.model.towers.encode_clips(batch.clips).detach()
    model = moved(state.model)
    after = model.after_head(model.encode(batch.clips))
    found = model(batch, draws_of_step(1, 0, 0)).reported["distill"]
    torch.testing.assert_close(found, cosine_distance(after, start).detach())


def test_of_cached_features_the_teacher_s_are_the_cache_s(build):
    state, run = build("loss.distill=1", "loss.distill_at=head", "network.fix_video=true")
    config = load_config(run.folder / "config.yaml", ["data.modality=features"])
    add_remedies(state.model, config)
    assert state.model.remedies.frozen is None  # no second tower
    features = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(0)).half()
    losses = state.model(Batch(features=features, labels=torch.tensor([1, 2])), draws_of_step(1, 0, 0))
    after = state.model.head(features.float())
    torch.testing.assert_close(losses.reported["distill"], cosine_distance(after, features).detach())


def test_a_teacher_without_the_modules_between_frames_is_clip_itself(build):
    state, _ = build("network.tm=tokent1d", "loss.distill=1", "network.system=clip", "network.sim_header=None")
    assert state.model.towers.additions
    assert not state.model.remedies.frozen.additions


def test_the_teacher_that_follows_takes_a_share_of_the_weights_after_each_update(build):
    state, run = build(
        "loss.relations=1", "loss.relations_momentum=0.5", "solver.epochs=1", "solver.lr=0.01", "solver.clip_ratio=1",
        "solver.grad_accumulation_steps=2",
    )  # fmt: skip
    model, batch, steps = state.model, first_batch(run), len(run.loader)
    name = "visual.proj"
    before = dict(model.remedies.follower.named_parameters())[name].clone()
    assert torch.equal(before, dict(model.towers.named_parameters())[name])
    reports = []
    for state.step in range(2):
        reports.append(train_step(model, batch, state, run, range(2)))
    assert torch.equal(dict(model.remedies.follower.named_parameters())[name], before)  # no update yet
    state.step = 2
    update(state, run, reports)
    now, momentum = dict(model.towers.named_parameters())[name], teacher_momentum(2 / steps, 0.5)
    found = dict(model.remedies.follower.named_parameters())[name]
    torch.testing.assert_close(found, momentum * before + (1 - momentum) * now)
    assert not torch.equal(now, before)
    assert torch.equal(state.content()[TEACHER][name], found)


def test_shared_draws_are_those_of_all_processes_and_other_ones_in_each_step():
    def drawn(draws) -> float:
        return torch.rand(1, dtype=torch.float64, generator=draws.shared).item()

    assert len({drawn(draws_of_step(3, rank, 7)) for rank in range(4)}) == 1
    of_steps = {drawn(draws_of_step(seed, 0, step)) for seed in range(3) for step in range(20)}
    assert len(of_steps) == 60
    assert len({torch.rand(1, generator=each).item() for each in draws_of_update(3, 7)}) == 2


def test_two_processes_with_half_of_a_batch_each_have_the_gradients_of_one_with_all_of_it(build):
    state, run = build(
        "network.system=clip", "network.sim_header=transformer", "network.drop_out=0", "data.batch_size=4",
        "loss.distill=2", "loss.distill_at=head", "loss.head_mse=1", "loss.relations=5",
    )  # fmt: skip
    batch, model = first_batch(run), moved(state.model)
    found = {}
    for name, parts in (("one", [(0, slice(0, 4))]), ("two", [(0, slice(0, 2)), (1, slice(2, 4))])):
        model.zero_grad()
        for rank, rows in parts:
            share = Batch(clips=batch.clips[rows], labels=batch.labels[rows])
            (model(share, draws_of_step(7, rank, 3)).total / len(parts)).backward()
        found[name] = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
    assert (found["two"] - found["one"]).norm() < 1e-4 * found["one"].norm()
    share = Batch(clips=batch.clips, labels=batch.labels)
    model.zero_grad()
    model(share, draws_of_step(7, 0, 4)).total.backward()
    other = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
    assert (other - found["one"]).norm() > 1e-3 * found["one"].norm()  # of another step's anchors


def test_without_weights_there_are_no_remedies(build):
    state, _ = build()
    assert state.model.remedies is None
    assert TEACHER not in state.content()


def test_a_checkpoint_needs_the_teacher_of_this_tower(build):
    state, _ = build("loss.relations=1")
    content = {key: value for key, value in state.content().items() if key != TEACHER}
    remedies = state.model.remedies
    with pytest.raises(ValueError, match=r"checkpoint x: resume: it has no teacher of loss\.relations"):
        remedies.resume(content, "checkpoint x")
    teacher = remedies.content()[TEACHER]
    name = next(iter(teacher))
    for damaged, says in (
        ({k: v for k, v in teacher.items() if k != name}, f"missing {name}"),
        (teacher | {name: torch.full_like(teacher[name], torch.nan)}, "not finite"),
        (teacher | {name: "text"}, "expected a tensor"),
    ):
        with pytest.raises(ValueError, match=rf"x: {TEACHER}.*{says}"):
            remedies.resume({TEACHER: damaged}, "x")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["network.joint_st=true", "network.sim_header=None", "loss.distill=1"], r"loss\.distill is about .* single"),
        (["network.system=tvtsv2", "solver.loss_type=CE", "network.sim_header=None", "loss.distill=1"], "single frame"),
        (["network.system=tvtsv2", "solver.loss_type=contrast", "data.sources=[{kind: captions}]", "data.train_list=",
          "data.label_list=", "network.sim_header=None", "loss.relations=1"], r"loss\.relations needs one set"),
        (["network.sim_header=None", "loss.head_mse=1"], r"loss\.head_mse: there is no head"),
        (["network.sim_header=None", "loss.distill=1", "loss.distill_at=head"], r"loss\.distill: there is no head"),
        (["network.fix_video=true", "loss.relations=1"], r"loss\.relations keeps .* network\.fix_video"),
        (["network.fix_video=true", "loss.distill=1"], r"loss\.distill keeps .* network\.fix_video"),
        (["solver.strategy=fsdp", "loss.relations=1"], r"loss\.relations keeps a whole second tower"),
    ],
)  # fmt: skip
def test_where_a_remedy_cannot_work_is_an_error_that_says_so(debug_config, overrides, says):
    with pytest.raises(ValueError, match=says):
        check_network(load_config(debug_config, overrides), videos_per_step=4)


def test_mean_pooling_is_a_head_that_changes_nothing():
    frames = torch.ones(1, 2, 3)
    assert torch.equal(MeanPooling()(frames), frames)  # why the errors above are right
