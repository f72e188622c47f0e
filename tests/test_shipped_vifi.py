"""The shipped configurations of OST and ViFi-CLIP are the rows of the published tables."""

import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from commands.arguments import read_configs
from commands.weights import Weights
from datasets.lists.labels import read_class_names
from modules.build import load_config
from modules.check import check_network
from modules.classes.descriptor_files import read_descriptors
from modules.classes.sentences import shipped_file
from utils.config import Config

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
SIZES = {"kinetics400": 400, "kinetics600": 160, "hmdb51": 51, "ucf101": 101, "something_v2": 174}
SHARED_DATA = ("zero_shot", "few_shot", "base_to_novel")  # folders with data of all systems
NUM_GPUS = 8  # that batch sizes are meant for


class Row(NamedTuple):
    """A row of a published table, and what its file has otherwise than the system's settings."""

    figures: tuple[str, ...] = ()  # in percent; few-shot: of 2, 4, 8, 16 shots
    from_k400: tuple[str, ...] = ()  # the same, started from weights of Kinetics-400
    num_frames: int = 32
    lr: float = 8e-6
    epochs: int = 10
    update: int = 256  # videos
    shot: int = 0
    average: float = 1.0  # share of the tuned weights in tests
    fixed: str = ""  # of the network


ZERO_SHOT = {"ost": ("79.7", "55.9", "75.1"), "vificlip": ("76.8", "51.3", "71.2")}  # UCF-101, HMDB-51, Kinetics-600
ROWS = {
    f"{system}/zero_shot/{dataset}_split{split}": Row((figure,), average=0.8 if system == "ost" else 1.0)
    for system, figures in ZERO_SHOT.items()
    for dataset, figure in zip(("ucf101", "hmdb51", "kinetics600"), figures, strict=True)
    for split in (1, 2, 3)
}
ROWS["ost/k400"] = Row(average=0.8)
ROWS["vificlip/k400/both_32f"] = Row()
ROWS["vificlip/k400/image_32f"] = Row(("72.9", "49.0", "62.2"), fixed="fix_text")
ROWS["vificlip/k400/text_32f"] = Row(("69.8", "48.5", "68.5"), fixed="fix_video")
ROWS["vificlip/k400/both_16f"] = Row(("83.9", "96.3"), (), 16, 2.2e-5, 30, 512)
ROWS["vificlip/k400/image_16f"] = Row(("82.8", "96.2"), (), 16, 8e-6, 30, fixed="fix_text")
ROWS["vificlip/k400/text_16f"] = Row(("73.1", "91.2"), (), 16, 8e-6, 30, fixed="fix_video")
FEW = Row(lr=5e-6, epochs=50, update=64, shot=2)
HMDB = (("59.1", "62.9", "64.9", "68.2"), ("64.8", "66.7", "69.2", "71.6"))
SSV2 = (("7.0", "7.7", "8.9", "12.2"), ("8.0", "8.9", "10.5", "12.6"))
ROWS["ost/few_shot/hmdb51"] = FEW._replace(figures=HMDB[0], from_k400=HMDB[1])
ROWS["ost/few_shot/hmdb51_4shot"] = FEW._replace(figures=("62.9",), from_k400=("66.7",), lr=3.5e-6, shot=4)
ROWS["ost/few_shot/ucf101"] = FEW._replace(
    figures=("82.5", "87.5", "91.7", "93.9"), from_k400=("90.3", "92.6", "94.4", "96.2")
)
ROWS["ost/few_shot/something_v2"] = FEW._replace(figures=SSV2[0], from_k400=SSV2[1])
ROWS["ost/few_shot/something_v2_16shot"] = FEW._replace(figures=("12.2",), from_k400=("12.6",), lr=2.5e-6, shot=16)
VIFI_FEW = FEW._replace(lr=2e-6)
ROWS["vificlip/few_shot/hmdb51"] = VIFI_FEW._replace(figures=("57.2", "62.7", "64.5", "66.8"))
ROWS["vificlip/few_shot/ucf101"] = VIFI_FEW._replace(figures=("80.7", "85.1", "90.0", "92.7"))
ROWS["vificlip/few_shot/something_v2"] = VIFI_FEW._replace(figures=("6.2", "7.4", "8.5", "12.4"))
# ViFi-CLIP's figure of base and of novel classes, and their harmonic mean; OST has none.
BASE_TO_NOVEL = {
    "kinetics400": ("76.4", "61.1", "67.9"),
    "hmdb51": ("73.8", "53.3", "61.9"),
    "ucf101": ("92.9", "67.7", "78.3"),
    "something_v2": ("16.2", "12.1", "13.9"),
}
for _dataset, (*_figures, _mean) in BASE_TO_NOVEL.items():
    for _part, _figure in zip(("base", "novel"), _figures, strict=True):
        ROWS[f"vificlip/base_to_novel/{_dataset}_{_part}"] = VIFI_FEW._replace(figures=(_figure,), epochs=11, shot=16)
        ROWS[f"ost/base_to_novel/{_dataset}_{_part}"] = FEW._replace(epochs=11, shot=16)
OF_OST = [name for name in ROWS if name.startswith("ost/")]


def load_row(name: str) -> Config:
    config = load_config(CONFIGS / f"{name}.yaml")
    check_network(config, NUM_GPUS * config.data.batch_size)
    return config


def names_of(config: Config) -> list[str]:
    return read_class_names(ROOT / config.data.label_list)


def test_every_configuration_is_a_row_of_a_table():
    files = {
        path.relative_to(CONFIGS).with_suffix("").as_posix()
        for system in ("ost", "vificlip")
        for path in (CONFIGS / system).rglob("*.yaml")
    }
    assert {name for name in files if "/data/" not in name and not name.endswith("/recipe")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_configuration_says_what_its_row_says_and_no_more(name):
    config, row = load_row(name), ROWS[name]
    system = load_config(CONFIGS / "systems" / f"{name.split('/')[0]}.yaml")
    fixed = {row.fixed: True} if row.fixed else {}
    assert config.network == replace(system.network, arch="ViT-B/16", **fixed)
    steps = config.solver.grad_accumulation_steps
    assert config.solver == replace(system.solver, lr=row.lr, epochs=row.epochs, grad_accumulation_steps=steps)
    assert (config.data.batch_size, NUM_GPUS * config.data.batch_size * steps) == (4, row.update)
    assert config.eval == replace(system.eval, weight_average=row.average)
    assert (config.data.num_segments, config.data.transforms) == (row.num_frames, "vifi")
    assert (config.data.shot, config.data.shot_repeat) == (row.shot, 1)
    # Where the test list also validates, it does so once, when nothing is left to choose.
    assert config.logging.eval_freq == (row.epochs if row.shot else 1)


@pytest.mark.parametrize("name", ROWS)
def test_a_configuration_names_the_lists_of_its_data_set(name):
    config, (folder, stem) = load_row(name), name.split("/")[-2:]
    data = config.data
    dataset = next(known for known in SIZES if data.dataset.startswith(known))
    sizes = [SIZES[dataset] // 2, -(-SIZES[dataset] // 2)] if folder == "base_to_novel" else [SIZES[dataset]]
    assert data.num_classes == len(names_of(config))
    assert data.num_classes in sizes
    assert Path(data.val_root).parts[:2] == ("data", dataset)
    assert Path(data.val_list).parts[:2] == ("lists", dataset)
    if folder not in SHARED_DATA:
        assert dataset == "kinetics400"
        return
    assert data.dataset == stem.removesuffix("_4shot").removesuffix("_16shot")
    theirs = load_config(CONFIGS / folder / "data" / f"{data.dataset}.yaml").data  # which MoTE is tested on
    assert (data.val_list, data.val_root) == (theirs.val_list, theirs.val_root)
    if folder != "zero_shot":
        assert (data.train_list, data.train_root) == (theirs.train_list, theirs.train_root)


@pytest.mark.parametrize("name", OF_OST)
def test_ost_has_the_descriptors_of_its_data_set(name):
    config = load_row(name)
    (path,) = config.sections["ost"].descriptors
    assert ROOT / path == shipped_file(config.data.dataset, "ost.descriptors")


@pytest.mark.parametrize(
    ("path", "label_list"),
    sorted({(*load_row(name).sections["ost"].descriptors, load_row(name).data.label_list) for name in OF_OST}),
)
def test_descriptors_know_all_classes_of_a_label_file(path, label_list):
    names = read_class_names(ROOT / label_list)
    assert [len(of_set) for of_set in read_descriptors(ROOT / path, names, num=4)] == [len(names)] * 2


def test_vificlip_reads_the_names_of_ucf101_without_spaces_where_all_classes_are_asked():
    files = [name for name in ROWS if name.startswith("vificlip/") and "ucf101" in name and "base_to" not in name]
    assert len(files) == 4
    for name in files:
        config = load_row(name)
        assert names_of(config)[0] == "ApplyEyeMakeup"
        assert len(names_of(config)) == 101


SPLITS = {name.removesuffix("1") for name in ROWS if name.endswith("_split1")}
HALVES = {name.removesuffix("_base") for name in ROWS if name.endswith("_base")}


@pytest.mark.parametrize(
    "names",
    [*([f"{start}{split}" for split in (1, 2, 3)] for start in sorted(SPLITS)),
     *([f"{start}_base", f"{start}_novel"] for start in sorted(HALVES))],
    ids=lambda names: names[0],
)  # fmt: skip
def test_what_makes_one_figure_can_be_tested_in_one_run(names):
    args = Namespace(config=[CONFIGS / f"{name}.yaml" for name in names], overrides=[], dense=False)
    assert len(read_configs(args, Weights("clip"))) == len(names)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.figures])
def test_a_published_figure_stands_in_its_file_and_in_the_table_of_the_page(name):
    row, path = ROWS[name], CONFIGS / f"{name}.yaml"
    comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("# "))
    start, _, views = comment.partition(" published ")[2].partition(" with ")
    found = [word.strip(",(") for word in start.split() if word.strip(",(").replace(".", "").isdigit()]
    assert tuple(found) == row.figures
    is_close_set = name.endswith("_16f")
    assert views.startswith("4 clips x 3 crops" if is_close_set else "1 clip x 1 crop")
    if row.from_k400:
        assert f"(pretrain=FILE): {', '.join(row.from_k400)}." in comment
    page = (ROOT / "docs" / "systems" / "ost.md").read_text().splitlines()
    shown = re.sub("_split[23]$", "_split1", re.sub("_novel$", "_base", name))
    lines = [line for line in page if f"(../../configs/{shown}.yaml)" in line and line.startswith("|")]
    for figures in filter(None, (row.figures, row.from_k400)):
        assert any(f"| {' | '.join(figures)} |" in line for line in lines), figures


def test_harmonic_means_stand_beside_base_and_novel_classes():
    page = (ROOT / "docs" / "systems" / "ost.md").read_text()
    for dataset, (base, novel, mean) in BASE_TO_NOVEL.items():
        assert f"| {base} | {novel} | {mean} |" in page
        assert float(mean) == pytest.approx(2 / (1 / float(base) + 1 / float(novel)), abs=0.1)
        for part in ("base", "novel"):
            comment = (CONFIGS / "vificlip" / "base_to_novel" / f"{dataset}_{part}.yaml").read_text()
            assert f"harmonic mean of base and novel {mean}." in comment


def test_the_readme_has_the_zero_shot_figures():
    readme = (ROOT / "README.md").read_text()
    for name, system in (("OST", "ost"), ("ViFi-CLIP", "vificlip")):
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {name} B/16, 32 frames |")]
        assert f"| {' | '.join(ZERO_SHOT[system])} |" in line
        assert f"(configs/{system}/zero_shot)" in line
