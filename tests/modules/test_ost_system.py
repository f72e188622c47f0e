"""OST: features, logits, loss and the gradients are all the published ones, on any number of processes."""

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from datasets.clips.presets import preset_of
from modules.build import build_classes, build_towers, load_config, load_system
from modules.check import check_network
from modules.formats.ours import read_checkpoint
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch, Video
from modules.systems.ost import OST, OSTSettings
from tests.modules.conftest import NoTowers
from tests.modules.ost_on_processes import CASES, gradients, system
from tests.modules.test_vificlip_system import released_name
from utils.config import Config, SolverConfig

TOLERANCE, OF_GRADIENTS = 1e-5, 2e-5  # of the largest magnitude
TIMEOUT_S = 180
SETS = ("spatio", "temporal")


@pytest.fixture
def config_of(ost_golden, repo_root, tmp_path) -> Callable[..., Config]:
    """The published settings with the tiny CLIP and the rule by which the published solver stops, and overrides."""

    def config_of(*overrides: str, videos_per_step: int | None = 4) -> Config:
        descriptors = [str(ost_golden / f"{name}_descriptors.json") for name in SETS]
        tree = {
            "base": str(repo_root / "configs" / "systems" / "ost.yaml"),
            "data": {"input_size": 48},
            "network": {"arch": str(ost_golden / "tiny_clip.pt")},
            "ost": {"shared_stop": True, "descriptors": descriptors},
            "eval": {"weight_average": 1.0},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        config = load_config(path, overrides)
        check_network(config, videos_per_step)
        return config

    return config_of


@pytest.fixture
def tuned_of(config_of, ost_golden, golden) -> Callable[..., OST]:
    """With the published weights and the twelve classes, in training mode."""

    def tuned_of(*overrides: str) -> OST:
        config, path = config_of(*overrides), ost_golden / "tiny_ost.pt"
        rules = preset_of(config.data).of_towers
        towers = build_towers(config.network, config.data.num_segments, 48, config.seed, rules)
        names = [line.split(",", 1)[1] for line in (golden / "labels.csv").read_text().splitlines()[1:]]
        classes = build_classes(config, towers, names)
        return load_system(config, towers, classes, read_checkpoint(path), str(path)).train()

    return tuned_of


def arrays_of(path) -> dict[str, Tensor]:
    """Numbers of a .npz file."""
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind != "U"}


@torch.no_grad()
def test_pictures_and_texts_become_the_published_features_and_logits(ost_golden, tuned_of, relative_error):
    tuned, expected = tuned_of(), arrays_of(ost_golden / "forward_T8.npz")
    video, classes = tuned.encode(expected["frames"]), tuned.classes.encode(tuned.towers)
    assert relative_error(video.frames, expected["frame_features"]) < TOLERANCE
    texts = torch.stack([expected[f"text_{name}"] for name in SETS])
    assert relative_error(classes, F.normalize(texts, dim=-1)) < TOLERANCE
    assert relative_error(tuned.logit_scale * tuned.score(video, classes), expected["logits"]) < TOLERANCE
    for place, name in enumerate(SETS):
        found = tuned.logit_scale * tuned.score(video, classes[place : place + 1])
        assert relative_error(found, expected[f"logits_{name}"]) < TOLERANCE
    of_batch = tuned.classes.encode(tuned.towers, expected["train_labels"])
    assert relative_error(tuned.logit_scale * tuned.score(video, of_batch), expected["train_logits"]) < TOLERANCE
    alone = tuned_of("ost.shared_stop=False")
    assert relative_error(alone.logit_scale * alone.score(video, classes), expected["logits_alone"]) < TOLERANCE


@torch.no_grad()
def test_long_clips_have_the_published_logits(ost_golden, tuned_of, relative_error):
    tuned, expected = tuned_of(), arrays_of(ost_golden / "forward_T32.npz")
    video, classes = Video(expected["frame_features"]), tuned.classes.encode(tuned.towers)
    assert relative_error(tuned.logit_scale * tuned.score(video, classes), expected["logits"]) < TOLERANCE
    of_batch = classes[:, expected["train_labels"]]
    assert relative_error(tuned.logit_scale * tuned.score(video, of_batch), expected["train_logits"]) < TOLERANCE


@torch.no_grad()
def test_fused_weights_have_the_published_logits(ost_golden, tuned_of, relative_error):
    frames, expected = arrays_of(ost_golden / "forward_T8.npz")["frames"], arrays_of(ost_golden / "fusion.npz")
    for share, name in ((0.8, "logits"), (1.0, "logits_unfused")):
        tuned = tuned_of(f"eval.weight_average={share}")
        logits = tuned.logit_scale * tuned.score(tuned.encode(frames), tuned.classes.encode(tuned.towers))
        assert relative_error(logits, expected[name]) < TOLERANCE


@pytest.mark.parametrize("length", ["T8", "T32"])
def test_a_step_on_features_has_the_published_loss_and_gradients(ost_golden, draws, relative_error, length):
    of_all = arrays_of(ost_golden / "head_step.npz")
    expected = {name.removeprefix(f"{length}/"): v for name, v in of_all.items() if name.startswith(f"{length}/")}
    frames, *texts = (expected[name].requires_grad_() for name in ("frame_features", *SETS))

    class OfTheBatch:
        """The descriptors of each video, which no tower has to encode."""

        needs_text, parameters, __len__ = False, staticmethod(tuple), lambda self: 12
        encode = staticmethod(lambda towers, labels: F.normalize(torch.stack(texts), dim=-1))

    towers = NoTowers(64, float(expected["log_scale"].exp()))
    model = OST(towers, MeanPooling(), OfTheBatch(), OSTSettings(shared_stop=True), SolverConfig(loss_type="contrast"))
    losses = model(Batch(features=frames, labels=expected["labels"]), draws)
    losses.total.backward()
    assert relative_error(losses.total, expected["loss"]) < TOLERANCE
    assert relative_error(losses.reported["video_to_text"], expected["loss_video"]) < TOLERANCE
    assert relative_error(losses.reported["text_to_video"], expected["loss_text"]) < TOLERANCE
    found = {"frame_features": frames.grad, "log_scale": towers.logit_scale.grad}
    for name, gradient in (found | {name: text.grad for name, text in zip(SETS, texts, strict=True)}).items():
        assert relative_error(gradient, expected[f"grad_{name}"]) < OF_GRADIENTS, name


def test_a_step_of_the_whole_model_has_the_published_loss_and_gradients(ost_golden, tuned_of, draws, relative_error):
    tuned, expected = tuned_of(), arrays_of(ost_golden / "train_step.npz")
    frames = F.normalize(tuned.encode(expected["frames"]).frames, dim=-1)
    assert relative_error(frames, expected["unit_frame_features"]) < TOLERANCE
    classes = tuned.classes.encode(tuned.towers, expected["labels"])
    for name, of_set in zip(SETS, classes, strict=True):
        assert relative_error(of_set, expected[f"unit_{name}"]) < TOLERANCE
    assert relative_error(tuned.logit_scale * tuned.score(Video(frames), classes), expected["logits"]) < TOLERANCE
    losses = tuned(Batch(clips=expected["frames"], labels=expected["labels"]), draws)
    losses.total.backward()
    assert relative_error(losses.total, expected["loss"]) < TOLERANCE
    assert relative_error(losses.reported["video_to_text"], expected["loss_video"]) < TOLERANCE
    assert relative_error(losses.reported["text_to_video"], expected["loss_text"]) < TOLERANCE
    found = {released_name(name): p.grad for name, p in tuned.towers.named_parameters()}
    names = {name.removeprefix("grad/") for name in expected if name.startswith("grad/")}
    assert found.keys() == names == {released_name(name) for name in tuned.towers.state_dict()}
    for name, gradient in found.items():
        norm = float(expected[f"grad_norm/{name}"])
        assert abs(float(gradient.double().norm()) - norm) <= OF_GRADIENTS * norm, name
        if f"grad_rows/{name}" in expected:  # only words that occur
            rows = expected[f"grad_rows/{name}"].long()
            assert torch.equal(gradient.any(dim=1).nonzero()[:, 0], rows)
            gradient = gradient[rows]
        sample, wanted = gradient.flatten()[:: int(expected[f"grad_stride/{name}"])], expected[f"grad/{name}"]
        # A bias of keys has no gradient but rounding.
        assert (sample - wanted).abs().max() <= OF_GRADIENTS * wanted.abs().max().clamp(min=1e-3 * norm), name


def test_only_the_texts_of_the_batch_s_classes_are_encoded(draws, monkeypatch):
    model, seen = system(), []
    encode = model.towers.encode_text
    monkeypatch.setattr(model.towers, "encode_text", lambda tokens: seen.append(len(tokens)) or encode(tokens))
    clips = torch.zeros(3, 2, 3, 16, 16, dtype=torch.uint8)
    model(Batch(clips=clips, labels=torch.tensor([1, 2, 1])), draws)
    assert seen == [2 * 2 * 2]  # sets, distinct classes, descriptors


@torch.no_grad()
def test_a_frame_alone_is_scored_by_its_mean_similarity():
    model = system().eval()
    frames = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    classes = model.classes.encode(model.towers)
    found = model.score_frames(Video(frames), classes)
    for frame in range(3):
        similarity = torch.einsum("bd,sknd->bskn", F.normalize(frames[:, frame], dim=-1), classes)
        torch.testing.assert_close(found[:, frame], similarity.mean(dim=(1, 3)))


def test_the_published_settings_are_read_and_all_trains_at_one_rate(config_of, tuned_of):
    config = config_of("ost.shared_stop=False", "eval.weight_average=0.8")
    assert (config.network.system, config.network.fix_text, config.data.transforms) == ("ost", False, "vifi")
    assert (config.data.num_segments, config.eval.fusion, config.solver.loss_type) == (32, "softmax", "contrast")
    solver = config.solver
    assert (solver.type, solver.lr, solver.betas, solver.weight_decay) == ("timm_cosine", 8e-6, (0.9, 0.98), 0.001)
    assert (solver.label_smoothing, solver.mixup, solver.cutmix) == (0, 0, 0)
    tuned = tuned_of()
    assert all(parameter.requires_grad for parameter in tuned.parameters())
    assert {group.lr_ratio for group in tuned.groups()} == {1.0}
    assert sum(len(group.parameters) for group in tuned.groups()) == len(list(tuned.parameters()))


@pytest.mark.parametrize("key", ["mixup", "cutmix", "label_smoothing"])
def test_soft_labels_are_an_error(config_of, key):
    with pytest.raises(ValueError, match=r"solver.mixup .* solver.loss_type contrast takes one class a video") as error:
        config_of(f"solver.{key}=0.1")
    assert "\n" not in str(error.value)


def test_a_batch_of_one_video_is_an_error_before_the_first_and_in_it(config_of, draws):
    with pytest.raises(ValueError, match=r"a batch has one over all processes: raise data\.batch_size"):
        config_of(videos_per_step=1)
    clips = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"a batch has one over all processes: raise data\.batch_size"):
        system()(Batch(clips=clips, labels=torch.tensor([0])), draws)


def test_a_similarity_that_is_not_finite_is_named(draws):
    model = system()
    with torch.no_grad():
        model.towers.text_projection[0, 0] = float("nan")
    clips = torch.zeros(2, 2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(FloatingPointError, match="not finite, because of the descriptors of class 0 and 1 more"):
        model(Batch(clips=clips, labels=torch.tensor([0, 1])), draws)


@pytest.fixture(scope="module")
def of_two(repo_root, tmp_path_factory) -> dict:
    """Results of ost_on_processes.py."""
    path = tmp_path_factory.mktemp("two processes") / "results.pt"
    script = repo_root / "tests" / "modules" / "ost_on_processes.py"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, script, path], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_gradients_of_one_with_the_batch_of_both(of_two, relative_error, case):
    gather, shared_stop = case[1:]
    expected, found = gradients(system("full", shared_stop), slice(4)), of_two[case]
    assert found.keys() == expected.keys()
    assert relative_error(found["loss"], expected["loss"]) < TOLERANCE
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, gradient in expected.items():
        # The published gather keeps an encoder's own rows, whose gradients DDP then averages; the scale is behind it.
        is_halved = gather == "published" and name not in ("loss", "towers.logit_scale")
        assert (found[name] - gradient * (0.5 if is_halved else 1.0)).abs().max() < TOLERANCE * largest, name
