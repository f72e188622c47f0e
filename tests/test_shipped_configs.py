"""Every shipped configuration means what it always meant, builds its model at full size, and takes a training step."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import yaml

from clip.model import CLIP, CLIPConfig
from clip.shapes import ClipWeights
from datasets.lists.labels import read_class_names, read_label_table
from datasets.prepare.official import OFFICIAL
from datasets.prepare.texts import TEXT_SETS
from engine.optim import build_optimizer, lr_schedule, set_lr
from modules.build import SETTINGS, build_system, build_towers, head_of, load_config
from modules.check import check_network
from modules.classes.base import FixedClasses
from modules.systems.base import Batch, Draws
from utils.config import ALIASES, Config, to_yaml
from utils.precision import resolve_precision

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
# What each file resolved to before systems had sections of their own: defaults, and what differs from them.
RESOLVED = json.loads((ROOT / "tests" / "data" / "configs" / "resolved.json").read_text())
SHAPES = {
    "ViT-B/32": CLIPConfig(512, 224, 32, 768, 12, 12, 512, 12, 8),
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
        if key == "network.grad_checkpointing":  # what recipes of L/14 recompute is less than it was
            value = "light" if value else ""
        if key == "network.compile":  # no file asked for it; where it works on a GPU, it is done now
            assert not value
            value = "auto"
        # Where no head is named it is the system's own.
        assert (head_of(config) if key == "network.sim_header" else found[last]) == value, key


def test_every_system_has_a_file_of_its_settings():
    files = {path.stem for path in (CONFIGS / "systems").glob("*.yaml")}
    # A system whose models differ in more than their weights has one of each, too: tvtsv2_b16.
    assert {name for name in files if name.partition("_")[0] not in files} == set()
    assert {name.partition("_")[0] for name in files} == set(SETTINGS)
    for name in files:
        config = load_config(CONFIGS / "systems" / f"{name}.yaml")
        check_network(config)
        assert config.network.system == name.partition("_")[0]


TWO_ROUTES = {"expert_ce", "merged_ce"}


@pytest.mark.parametrize(
    ("name", "losses_of_it"),
    [("k400/vitb16_8f", TWO_ROUTES), ("k400/vitl14_16f", TWO_ROUTES), ("text4vis/k400/vitb32_8f", {"ce"})],
)
@pytest.mark.slow
def test_a_published_recipe_takes_a_step(name, losses_of_it, random_weights):
    config = load_config(CONFIGS / f"{name}.yaml")
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
    assert losses_of_it <= losses.reported.keys()
    assert not missing
    weight = next(parameter for name, parameter in model.head.named_parameters() if ".mlp." in name)
    before = weight.clone()
    set_lr(optimizer, lr_schedule(config.solver)(5.0))
    optimizer.step()
    assert not torch.equal(before, weight)


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


PROBES = sorted(path for path in (CONFIGS / "probe").glob("*.yaml") if not path.stem.startswith("recipe"))


@pytest.mark.parametrize("path", PROBES, ids=lambda path: path.stem)
def test_a_probe_learns_and_tests_on_the_lists_of_its_split(path):
    config, system = load_config(path), load_config(CONFIGS / "systems" / "tvtsv2_b16.yaml")
    check_network(config)
    assert config.network == replace(system.network, arch="TVTSv2_ViT_B_16.pth")
    assert (config.data.transforms, config.data.num_segments) == ("tvts", 12)
    name, split = re.fullmatch(r"([a-z0-9]+?)(_split\d)?_b16", path.stem).groups()
    dataset = {"k400": "kinetics400"}.get(name, name)
    parts = [f"lists/{dataset}/{part}{split or ''}.txt" for part in ("train", "test" if split else "val")]
    assert [config.data.train_list, config.data.val_list] == parts
    assert len(read_class_names(ROOT / config.data.label_list, config.data.num_classes)) == SIZES[dataset]
    assert config.probe.solver == ("linear" if dataset == "kinetics400" else "logistic")


class Row(NamedTuple):
    """A row of the tables in Text4Vis's repository, and what its published file has for it."""

    arch: str
    num_frames: int
    input_size: int
    batch: tuple[int, int]  # videos of a GPU, steps of accumulation
    published: str = ""  # the figure, where there is one


TEXT4VIS = CONFIGS / "text4vis"
B32, B16, L14, L336 = "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"
ROWS = {
    "k400/vitb32_8f": Row(B32, 8, 224, (32, 1), "80.0"),
    "k400/vitb32_16f": Row(B32, 16, 224, (32, 1), "80.5"),
    "k400/vitb16_8f": Row(B16, 8, 224, (32, 1), "82.9"),
    "k400/vitb16_16f": Row(B16, 16, 224, (16, 2), "83.6"),
    "k400/vitl14_8f": Row(L14, 8, 224, (8, 2), "86.4"),
    "k400/vitl14_336_8f": Row(L336, 8, 336, (2, 4), "87.1"),
    "k400/vitl14_336_32f": Row(L336, 32, 336, (1, 8), "87.8"),
    "k400/rn50_8f": Row("RN50", 8, 224, (32, 1)),
    "finetune/activitynet_vitl14_16f": Row(L14, 16, 224, (4, 2), "96.5 mAP"),
    "finetune/activitynet_vitl14_336_16f": Row(L336, 16, 336, (1, 8), "96.9 mAP"),
    "finetune/ucf101_vitl14_16f": Row(L14, 16, 224, (4, 2), "98.1"),
    "finetune/hmdb51_vitl14_16f": Row(L14, 16, 224, (4, 2), "81.3"),
    **{f"few_shot/{name}": Row(L14, 8, 224, (8, 1)) for name in ("kinetics400", "activitynet", "hmdb51", "ucf101")},
    **{f"zero_shot/{name}": Row(L14, 8, 224, (8, 2)) for name in ("activitynet", "hmdb51", "ucf101")},
    **{f"zero_shot/kinetics600_split{split}": Row(L14, 8, 224, (8, 2)) for split in (1, 2, 3)},
}
SIZES = {"kinetics400": 400, "activitynet": 200, "ucf101": 101, "hmdb51": 51, "kinetics600": 160}


def load_row(name: str) -> Config:
    config = load_config(TEXT4VIS / f"{name}.yaml")
    check_network(config)
    return config


def test_every_text4vis_configuration_is_a_row_of_its_tables():
    files = {path.relative_to(TEXT4VIS).with_suffix("").as_posix() for path in TEXT4VIS.rglob("*.yaml")}
    parts = {name for name in files if name.startswith("data/") or name.endswith("/recipe")}
    assert files - parts == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_text4vis_configuration_says_what_its_row_says(name):
    config, row = load_row(name), ROWS[name]
    data, network, solver = config.data, config.network, config.solver
    assert (network.arch, data.num_segments, data.input_size) == row[:3]
    assert (data.batch_size, solver.grad_accumulation_steps) == row.batch
    # Beyond that and few-shot's missing head, nothing of the model, its training and its tests is its own.
    system = load_config(CONFIGS / "systems" / "text4vis.yaml")
    own = {"arch": row.arch, "sim_header": "None" if name.startswith("few_shot") else "Transf"}
    same = replace(system.network, **own, recompute=network.recompute)
    assert network == same
    assert solver == replace(system.solver, grad_accumulation_steps=row.batch[1])
    map_keys = {"mean_ap": "mAP" in row.published, "map_softmax": "mAP" in row.published}
    assert config.eval == replace(system.eval, **map_keys)
    has_randaug = name.startswith(("k400/", "zero_shot/")) or name == "few_shot/kinetics400"
    assert (data.randaug and (data.randaug.N, data.randaug.M)) == ((2, 9) if has_randaug else None)


@pytest.mark.parametrize("name", ROWS)
def test_a_text4vis_configuration_names_the_lists_of_its_data_set(name):
    data = load_row(name).data
    dataset = data.dataset.removesuffix("_all").partition("_split")[0]
    assert data.num_classes == len(read_class_names(ROOT / data.label_list)) == SIZES[dataset]
    assert Path(data.val_root).parts[:2] == ("data", dataset)
    assert Path(data.val_list).parts[:2] == ("lists", dataset)
    if name.startswith("zero_shot/") and dataset != "kinetics600":
        assert (Path(data.val_list).name, data.dataset) == ("all.txt", f"{dataset}_all")
        assert "all" in OFFICIAL[dataset].counts
    if not name.startswith("zero_shot/"):
        assert Path(data.train_list).parts[:2] == ("lists", dataset)
        assert Path(data.train_list).name == Path(data.val_list).name.replace("val", "train").replace("test", "train")
    assert (data.shot, data.shot_repeat) == ((2, 0) if name.startswith("few_shot/") else (0, 1))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.published])
def test_a_published_figure_stands_in_its_file_and_in_the_table_of_the_page(name):
    comment = (TEXT4VIS / f"{name}.yaml").read_text().splitlines()[0]
    unit = "" if "mAP" in ROWS[name].published else " % top-1"
    assert f"published {ROWS[name].published}{unit} with" in comment
    link = f"[{name}](../../configs/text4vis/{name}.yaml)"
    page = (ROOT / "docs" / "systems" / "text4vis.md").read_text()
    (line,) = [line for line in page.splitlines() if link in line]
    _, _, frames, views, published, _, _ = map(str.strip, line.split("|"))
    assert (int(frames), published) == (ROWS[name].num_frames, ROWS[name].published)
    clips, crops = views.split("x")
    assert f"with {clips} clip{'s' * (clips != '1')} x {crops} crop" in comment


def test_text4vis_has_class_names_of_its_own_for_the_same_ids_of_ucf101():
    names, folders = (
        read_label_table(ROOT / "lists" / "ucf101" / "text4vis_labels.csv", column)[0] for column in ("name", "folder")
    )
    assert names == folders == read_label_table(ROOT / "lists" / "ucf101" / "labels.csv", "folder")[0]
    files = [name for name in ROWS if load_row(name).data.dataset.startswith("ucf101")]
    assert files == ["finetune/ucf101_vitl14_16f", "few_shot/ucf101", "zero_shot/ucf101"]
    assert {load_row(name).data.label_list for name in files} == {"lists/ucf101/text4vis_labels.csv"}


RETRIEVAL = sorted((CONFIGS / "retrieval").glob("*.yaml"))


@pytest.mark.parametrize("path", RETRIEVAL, ids=lambda path: path.stem)
def test_a_retrieval_configuration_has_a_list_that_is_prepared(path):
    config = load_config(path)
    check_network(config)
    assert config.network.system == ("clip" if "clip" in path.stem else "tvtsv2")
    name = config.data.dataset
    assert (TEXT_SETS[name].list_name, f"{name}_") == (Path(config.data.val_list).name, path.stem[: len(name) + 1])
    assert config.data.num_segments == 12
    assert not config.data.label_list


def test_every_data_set_with_texts_has_configurations():
    assert {path.stem for path in RETRIEVAL} == {f"{name}{clip}_b16" for name in TEXT_SETS for clip in ("", "_clip")}


def test_what_was_chosen_on_drawn_videos_is_the_published_recipe_with_one_remedy():
    chosen, published = (load_config(CONFIGS / "k400" / f"vitb16_8f{end}.yaml") for end in ("_best", ""))
    assert (chosen.loss.distill, chosen.loss.distill_at) == (1, "head")
    assert replace(chosen, loss=published.loss) == published
