"""Every shipped configuration means what it always meant, builds its model at full size, and takes a training step."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from clip.load import ClipWeights
from clip.model import CLIP, CLIPConfig
from datasets.lists.labels import read_class_names
from engine.optim import build_optimizer, lr_schedule, set_lr
from modules.build import SETTINGS, build_system, build_towers, check_network, head_of, load_config
from modules.classes.base import FixedClasses
from modules.systems.base import Batch, Draws
from utils.config import ALIASES, to_yaml
from utils.precision import resolve_precision

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
# What each file resolved to before systems had sections of their own: defaults, and what differs from them.
RESOLVED = json.loads((ROOT / "tests" / "data" / "configs" / "resolved.json").read_text())
SHAPES = {
    "ViT-B/16": CLIPConfig(512, 224, 16, 768, 12, 12, 512, 12, 8),
    "ViT-L/14": CLIPConfig(768, 224, 14, 1024, 24, 16, 768, 12, 12),
}


@pytest.fixture
def random_weights(monkeypatch):
    """``network.arch`` names get random weights of their real shapes instead of a download."""

    def read(arch: str) -> ClipWeights:
        with torch.device("meta"):
            shapes = CLIP(SHAPES[arch]).state_dict()
        return ClipWeights({name: torch.empty(v.shape).uniform_(-0.03, 0.03) for name, v in shapes.items()})

    monkeypatch.setattr("clip.load.read_weights", read)


def test_no_shipped_configuration_is_lost():
    assert set(RESOLVED) - {"defaults"} <= {str(path.relative_to(ROOT)) for path in CONFIGS.rglob("*.yaml")}


@pytest.mark.parametrize("name", sorted(RESOLVED))
def test_a_shipped_configuration_means_what_it_meant_under_the_old_names(name, tmp_path):
    empty = tmp_path / "defaults.yaml"
    empty.write_text("")
    config = load_config(empty if name == "defaults" else ROOT / name)
    sections = yaml.safe_load(to_yaml(config))
    for key, value in (RESOLVED["defaults"] | RESOLVED[name]).items():
        *section, last = ALIASES.get(key, key).split(".")
        found = sections[section[0]] if section else sections
        # Where no head is named it is the system's own.
        assert (head_of(config) if key == "network.sim_header" else found[last]) == value, key


def test_every_system_has_a_file_of_its_settings():
    assert {path.stem for path in (CONFIGS / "systems").glob("*.yaml")} == set(SETTINGS)
    for name in SETTINGS:
        config = load_config(CONFIGS / "systems" / f"{name}.yaml")
        check_network(config)
        assert config.network.system == name


@pytest.mark.parametrize("name", ["vitb16_8f", "vitl14_16f"])
@pytest.mark.slow
def test_a_published_recipe_takes_a_step(name, random_weights):
    config = load_config(CONFIGS / "k400" / f"{name}.yaml")
    check_network(config)
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    classes = F.normalize(torch.randn(config.data.num_classes, towers.spec.embed_dim), dim=-1)
    model = build_system(config, towers, FixedClasses(classes))
    optimizer = build_optimizer(model.groups(), config.solver)
    frames = torch.randint(256, (1, config.data.num_segments, 3, 224, 224), dtype=torch.uint8)
    with resolve_precision("auto", torch.device("cpu")).autocast():
        losses = model(Batch(clips=frames, labels=torch.tensor([7])), Draws(torch.Generator().manual_seed(0)))
        scores = model.score(model.encode(frames), classes)
    losses.total.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert scores.shape == (1, 400)
    assert {"expert_ce", "merged_ce"} <= losses.reported.keys()  # two routes
    assert not missing
    before = model.head.transformer.resblocks[0].mlp.fc_up[0].weight.clone()
    set_lr(optimizer, lr_schedule(config.solver)(5.0))
    optimizer.step()
    assert not torch.equal(before, model.head.transformer.resblocks[0].mlp.fc_up[0].weight)


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "zero_shot").glob("vit*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_a_zero_shot_configuration_has_the_model_of_its_recipe(path):
    assert load_config(path).network == load_config(CONFIGS / "k400" / f"{path.parent.name}_8f.yaml").network


FEW_SHOT = sorted((CONFIGS / "few_shot").glob("vit*/*.yaml"))
BASE_TO_NOVEL = sorted((CONFIGS / "base_to_novel").glob("*.yaml"))


@pytest.mark.parametrize("path", FEW_SHOT, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_few_shot_configuration_has_the_model_of_its_recipe(path):
    config = load_config(path, ["data.shot=4", "pretrain=MoTE.pt"])
    assert config.network == load_config(CONFIGS / "k400" / f"{path.parent.name}_8f.yaml").network
    assert (config.data.dataset, config.data.shot) == (path.stem, 4)
    assert config.data.batch_size * config.solver.grad_accumulation_steps == 64


@pytest.mark.parametrize("path", [*FEW_SHOT, *BASE_TO_NOVEL], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_label_files_of_few_shot_configurations_are_here(path):
    config = load_config(path)
    assert len(read_class_names(CONFIGS.parent / config.data.label_list, config.data.num_classes)) > 0


@pytest.mark.parametrize("path", BASE_TO_NOVEL[::2], ids=lambda p: p.stem)
def test_base_and_novel_are_one_model_and_all_classes(path):
    base, novel = load_config(path), load_config(path.with_name(path.name.replace("_base", "_novel")))
    assert (base.network, base.eval, base.data.num_segments) == (novel.network, novel.eval, novel.data.num_segments)
    labels = CONFIGS.parent / base.data.label_list
    names = [read_class_names(CONFIGS.parent / config.data.label_list) for config in (base, novel)]
    assert len(names[0]) - len(names[1]) in (0, 1)
    assert sorted(names[0] + names[1]) == sorted(read_class_names(labels.parents[1] / "labels.csv"))
