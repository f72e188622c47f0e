"""Text4Vis: a training step, the head and the parameter groups are the published ones; classifiers are part of it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from modules.build import build_classes, build_system, build_towers, load_config, load_system
from modules.check import check_network
from modules.classes.base import FixedClasses
from modules.classes.vectors import Vectors
from modules.formats.ours import read_checkpoint
from modules.heads.transformer import TemporalTransformer
from modules.systems.base import Batch, Video
from modules.systems.text4vis import Text4Vis
from utils.config import Config, SolverConfig

TOLERANCE = 1e-5  # of an array's largest magnitude


def released_name(name: str) -> str:
    """The name that ``train.py`` of the published code gives a system's tensor."""
    return name.removeprefix("towers.").replace("head.", "fusion_model.", 1)


@pytest.fixture
def config_of(repo_root, text4vis_golden, tmp_path) -> Callable[..., Config]:
    """The published settings with the tiny CLIP, and overrides."""

    def config_of(*overrides: str) -> Config:
        tree = {
            "base": str(repo_root / "configs" / "systems" / "text4vis.yaml"),
            "data": {"input_size": 48},
            "network": {"arch": str(text4vis_golden / "tiny_clip.pt")},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        config = load_config(path, overrides)
        check_network(config)
        return config

    return config_of


@pytest.fixture
def system_of(config_of) -> Callable[..., Text4Vis]:
    """A system of 12 classes, in training mode."""

    def system_of(*overrides: str) -> Text4Vis:
        config = config_of(*overrides)
        towers = build_towers(config.network, config.data.num_segments, 48, config.seed)
        return build_system(config, towers, build_classes(config, towers, [f"class {k}" for k in range(12)]))

    return system_of


def assert_close(found: torch.Tensor, expected: np.ndarray, what: str) -> None:
    found, expected = found.detach().numpy(), np.asarray(expected)
    assert found.shape == expected.shape, what
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max(), what


def test_a_training_step_has_the_published_loss_and_gradients(text4vis_golden, config_of, draws):
    step, config = np.load(text4vis_golden / "step.npz"), config_of()
    towers = build_towers(config.network, 8, 48, config.seed)
    classes = FixedClasses(F.normalize(torch.from_numpy(step["class_features"]), dim=-1))
    path = text4vis_golden / "tiny_text4vis.pt"
    system = load_system(config, towers, classes, read_checkpoint(path), str(path)).train()
    batch = Batch(clips=torch.from_numpy(step["frames"]), labels=torch.from_numpy(step["labels"]))
    scores = system.score(system.video_of(batch), classes.encode(towers))
    assert_close(system.logit_scale * scores, step["logits"], "logits")
    loss = system(batch, draws).total
    assert_close(loss, step["loss"], "loss")
    loss.backward()
    gradients = {f"grad/{released_name(name)}": p.grad for name, p in system.named_parameters()}
    checked = [name for name in step if name.startswith("grad/")]
    assert len(checked) > 5
    for name in checked:
        assert_close(gradients[name], step[name], name)


@pytest.mark.parametrize("num_frames", [4, 8])
def test_the_head_is_the_published_one(text4vis_golden, num_frames):
    golden, state = np.load(text4vis_golden / "head.npz"), read_checkpoint(text4vis_golden / "tiny_text4vis.pt")
    head = TemporalTransformer(64, 6, int(golden["heads"]))
    head.load_state_dict({name: value.float() for name, value in state["fusion_model_state_dict"].items()})
    frames = torch.from_numpy(golden[f"frame_features_T{num_frames}"]).requires_grad_()
    found = head(frames).mean(dim=1)
    assert_close(found, golden[f"Transf/out_T{num_frames}"], "out")
    (found * torch.from_numpy(golden[f"probe_T{num_frames}"])).sum().backward()
    assert_close(frames.grad, golden[f"Transf/grad_features_T{num_frames}"], "features")
    prefix = f"Transf/grad_T{num_frames}/"
    names = [name for name in golden if name.startswith(prefix)]
    assert names
    for name in names:
        assert_close(head.get_parameter(name.removeprefix(prefix)).grad, golden[name], name)


@pytest.mark.parametrize("case", ["none", "tsm", "tokenshift", "tokent1d", "joint_st", "sim_header_None"])
def test_released_names_shapes_and_learning_rates(text4vis_golden, system_of, case):
    options = {
        "none": [], "joint_st": ["network.joint_st=True"], "sim_header_None": ["network.sim_header=None"],
    }.get(case, [f"network.tm={case}"])  # fmt: skip
    system = system_of(*options)
    released = json.loads((text4vis_golden / "checkpoint_keys.json").read_text())[case]
    found = {released_name(name): list(value.shape) for name, value in system.state_dict().items()}
    assert found == {name: entry["shape"] for name, entry in released.items()}
    rates = {id(p): group.lr_ratio for group in system.groups() for p in group.parameters}
    for name, parameter in system.named_parameters():
        rate = released[released_name(name)].get("lr", "clip")  # not said of the model without head
        assert rates[id(parameter)] == {"clip": 0.1, "full": 1.0}[rate], name


def test_a_clip_of_one_vector_passes_the_head_by(system_of):
    system = system_of("network.joint_st=True")
    frames = torch.randn(3, 1, 64)
    assert torch.equal(system.after_head(Video(frames)), frames)
    assert not any(p.requires_grad for p in system.head.parameters())  # DDP waits for the gradient of all that train


@pytest.mark.parametrize("name", ["random", "orthogonal", "linear"])
def test_a_classifier_of_vectors_is_part_of_the_model(system_of, draws, name):
    system = system_of(f"text4vis.classifier={name}", f"text4vis.classifier_trainable={name == 'random'}")
    vectors = system.get_parameter("classes.vectors")
    assert vectors.shape == (12, 64)
    learns = name != "orthogonal"
    assert any(group.name == "classes" for group in system.groups())
    assert vectors.requires_grad is learns
    batch = Batch(features=torch.randn(4, 8, 64), labels=torch.arange(4))
    system(batch, draws).total.backward()
    assert (vectors.grad is not None) is learns
    assert torch.equal(system.weights()["classifier_state_dict"]["vectors"], vectors)


def test_a_classifier_of_a_checkpoint_is_asked_by_class_name(config_of):
    config = config_of("text4vis.classifier=random")
    towers = build_towers(config.network, 8, 48, config.seed)
    rows = torch.randn(3, 64)
    checkpoint = {"classifier_state_dict": {"vectors": rows}, "class_names": ["run", "swim", "fly"]}
    classes = build_classes(config, towers, ["fly", "run"], checkpoint)
    torch.testing.assert_close(classes.encode(towers), F.normalize(rows[[2, 0]], dim=-1))
    with pytest.raises(ValueError, match=r"knows the classes of its training only, not 'walk'; text makes"):
        build_classes(config, towers, ["fly", "walk"], checkpoint)


def test_a_learned_prompt_keeps_a_frozen_text_tower(system_of, draws):
    system = system_of("text4vis.classifier=prompt", "text4vis.prompt_length=4")
    batch = Batch(features=torch.randn(4, 8, 64), labels=torch.arange(4))
    system(batch, draws).total.backward()
    assert system.get_parameter("classes.ctx").grad.any()
    assert system.towers.text_projection.grad is None
    trained = {name for name, p in system.named_parameters() if p.grad is not None}
    assert not any("token_embedding" in name for name in trained)


@pytest.mark.parametrize("loss_type", ["NCE", "DS"])
def test_contrast_sees_the_texts_of_the_batch_alone(tiny_clip, draws, loss_type):
    class Watched(Vectors):
        def encode(self, towers, labels=None):
            asked.append(labels)
            return super().encode(towers, labels)

    asked: list = []
    head = TemporalTransformer(64, 1, 1)
    system = Text4Vis(tiny_clip, head, Watched(torch.randn(9, 64)), solver=SolverConfig(loss_type=loss_type))
    losses = system(Batch(features=torch.randn(3, 4, 64), labels=torch.tensor([7, 2, 7])), draws)
    assert asked[0].tolist() == [7, 2, 7]
    mean = (losses.reported["video_to_text"] + losses.reported["text_to_video"]) / 2
    torch.testing.assert_close(losses.total.detach(), mean)


def test_a_loss_that_a_system_does_not_have_is_an_error_that_lists_its_own(config_of):
    with pytest.raises(ValueError, match=r"solver.loss_type of text4vis: expected one of CE, NCE, DS, found 'BCE'"):
        config_of("solver.loss_type=BCE")
    with pytest.raises(ValueError, match=r"solver.loss_type of mote: expected one of CE, found 'NCE'"):
        config_of("network.system=mote", "solver.loss_type=NCE")
    with pytest.raises(ValueError, match=r"text4vis.classifier: expected one of text, random, .*found 'cosine'"):
        config_of("text4vis.classifier=cosine")


def test_the_published_settings_are_read(config_of):
    config = config_of()
    assert config.data.transforms == "text4vis"
    assert Path(config.network.arch).name == "tiny_clip.pt"
    assert (config.network.temporal_layer, config.network.num_experts, config.network.templates) == (6, 0, "single")
    assert (config.eval.weight_average, config.eval.fusion, config.solver.clip_ratio) == (1.0, "features", 0.1)
