"""Every shipped configuration builds its model, at full size with random weights, and takes a training step."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip.load import ClipWeights
from clip.model import CLIP, CLIPConfig
from datasets.lists.labels import read_class_names
from engine.optim import build_optimizer, lr_schedule, set_lr
from modules.build import build_clip, build_model, check_network
from modules.objectives.classify import video_loss
from utils.config import load_config
from utils.precision import resolve_precision

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
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


@pytest.mark.parametrize("name", ["vitb16_8f", "vitl14_16f"])
@pytest.mark.slow
def test_a_published_recipe_takes_a_step(name, random_weights):
    config = load_config(CONFIGS / "k400" / f"{name}.yaml")
    check_network(config)
    clip = build_clip(config.network, config.data.num_segments, config.data.input_size, config.seed)
    classes = F.normalize(torch.randn(config.data.num_classes, clip.config.embed_dim), dim=-1)
    model = build_model(config, clip, classes)
    optimizer = build_optimizer(model, config.solver)
    frames = torch.randint(256, (1, config.data.num_segments, 3, 224, 224), dtype=torch.uint8)
    with resolve_precision("auto", torch.device("cpu")).autocast():
        output = model(frames, classes, model.draw_mixing(torch.Generator().manual_seed(0)))
        loss, _ = video_loss(output, torch.tensor([7]))
    loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert output.logits.shape == (2, 1, 400)
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
