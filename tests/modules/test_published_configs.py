"""Published YAML files: a bare one of Text4Vis is recognised and means the base file and its own keys."""

from pathlib import Path

import pytest
import yaml

from modules.build import load_config

# The keys of the released files, from the seed configuration of Kinetics-400.
TEXT4VIS = """
resume:
pretrain:
seed: 1024
data:
    dataset: kinetics400
    modality: RGB
    num_segments: 8
    seg_length: 1
    batch_size: 2
    workers: 8
    num_classes: 400
    image_tmpl: 'img_{:05d}.jpg'
    train_root: /data/train
    train_list: lists/train.txt
    val_root: /data/val
    val_list: lists/val.txt
    label_list: lists/labels.csv
    index_bias: 1
    input_size: 336
    randaug:
        N: 2
        M: 9
    random_shift: True
network:
    arch: ViT-L/14-336px
    init: True
    tm: False
    drop_out: 0.0
    emb_dropout: 0.0
    type: clip_k400
    sim_header: "Transf"
    joint_st: False
    drop: 0
    fix_text: True
    fix_video: False
solver:
    type: cosine
    epochs: 20
    start_epoch: 0
    epoch_offset: 0
    optim: adamw
    lr: 5.e-5
    lr_warmup_step: 5
    momentum: 0.9
    weight_decay: 0.2
    clip_ratio: 0.1
    grad_accumulation_steps: 4
    loss_type: CE
    evaluate: False
logging:
    print_freq: 10
    eval_freq: 5
"""
WITHOUT_EFFECT = (("data", "seg_length"), ("network", "type"), ("network", "drop"), ("solver", "epoch_offset"))
SAID = "the configuration is one of text4vis: what it does not say is as in configs/systems/text4vis.yaml"


def written(tree: dict, folder: Path, name: str = "published.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(tree))
    return path


def tree_of(*leave_out: str, **network) -> dict:
    """The published keys without some sections, and with others in ``network``."""
    tree = yaml.safe_load(TEXT4VIS)
    tree["network"] |= network
    return {section: part for section, part in tree.items() if section not in leave_out}


@pytest.mark.parametrize("leave_out", [(), ("solver",), ("solver", "logging", "resume", "pretrain", "seed")])
def test_a_bare_text4vis_file_is_the_base_file_and_its_keys(leave_out, repo_root, tmp_path, caplog):
    caplog.set_level("INFO")
    tree = tree_of(*leave_out)
    found = load_config(written(tree, tmp_path))
    assert [record.message for record in caplog.records if record.levelname == "INFO"] == [SAID]
    for section, key in WITHOUT_EFFECT:
        tree.get(section, {}).pop(key, None)
    base = str(repo_root / "configs" / "systems" / "text4vis.yaml")  # absolute
    assert found == load_config(written({"base": base, **tree}, tmp_path, "based.yaml"))
    network = found.network
    assert (network.system, network.arch, network.tm, network.templates) == (
        "text4vis", "ViT-L/14@336px", False, "single",
    )  # fmt: skip
    assert (network.temporal_layer, network.num_experts, found.eval.weight_average) == (6, 0, 1.0)
    assert (found.data.transforms, found.eval.fusion, found.resume) == ("text4vis", "features", "")


@pytest.mark.parametrize("keys", [{"sim_header": "None"}, {"sim_header": None}, {"tm": "tsm"}, {"joint_st": True}])
def test_what_a_bare_file_says_is_kept(keys, tmp_path):
    network = load_config(written(tree_of(**keys), tmp_path)).network
    ((key, value),) = keys.items()
    assert network.system == "text4vis"
    assert getattr(network, key) == (value or "None")


@pytest.mark.parametrize(
    "keys",
    [{"temporal_layer": 4, "num_experts": 4}, {"interaction": "DP"}, {"templates": "single"}],
    ids=["of MoTE", "of BIKE", "ours"],
)
def test_other_published_files_are_not_taken_for_it(keys, tmp_path, caplog):
    caplog.set_level("INFO")
    config = load_config(written(tree_of(**keys), tmp_path))
    assert (config.network.system, config.eval.weight_average) == ("mote", 0.99)
    assert SAID not in caplog.text


def test_a_file_that_names_its_system_or_a_command_line_that_does_is_left_alone(tmp_path):
    assert load_config(written(tree_of(system="mote"), tmp_path)).network.num_experts == 4
    assert load_config(written(tree_of(), tmp_path), ["network.system=mote"]).network.num_experts == 4


def test_weights_tell_the_system_of_a_file_without_marks(tmp_path):
    tree = {"data": {"dataset": "own"}, "network": {"arch": "ViT-B/16"}}
    path = written(tree, tmp_path)
    assert load_config(path).network.system == "mote"
    assert load_config(path, told="text4vis").network.system == "text4vis"
