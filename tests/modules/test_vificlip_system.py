"""ViFi-CLIP: features, losses and gradients are the published ones, of mixed clips too, on any number of processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from clip.model import CLIP
from modules.build import build_classes, build_system, build_towers, load_config
from modules.check import check_network
from modules.systems.base import Batch
from modules.systems.vificlip import ViFiCLIP
from tests.modules.vificlip_on_processes import NAMES, STEPS, gradients, system
from utils.config import Config, SolverConfig

TOLERANCE, OF_GRADIENTS = 1e-5, 2e-5  # of the largest magnitude
TIMEOUT_S = 180
MEAN, STD = ((torch.tensor(values).view(3, 1, 1)) for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))


def released_name(name: str) -> str:
    """The name that the published code gives a tensor of the towers."""
    if name == "logit_scale":
        return name
    return f"image_encoder.{name.removeprefix('visual.')}" if name.startswith("visual.") else f"text_encoder.{name}"


@pytest.fixture(scope="module")
def published(ost_golden) -> dict[str, Tensor]:
    """train_vificlip.npz, and the frames that it was made with."""
    with np.load(ost_golden / "train_vificlip.npz") as file, np.load(ost_golden / "train_step.npz") as step:
        return {name: torch.from_numpy(file[name]) for name in file.files} | {
            "frames": torch.from_numpy(step["frames"])
        }


@pytest.fixture
def tuned(ost_golden, golden, tmp_path) -> ViFiCLIP:
    """With the published weights and the twelve classes, in training mode."""
    pretrained = torch.load(ost_golden / "tiny_clip.pt", weights_only=True)
    path = tmp_path / "clip.pt"
    torch.save({name: tensor.clone() for name, tensor in pretrained.items()}, path)  # its tensors overlap, to be small
    config = load_config_of(path, tmp_path)
    towers: CLIP = build_towers(config.network, 8, 48, config.seed)
    released = torch.load(ost_golden / "tiny_vificlip.pt", weights_only=True)["model"]
    released = {name.removeprefix("module."): value.float() for name, value in released.items()}
    state = {name: released.get(released_name(name), value) for name, value in towers.state_dict().items()}
    towers.load_state_dict(state)
    names = [line.split(",", 1)[1] for line in (golden / "labels.csv").read_text().splitlines()[1:]]
    return build_system(config, towers, build_classes(config, towers, names))


def load_config_of(arch: Path, folder: Path, *overrides: str, is_trained: bool = True) -> Config:
    root = Path(__file__).resolve().parents[2]
    tree = {
        "base": str(root / "configs" / "systems" / "vificlip.yaml"),
        "data": {"input_size": 48},
        "network": {"arch": str(arch)},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    config = load_config(path, overrides)
    check_network(config, config.data.batch_size if is_trained else None)
    return config


def with_imagenet_s_statistics(frames: Tensor, clip: CLIP) -> Tensor:
    """Frames that CLIP's statistics make what ImageNet's make of ``frames``, [..., 3, S, S]."""
    return (frames - MEAN) / STD * clip.pixel_std[0] + clip.pixel_mean[0]


def assert_gradients(found: ViFiCLIP, published: dict[str, Tensor], kind: str) -> None:
    expected = {
        name.removeprefix(f"{kind}/"): value for name, value in published.items() if name.startswith(f"{kind}/")
    }
    assert len(expected) == 61
    gradients = {released_name(name): p.grad for name, p in found.towers.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()  # so no embedding of tokens
    for name, value in expected.items():
        sample = gradients[name].flatten()[:: int(published[f"{kind}_stride/{name}"])]
        norm = float(published[f"{kind}_norm/{name}"])
        assert abs(float(gradients[name].norm()) - norm) <= OF_GRADIENTS * norm, name
        assert (sample - value).abs().max() <= OF_GRADIENTS * value.abs().max().clamp(min=1e-3 * norm), name


def test_features_and_logits_are_the_published_ones(published, tuned, relative_error):
    clips = with_imagenet_s_statistics(published["frames"].float(), tuned.towers)
    video = tuned.encode(clips)
    classes = tuned.classes.encode(tuned.towers)
    texts = torch.nn.functional.normalize(published["text_features"], dim=-1)
    assert relative_error(video.frames, published["frame_features"]) < TOLERANCE
    assert relative_error(classes, texts) < TOLERANCE
    assert relative_error(tuned.logit_scale * tuned.score(video, classes), published["logits"]) < TOLERANCE


def test_plain_cross_entropy_has_the_published_gradients(published, tuned, draws, relative_error):
    tuned.solver = SolverConfig()
    clips = with_imagenet_s_statistics(published["frames"].float(), tuned.towers)
    loss = tuned(Batch(clips=clips, labels=published["labels"]), draws).total
    loss.backward()
    assert relative_error(loss, published["cross_entropy/loss"]) < TOLERANCE
    assert_gradients(tuned, published, "grad")


@pytest.mark.parametrize("case", ["mixup", "cutmix"])
def test_mixed_clips_have_the_published_loss_and_gradients(published, tuned, draws, relative_error, monkeypatch, case):
    frames, labels, order = published["frames"].float(), published["labels"], published[f"{case}/perm"]
    rows = torch.eye(12)[labels]

    def as_published(inputs, labels, num_classes, generator, solver):
        """Permuted, where ours mixes neighbours."""
        own, others = inputs.float(), inputs.float()[order]
        if case == "mixup":
            share = float(published["mixup/lambda"])
            return share * own + (1 - share) * others, share * rows + (1 - share) * rows[order]
        x1, y1, x2, y2 = published["cutmix/box_x1_y1_x2_y2"].tolist()
        own[..., y1:y2, x1:x2] = others[..., y1:y2, x1:x2]
        share = 1 - (x2 - x1) * (y2 - y1) / 48**2
        return own, share * rows + (1 - share) * rows[order]

    monkeypatch.setattr("modules.systems.base.mixed", as_published)
    clips = with_imagenet_s_statistics(frames, tuned.towers)
    loss = tuned(Batch(clips=clips, labels=labels), draws).total
    assert relative_error(loss, published[f"{case}/loss"]) < TOLERANCE
    if case == "mixup":
        loss.backward()
        assert_gradients(tuned, published, "grad_mixup")


@pytest.fixture
def config_of(tiny_clip, tmp_path) -> Callable[..., Config]:
    """The published settings with a tiny CLIP, and overrides."""
    torch.save(tiny_clip.state_dict(), tmp_path / "tiny.pt")
    return lambda *overrides, **keys: load_config_of(tmp_path / "tiny.pt", tmp_path, *overrides, **keys)


def test_the_published_settings_are_read(config_of):
    config = config_of()
    assert (config.network.system, config.network.templates, config.network.fix_text) == (
        "vificlip", "a photo of a {}.", False,
    )  # fmt: skip
    solver = config.solver
    assert (solver.type, solver.lr, solver.betas, solver.weight_decay) == ("timm_cosine", 8e-6, (0.9, 0.98), 0.001)
    assert (solver.label_smoothing, solver.mixup, solver.cutmix, solver.mix_switch) == (0.1, 0.8, 1.0, 0.5)
    assert (config.eval.weight_average, solver.clip_ratio, config.data.num_segments) == (1.0, 1.0, 32)


def test_all_but_the_embedding_of_tokens_trains_at_one_rate(config_of):
    config = config_of()
    towers = build_towers(config.network, 2, None, config.seed)
    model = build_system(config, towers, build_classes(config, towers, NAMES))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["towers.token_embedding.weight"]
    assert {group.lr_ratio for group in model.groups()} == {1.0}


def test_a_frozen_text_tower_is_possible(config_of):
    config = config_of("network.fix_text=True")
    towers = build_towers(config.network, 2, None, config.seed)
    model = build_system(config, towers, build_classes(config, towers, NAMES))
    assert not any("text_projection" in name for name, _ in model.named_parameters())


def test_steps_mix_clips_or_features_and_tests_do_not(draws):
    model = system()
    model.solver = SolverConfig(mixup=0.8)
    seen = []
    model.video_of = lambda batch: seen.append(batch) or ViFiCLIP.video_of(model, batch)
    clips = torch.randint(256, (2, 2, 3, 16, 16)).to(torch.uint8)
    model(Batch(clips=clips, labels=torch.tensor([0, 1])), draws)
    model(Batch(features=torch.randn(2, 2, 32).half(), labels=torch.tensor([0, 1])), draws)
    assert [batch.shares.shape for batch in seen] == [(2, 3), (2, 3)]
    assert not torch.equal(seen[0].clips, clips.float())
    with torch.no_grad():
        torch.testing.assert_close(model.encode(clips).frames, model.towers.encode_clips(clips))


@pytest.mark.parametrize("name", ["clip", "vificlip", "text4vis", "mote"])
def test_every_system_takes_smooth_labels_and_mixed_clips(config_of, draws, name):
    head = "Transf" if name in ("text4vis", "mote") else "None"
    system = [f"network.system={name}", f"network.sim_header={head}"]
    config = config_of(*system, "network.num_experts=2", "network.temporal_layer=1")
    towers = build_towers(config.network, 2, None, config.seed)
    model = build_system(config, towers, build_classes(config, towers, NAMES))
    batch = Batch(clips=torch.randint(256, (2, 2, 3, 32, 32)).to(torch.uint8), labels=torch.tensor([0, 1]))
    losses = []
    for settings in ({}, {"label_smoothing": 0.5}, {"mixup": 1.0}):
        model.solver = SolverConfig(**settings)
        draws.generator.manual_seed(0)
        losses.append(model(batch, draws).total.item())
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.system=text4vis", "solver.loss_type=NCE"], r"solver.loss_type NCE takes one class a video"),
        (["data.batch_size=1"], r"expected data.batch_size of at least 2, found 1"),
        (["data.modality=features", "network.fix_video=True"], r"solver.cutmix .* data.modality features has no pict"),
    ],
    ids=["contrast", "one video", "features"],
)
def test_what_cannot_be_mixed_is_an_error(config_of, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        config_of(*overrides)
    assert "\n" not in str(error.value)


def test_a_test_s_batches_and_features_are_not_mixed_and_may_be_any(config_of):
    config_of("data.batch_size=1", "data.modality=features", "network.fix_video=True", is_trained=False)


def test_features_are_mixed_without_cutmix(config_of):
    config_of("data.modality=features", "network.fix_video=True", "solver.cutmix=0")


@pytest.mark.slow
def test_two_processes_have_the_losses_and_gradients_of_one_with_the_batch_of_both(repo_root, tmp_path, relative_error):
    path, script = tmp_path / "results.pt", repo_root / "tests" / "modules" / "vificlip_on_processes.py"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, script, path], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    model, losses = system(), set()
    for step, found in zip(STEPS, torch.load(path, weights_only=True), strict=True):
        expected = gradients(model, slice(4), step)
        assert found.keys() == expected.keys()
        largest = max(float(value.abs().max()) for value in expected.values())
        apart = {name: float((found[name] - expected[name]).abs().max()) / largest for name in expected}
        assert max(apart.values()) < TOLERANCE, apart
        assert relative_error(found["loss"], expected["loss"]) < TOLERANCE
        losses.add(float(found["loss"]))
    assert len(losses) == len(STEPS)  # each step mixes in its own way
