"""A residual projection for the training classes: it begins as nothing, learns, and is left out for other classes."""

import copy

import numpy as np
import pytest
import torch

from commands.weights import FOR_ANY_CLASSES, Weights
from engine.draws import draws_of_step
from engine.state import TrainState
from engine.train import Training, batch_of, train
from modules.build import load_config
from modules.check import check_network
from modules.heads.projection import ResidualProjection
from modules.systems.base import Video
from utils.weights.four_keys import PROJECTION, save_checkpoint

SYSTEMS = {
    "mote": (),
    "clip": ("network.system=clip", "network.sim_header=transformer"),
    "text4vis": ("network.system=text4vis", "solver.loss_type=NCE", "network.fix_text=false"),
    "ost": ("network.system=ost", "network.fix_text=false"),
}
OPTIONS = (
    "data.num_segments=2", "data.batch_size=4", "network.templates=single", "solver.epochs=1", "solver.lr=0.01",
    "solver.lr_warmup_step=0",
)  # fmt: skip


@pytest.fixture
def build(debug_config, debug_descriptors, tmp_path, fp32, prepare_run):
    def build(*overrides: str, name: str = "run") -> tuple[TrainState, Training]:
        options = [f"data.output_path={tmp_path}", f"ost.descriptors={debug_descriptors}", *OPTIONS, *overrides]
        return prepare_run(load_config(debug_config, options), fp32, name)

    return build


def test_the_projection_adds_what_its_two_factors_make_and_begins_with_nothing():
    torch.manual_seed(0)
    projection, frames = ResidualProjection(6, 2), torch.randn(3, 4, 6)
    assert torch.equal(projection(frames), frames)
    torch.nn.init.normal_(projection.up.weight)
    down, up, x = (t.detach().numpy() for t in (projection.down.weight, projection.up.weight, frames))
    np.testing.assert_allclose(projection(frames).detach().numpy(), x + x @ down.T @ up.T, rtol=1e-4, atol=1e-5)
    assert np.linalg.matrix_rank(up @ down) == 2


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_compares_the_projected_features_in_its_loss_and_its_score(build, name):
    (plain, run), (with_it, _) = (
        build(*SYSTEMS[name], f"network.residual_projection={rank}", name=f"rank {rank}") for rank in (0, 3)
    )
    run.loader.batch_sampler.set_epoch(0, 0)
    batch = batch_of(next(iter(run.loader)), torch.device("cpu"))
    first, second = (state.model(batch, draws_of_step(1, 0, 0)).total for state in (plain, with_it))
    assert torch.equal(first, second)  # the identity, and nothing else has drawn other numbers
    second.backward()
    model = with_it.model
    assert model.projection.up.weight.grad.abs().max() > 0
    names, before = ([group["name"] for group in each.optimizer.param_groups] for each in (with_it, plain))
    assert names == [*before[:-1], "projection", before[-1]]  # the last one is of scalars
    torch.nn.init.normal_(model.projection.up.weight, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(model(batch, draws_of_step(1, 0, 0)).total, first)
    with torch.no_grad():
        classes = model.classes.encode(model.towers)
        video = Video(model.encode(batch.clips).frames)
        assert not torch.allclose(model.score(video, classes), plain.model.score(video, classes), atol=1e-3)
        torch.testing.assert_close(model.after_head(video), plain.model.after_head(video))
        torch.testing.assert_close(model.compared(video), model.projection(model.after_head(video)))


@pytest.fixture
def trained(build):
    """A run with a projection that has learnt, and its last checkpoint."""
    state, run = build("network.residual_projection=3")
    train(state, run)
    return state, run.folder / "last_model.pt"


def test_a_test_on_the_training_classes_keeps_it_and_one_on_others_leaves_it_out(trained, caplog):
    _, path = trained
    weights = Weights(path)
    assert set(weights.checkpoint[PROJECTION]) == {"down.weight", "up.weight"}
    video, found = Video(torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(0))), {}
    for name, settings in (("close", {}), ("zero-shot", FOR_ANY_CLASSES)):
        config = weights.config(None, ["eval.weight_average=1", "mote.modulation=false"], settings)
        towers = weights.towers(config, config.data.input_size)
        system = weights.build(config, towers, weights.classes(config, towers, ["a", "b", "c"])).eval()
        with torch.no_grad(), system.for_tests():
            found[name] = system.embed(video), system.projection(system.after_head(video)).mean(dim=1)
    torch.testing.assert_close(*found["close"])
    assert (found["close"][0] - found["zero-shot"][0]).abs().max() > 1e-4
    torch.testing.assert_close(*found["zero-shot"])
    assert "brings a projection, which network.residual_projection 0 leaves out" in caplog.text


def test_a_projection_of_another_rank_is_an_error_and_one_that_is_missing_begins_anew(trained, tmp_path):
    _, path = trained
    weights = Weights(path)
    config = weights.config(None, ["network.residual_projection=2"])
    with pytest.raises(ValueError, match=r"its projection has down\.weight is \[3, 32\]"):
        weights.build(config, weights.towers(config, None))
    without = {key: value for key, value in weights.checkpoint.items() if key != PROJECTION}
    save_checkpoint(tmp_path / "without.pt", without)
    weights = Weights(tmp_path / "without.pt")
    config = weights.config(None, ["network.residual_projection=2"])
    assert not weights.build(config, weights.towers(config, None)).projection.up.weight.any()


def test_a_system_that_compares_with_any_text_takes_none(debug_config):
    overrides = ["network.system=tvtsv2", "network.residual_projection=4", "network.sim_header=None"]
    with pytest.raises(ValueError, match=r"network\.residual_projection .* tvtsv2 compares with any text"):
        check_network(load_config(debug_config, overrides))


@pytest.mark.slow
def test_the_commands_keep_it_close_set_and_leave_it_out_elsewhere(trained, close_set, zero_shot, tmp_path):
    path, scores = trained[1], {}
    content = copy.deepcopy(Weights(path).checkpoint)
    torch.nn.init.normal_(content[PROJECTION]["up.weight"], generator=torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "moved.pt", content)
    for name, main, overrides in (
        ("close", close_set, []),
        ("close without", close_set, ["network.residual_projection=0"]),
        ("zero-shot", zero_shot, []),
        ("zero-shot with", zero_shot, ["network.residual_projection=3"]),
    ):
        file = tmp_path / f"{name}.npz"
        arguments = ["--save_logits", str(file), "--output", str(tmp_path / name), "--precision", "fp32", *overrides]
        main(["--weights", str(tmp_path / "moved.pt"), *arguments])
        with np.load(file) as saved:
            scores[name] = saved["view_logits"]
    np.testing.assert_allclose(scores["zero-shot"], scores["close without"], atol=1e-6)
    np.testing.assert_allclose(scores["zero-shot with"], scores["close"], atol=1e-6)
    assert np.abs(scores["close"] - scores["zero-shot"]).max() > 1e-2
