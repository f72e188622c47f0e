"""Both training steps of TVTSv2 against the published code's, and whom it trains at which rate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.load import load_towers
from clip.names.tvts import to_tvts
from engine.optim import build_optimizer, lr_schedule, set_lr
from modules.build import load_config
from modules.classes.base import FixedClasses
from modules.formats.ours import read_checkpoint
from modules.formats.tvts import checkpoint_to_tvts
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch, Draws
from modules.systems.tvtsv2 import TVTSv2, TVTSv2Settings
from utils.config.pixels import IMAGENET
from utils.weights.four_keys import SORTER

RESULTS, GRADIENTS, WEIGHTS = 1e-5, 2e-5, 1e-7  # the tolerances of the published results; the last one is absolute
MODELS = {"b32": ("tiny_b32_pretraining.pth", {}), "h14": ("tiny_h14.pth", {"head_width": 80, "activation": "gelu"})}
PUBLISHED_SORTER = "pred_model."
# The epoch's two steps: their transcripts or captions a clip.
STEPS = {"yt": 4, "webvid": 1}


def sorter_weights(folder: Path, name: str) -> dict[str, Tensor]:
    if name == "h14":
        with np.load(folder / "sorter_params_h14.npz") as file:
            return {key: torch.from_numpy(file[key]).float() for key in file.files}
    state = torch.load(folder / MODELS[name][0], weights_only=False)["state_dict"]
    return {
        key.removeprefix(PUBLISHED_SORTER): value.float()
        for key, value in state.items()
        if key.startswith(PUBLISHED_SORTER)
    }


@pytest.fixture(scope="module", params=MODELS)
def golden(request, tvtsv2_golden) -> tuple[str, dict[str, Tensor]]:
    """Name of a model, and its published steps."""
    with np.load(tvtsv2_golden / f"pretrain_{request.param}.npz") as file:
        return request.param, {
            key: file[key].tolist() if "group/" in key else torch.from_numpy(file[key]) for key in file.files
        }


@pytest.fixture
def system(golden, tvtsv2_golden, repo_root) -> TVTSv2:
    """The tiny model at the start of the published epoch, with the settings of the full one."""
    name, _ = golden
    file, options = MODELS[name]
    config = load_config(repo_root / "configs" / "tvtsv2" / f"pretrain_{name}.yaml", ["tvtsv2.sorter_heads=4"])
    towers = load_towers(str(tvtsv2_golden / file), tower="divided", **options)
    towers.set_spec(replace(towers.spec, **IMAGENET))
    # The last of its three text blocks trains.
    section = replace(config.section("tvtsv2", TVTSv2Settings), text_layers=1)
    system = TVTSv2(towers, MeanPooling(), FixedClasses(torch.zeros(1, 64)), section, config.solver)
    system.sorter.load_state_dict(sorter_weights(tvtsv2_golden, name))
    return system.train()


def published_names(system: TVTSv2) -> dict[str, str]:
    """Of the parameters, by ours."""
    towers = dict(system.towers.named_parameters())
    numbers = {name: torch.tensor(float(number)) for number, name in enumerate(towers) if name != "logit_scale"}
    theirs = {int(number): name for name, number in to_tvts(numbers, "x").items()}
    ours = {f"towers.{name}": theirs[int(number)] for name, number in numbers.items()}
    return ours | {f"sorter.{name}": PUBLISHED_SORTER + name for name, _ in system.sorter.named_parameters()}


def batch_of(golden: dict[str, Tensor], step: str) -> Batch:
    """The published rows of texts are those of the first of each clip, then those of the second, ..."""
    texts = golden[f"{step}/tokens"].unflatten(0, (STEPS[step], -1)).transpose(0, 1)
    return Batch(clips=golden[f"{step}/video"], texts=texts)


def test_both_steps_of_an_epoch_are_those_of_the_published_code(golden, system, relative_error):
    _, golden = golden
    optimizer = build_optimizer(system.groups(), system.solver)
    names = published_names(system)
    parameters = {names[ours]: value for ours, value in system.named_parameters() if ours in names}
    for step, num_texts in STEPS.items():
        batch, keep = batch_of(golden, step), golden[f"{step}/keep"]
        system.kept_patches = lambda clips, draws, keep=keep: keep
        video = system.towers.encode_tokens(batch.clips, keep)
        texts = system.towers.encode_text(batch.texts.flatten(0, 1)).unflatten(0, (-1, num_texts))
        losses = system(batch, Draws(torch.Generator()))
        losses.total.backward()
        found = {"video_embedding": video.cls, "text_mean_embedding": texts.mean(dim=1), "loss": losses.total}
        found["similarity"] = F.normalize(video.cls, dim=-1) @ F.normalize(texts.mean(dim=1), dim=-1).T
        found["contrastive"] = losses.reported["contrastive"]
        if num_texts > 1:
            found |= {"sort_logits": system.sorted_logits(texts, video.tokens)}
            found |= {"sort_cross_entropy": losses.reported["sorting"]}
        else:
            assert losses.reported.keys() == {"contrastive"}
        errors = {key: relative_error(value, golden[f"{step}/{key}"]) for key, value in found.items()}
        assert max(errors.values()) < RESULTS, errors

        norms = {key for key in golden if key.startswith(f"{step}/grad_norm/")}
        assert len(norms) == sum(value.requires_grad for value in parameters.values())
        for key in sorted(norms):
            gradient = parameters[key.removeprefix(f"{step}/grad_norm/")].grad
            expected = float(golden[key])
            assert abs(float(gradient.norm()) - expected) <= GRADIENTS * expected, key
        for key in (key for key in golden if key.startswith(f"{step}/grad/")):
            gradient = parameters[key.removeprefix(f"{step}/grad/")].grad
            assert float((gradient - golden[key]).abs().max()) <= GRADIENTS * float(golden[key].abs().max()), key

        set_lr(optimizer, 1e-4)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for key in (key for key in golden if key.startswith(f"{step}/after/")):
            value = parameters[key.removeprefix(f"{step}/after/")].detach()
            value = value[: len(golden[key])] if value.ndim == 2 and len(value) > 16 else value
            assert float((value - golden[key]).abs().max()) <= WEIGHTS, key


def test_groups_rates_and_masks_are_the_published_ones(golden, system, repo_root):
    _, golden = golden
    names, owned = published_names(system), {id(value): ours for ours, value in system.named_parameters()}
    found = {
        group.name: {names[owned[id(value)]] for value in group.parameters if value.requires_grad}
        for group in system.groups()
    }
    expected = {
        kind: set(golden[f"group/{kind}"]) for kind in ("new_decay", "new_no_decay", "clip_decay", "clip_no_decay")
    }
    assert {kind.replace("_decay", "") if "no" not in kind else kind: each for kind, each in expected.items()} == found
    frozen = {names[ours] for ours, value in system.named_parameters() if not value.requires_grad and ours in names}
    assert frozen == set(golden["group/frozen"])

    optimizer = build_optimizer(system.groups(), system.solver)
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "clip": 0.05, "clip_no_decay": 0.0, "new": 0.05, "new_no_decay": 0.0,
    }  # fmt: skip
    schedule = lr_schedule(system.solver)
    for epoch, (new, clip) in enumerate(golden["lr_of_epoch"].tolist()):
        rates = set_lr(optimizer, schedule(float(epoch)))
        assert rates["lr_new"] == rates["lr_new_no_decay"] == pytest.approx(new, rel=1e-9)
        assert rates["lr_clip"] == rates["lr_clip_no_decay"] == pytest.approx(clip, rel=1e-9)
    assert system.settings.mask_ratio == float(golden["mask_ratio"])
    assert system.solver.epochs == len(golden["lr_of_epoch"])


def test_a_checkpoint_of_the_published_trainer_brings_its_sorter(tvtsv2_golden):
    content = read_checkpoint(tvtsv2_golden / "tiny_b32_pretraining.pth")
    expected = sorter_weights(tvtsv2_golden, "b32")
    assert content[SORTER].keys() == expected.keys()
    assert all(torch.equal(content[SORTER][name].float(), value) for name, value in expected.items())
    assert SORTER not in read_checkpoint(tvtsv2_golden / "tiny_h14.pth")
    assert not any("pred_model" in name for name in checkpoint_to_tvts(content, {}, "x")["state_dict"])
