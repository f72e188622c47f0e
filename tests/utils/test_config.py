"""Configuration: published files load unchanged, and every mistake is an error that names the key."""

import dataclasses
import logging
import math
import types
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from modules.build import SETTINGS, load_config, parse_config
from modules.systems.mote import MoTESettings
from utils import config as configuration
from utils.config import ALIASES, Config, NetworkConfig, RandAugmentConfig, SolverConfig, SourceConfig, changes, to_yaml

# Every key of the published files (reference, section 3), written as they write them.
PUBLISHED = """
resume:
pretrain:
seed: 1024
data:
    dataset: kinetics400
    modality: video
    num_segments: 8
    seg_length: 1
    batch_size: 64
    workers: 8
    num_classes: 400
    image_tmpl: 'image_{:06d}.jpg'
    train_root: 'data/train'
    train_list: 'lists/train.txt'
    val_root: 'data/val'
    val_list: 'lists/val.txt'
    label_list: 'lists/kinetics_400_labels.csv'
    input_size: 224
    random_shift: True
    output_path: ./exps
    index_bias: 0
network:
    arch: ViT-B/16
    init: True
    tm: False
    drop_out: 0.0
    emb_dropout: 0.0
    sim_header: "Transf"
    interaction: DP
    joint_st: False
    drop: 0
    fix_text: True
    fix_video: False
    temporal_layer: 4
    num_experts: 4
solver:
    type: cosine
    epochs: 30
    start_epoch: 0
    epoch_offset: 0
    optim: adamw
    lr: 5e-5
    lr_warmup_step: 5
    weight_decay: 0.2
    loss_type: CE
    evaluate: False
    clip_ratio: 7e-2
    grad_accumulation_steps: 1
logging:
    print_freq: 10
    eval_freq: 5
"""


DEFAULTS = Config(
    network=NetworkConfig(tower="frames"), solver=SolverConfig(loss_type="CE"), sections={"mote": MoTESettings()}
)


@pytest.fixture
def write(tmp_path):
    """Write a YAML file, return its path."""

    def write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_every_published_key_loads(write):
    config = load_config(write(PUBLISHED))
    assert config.data.image_tmpl == "image_{:06d}.jpg"
    assert (config.data.index_bias, config.logging.eval_freq, config.seed) == (0, 5, 1024)
    assert (config.resume, config.pretrain) == ("", "")
    tree = yaml.safe_load(PUBLISHED)
    dead = {"seg_length", "interaction", "drop", "epoch_offset", "loss_type", "lr", "clip_ratio"}
    for section in ("data", "network", "solver", "logging"):
        for key in tree[section].keys() - dead:
            assert getattr(getattr(config, section), key) == tree[section][key], key


def test_dead_published_keys_give_one_warning_that_names_them(write, caplog):
    with caplog.at_level(logging.WARNING):
        load_config(write(PUBLISHED))
    (record,) = caplog.records
    assert all(key in record.message for key in ("data.seg_length", "network.drop", "epoch_offset"))
    assert "network.drop_out" not in record.message


def test_a_file_without_dead_keys_gives_no_warning(write, caplog):
    load_config(write("data: {dataset: mine}"))
    assert not caplog.records


@pytest.mark.parametrize(("text", "value"), [("5e-5", 5e-5), ("1", 1.0), ("5.0e-5", 5e-5), ("'0.5'", 0.5)])
def test_numbers_become_floats(write, text, value):
    lr = load_config(write(f"solver: {{lr: {text}}}")).solver.lr
    assert lr == value
    assert isinstance(lr, float)


def test_a_number_without_a_dot_is_a_float_in_overrides_and_lists_too(write):
    assert load_config(write("solver: {lr_decay_step: 15, epochs: 50}")).solver.lr_decay_step == (15.0, 30.0, 45.0)
    config = load_config(write(""), ["solver.lr=3e-4", "solver.lr_decay_step=[1e1, 20]"])
    assert (config.solver.lr, config.solver.lr_decay_step) == (3e-4, (10.0, 20.0))


def test_an_empty_file_is_all_defaults(write):
    assert load_config(write("")) == DEFAULTS


def test_a_base_file_is_inherited_key_by_key(write):
    write("data: {dataset: a, batch_size: 8}\nseed: 3", "base.yaml")
    config = load_config(write("base: base.yaml\ndata: {dataset: b}"))
    assert (config.data.dataset, config.data.batch_size, config.seed) == ("b", 8, 3)


def test_of_several_bases_the_last_wins(write):
    write("seed: 1\ndata: {dataset: one, workers: 1}", "one.yaml")
    write("seed: 2\ndata: {dataset: two}", "two.yaml")
    config = load_config(write("base: [one.yaml, two.yaml]"))
    assert (config.seed, config.data.dataset, config.data.workers) == (2, "two", 1)


def test_bases_nest_and_are_found_beside_the_file_that_names_them(write):
    write("seed: 7\ndata: {dataset: deep}", "deep/er/root.yaml")
    write("base: er/root.yaml\ndata: {workers: 5}", "deep/middle.yaml")
    config = load_config(write("base: deep/middle.yaml"))
    assert (config.seed, config.data.dataset, config.data.workers) == (7, "deep", 5)


def test_one_base_may_be_reached_on_two_ways(write):
    write("seed: 7", "root.yaml")
    write("base: root.yaml\nresume: a", "left.yaml")
    write("base: root.yaml\npretrain: b", "right.yaml")
    config = load_config(write("base: [left.yaml, right.yaml]"))
    assert (config.seed, config.resume, config.pretrain) == (7, "a", "b")


def test_an_empty_section_keeps_what_the_base_says(write):
    write("solver: {lr: 0.5}", "base.yaml")
    assert load_config(write("base: base.yaml\nsolver:\n  # lr: 0.1\n")).solver.lr == 0.5


def test_bases_in_a_circle_are_an_error(write):
    write("base: config.yaml", "other.yaml")
    with pytest.raises(ValueError, match="base files form a circle"):
        load_config(write("base: other.yaml"))


def test_a_missing_file_or_base_is_an_error_that_names_it(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config .*nowhere.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"config .*gone.yaml: no such file"):
        load_config(write("base: gone.yaml"))


@pytest.mark.parametrize("text", ["a: [1, 2", "\tseed: 1", "just words", "- a\n- b", "base: 3"])
def test_a_file_that_is_not_a_mapping_is_an_error_that_names_it(write, text):
    with pytest.raises(ValueError, match=r"config .*config\.yaml(:1)?: "):
        load_config(write(text))


def test_a_falsy_document_is_not_taken_for_an_empty_file(write):
    for text in ("[]", "0", "false", "''"):
        with pytest.raises(ValueError, match=r"config\.yaml: expected sections with keys"):
            load_config(write(text))


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"config {tmp_path}: not a file"):
        load_config(tmp_path)


def test_bases_that_multiply_are_bounded(write):
    write("seed: 1", "base0.yaml")
    for number in range(1, 30):
        write(f"base: [base{number - 1}.yaml, base{number - 1}.yaml]", f"base{number}.yaml")
    with pytest.raises(ValueError, match=r"base\d+\.yaml: base files name more than 100 files"):
        load_config(write("base: base29.yaml"))


def test_a_configuration_that_a_checkpoint_carries_is_read_with_the_same_care():
    with pytest.raises(ValueError, match=r"the checkpoint:3: the key 'seed' is given twice"):
        parse_config("seed: 1\ndata: {}\nseed: 2", "the checkpoint")
    with pytest.raises(ValueError, match="the checkpoint: expected YAML text, found 5"):
        parse_config(5, "the checkpoint")


def test_overrides_win_over_the_file_in_their_order(write):
    path = write("seed: 1\ndata: {batch_size: 4, dataset: x}")
    config = load_config(path, ["seed=2", "seed=3", "data.batch_size=16", "network.joint_st=true", "data.dataset=a b"])
    assert (config.seed, config.data.batch_size, config.network.joint_st) == (3, 16, True)
    assert config.data.dataset == "a b"


@pytest.mark.parametrize(
    "override",
    [
        "seed",
        "=3",
        "--seed 3",
        "data.dataset=[x",
        "data=3",
        "a..b=1",
        ".a=1",
        "a.=1",
        "a b=1",
        "a." * 3000 + "b=1",
        "data.dataset=" + "[" * 20000,
        "data.dataset=!!set {a}",
        "data={workers: 1, workers: 2}",
    ],
)
def test_a_malformed_override_is_an_error(write, override):
    with pytest.raises(ValueError, match=r"override|expected keys"):
        load_config(write(""), [override])


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ("data: {batchsize: 3}", "data.batchsize", "data.batch_size"),
        ("network: {num_expert: 3}", "network.num_expert", "network.num_experts"),
        ("solvr: {lr: 3}", "solvr", "solver"),
        ("solver: {learning: 1}", "solver.learning", ""),
        ("lr: 1.0e-3", "lr", "solver.lr"),
        ("data: {randaug: {m: 1}}", "data.randaug.m", ""),
        ("mote: {merge_temps: [1]}", "mote.merge_temps", "mote.merge_temperatures"),
        ("sections: {mote: {}}", "sections", ""),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(write, text, unknown, nearest):
    with pytest.raises(ValueError, match=rf"unknown key {unknown}; the nearest is {nearest}"):
        load_config(write(text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=many", "data.batch_size: expected int, found 'many'"),
        ("data.batch_size=1.5", "data.batch_size: expected int, found 1.5"),
        ("data.batch_size=true", "data.batch_size: expected int, found True"),
        ("data.dense=1", "data.dense: expected bool, found 1"),
        ("data.dataset=5", "data.dataset: expected str, found 5"),
        ("solver.lr=fast", "solver.lr: expected float, found 'fast'"),
        ("solver.lr=true", "solver.lr: expected float, found True"),
        ("solver.betas=[0.9]", "solver.betas: expected two shares of at least 0 and below 1, found [0.9]"),
        ("solver.betas=[0.9, 1]", "solver.betas: expected two shares of at least 0 and below 1, found [0.9, 1]"),
        ("solver.betas=0.9", "solver.betas: expected a list of numbers, found 0.9"),
        ("solver.mix_switch=1.5", "solver.mix_switch: expected 0.0 to 1.0, found 1.5"),
        ("solver.mixup=-1", "solver.mixup: expected 0.0 to 100.0, found -1"),
        ("data.modality=rgb", "data.modality: expected one of video, RGB, shards, features, found 'rgb'"),
        ("data.batch_size=017", "data.batch_size: expected int, found '017'"),
        ("data.batch_size=0x10", "data.batch_size: expected int, found '0x10'"),
        ("data.batch_size=1:30", "data.batch_size: expected int, found '1:30'"),
        ("data.batch_size=1_000", "data.batch_size: expected int, found '1_000'"),
        ("data.batch_size=.nan", "data.batch_size: expected int, found nan"),
        ("data.batch_size=nan", "data.batch_size: expected int, found 'nan'"),
        ("data.batch_size=2020-01-01", "data.batch_size: expected int, found '2020-01-01'"),
        ("data.batch_size=1" + "0" * 30, "data.batch_size: expected int, found '1000"),
        ("data.batch_size=1000000000", "data.batch_size: expected 1 to 65536, found 1000000000"),
        ("data.workers=100000", "data.workers: expected 0 to 1024, found 100000"),
        ("data.index_bias=-1", "data.index_bias: expected 0 to 1000000, found -1"),
        ("solver.epochs=1" + "0" * 400, "solver.epochs: expected int, found '1000"),
        ("solver.epochs=10000000", "solver.epochs: expected 1 to 1000000, found 10000000"),
        ("solver.lr=nan", "solver.lr: expected float, found 'nan'"),
        ("solver.lr=.nan", "solver.lr: expected a finite number, found nan"),
        ("solver.lr=inf", "solver.lr: expected a finite number, found 'inf'"),
        ("solver.lr=1" + "0" * 400, "solver.lr: expected a finite number, found '1000"),
        ("solver.lr=1_000", "solver.lr: expected float, found '1_000'"),
        ("solver.lr=017", "solver.lr: expected float, found '017'"),
        ("solver.lr=1:30", "solver.lr: expected float, found '1:30'"),
        ("solver.lr_decay_step=[.inf]", "solver.lr_decay_step: expected a finite number, found inf"),
        ("mote.merged=-.inf", "mote.merged: expected a finite number, found -inf"),
        ("loss.merged=.nan", "mote.merged: expected a finite number, found nan (the old name is loss.merged)"),
        ("mote.merge_temperatures=[1, .nan]", "mote.merge_temperatures: expected numbers, found [1, nan]"),
        (
            "mote.merge_temperatures=[1, 0]",
            "mote.merge_temperatures: expected numbers other than 0, which would",
        ),
        ("mote=3", "mote: expected keys, found 3"),
        (
            "network.system=tsn",
            "network.system: expected one of mote, clip, text4vis, vificlip, ost, tvtsv2, found 'tsn'",
        ),
        ("solver.collective_timeout_s=1e30", "solver.collective_timeout_s: expected 1.0 to 10000000.0, found '1e30'"),
        ("seed=-1", ": seed: expected 0 to"),
        ("data.dataset=" + "x" * 5000, "data.dataset: expected one line of at most 4096 characters, found 'xxx"),
        (r'data.train_list="a\0b"', "data.train_list: expected one line of"),
        (r'data.train_list="a\nb"', "data.train_list: expected one line of"),
        ("data.dataset=[" + "x," * 5000 + "]", "data.dataset: expected str, found ['x', 'x'"),
        ("data.dataset={a: {b: c}}", "data.dataset: expected str, found {'a': {'b': 'c'}}"),
        ("x" * 5000 + "=1", "unknown key xxx"),
        ("data.crop_area=[0.1]", "data.crop_area: expected 2 values, found [0.1]"),
        ("data.crop_area=0.1", "data.crop_area: expected a list of numbers, found 0.1"),
        ("data.crop_area=[a, b]", "data.crop_area: expected float, found 'a'"),
        ("data.randaug=2", "data.randaug: expected keys, found 2"),
        ("network.interaction=VCS", "network.interaction: only 'DP' is implemented, found 'VCS'"),
    ],
)
def test_a_wrong_value_is_an_error_with_key_expectation_and_value(write, override, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        load_config(write(""), [override])
    assert message in str(error.value)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "data.batch_size=0", "data.num_segments=0", "solver.grad_accumulation_steps=0",
        "logging.print_freq=0", "logging.eval_freq=0", "mote.merge_temperatures=[]",
    ],
)  # fmt: skip
def test_a_number_that_no_run_can_use_is_an_error_that_names_the_key(write, override):
    with pytest.raises(ValueError, match=override.split("=")[0]):
        load_config(write(""), [override])


def test_null_keeps_a_default_but_means_none_for_sim_header(write):
    config = load_config(
        write("data: {workers: null, randaug: null}\nnetwork: {sim_header: null, arch: ~}\nlogging:\n")
    )
    assert (config.data.workers, config.data.randaug) == (8, None)
    assert (config.network.sim_header, config.network.arch) == ("None", "ViT-B/16")
    assert load_config(write("network: {sim_header: None}")).network.sim_header == "None"


def test_a_nested_section_has_defaults_of_its_own(write):
    assert load_config(write("data: {randaug: {M: 7}}")).data.randaug == RandAugmentConfig(N=2, M=7)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


def values_of(cls: type) -> st.SearchStrategy:
    """Any settings of a class; numbers without a range are positive, as lengths and counts are."""
    fields = {name: field for name, field in cls.__pydantic_fields__.items() if name not in OTHERWISE}
    others = {name: OTHERWISE[name] for name in cls.__pydantic_fields__ if name in OTHERWISE}
    return st.builds(cls, **{name: values_in(field) for name, field in fields.items()}, **others)


def values_in(field) -> st.SearchStrategy:
    """Any value that a field can hold."""
    expected, options = field.annotation, typing.get_args(field.annotation)
    if isinstance(expected, types.UnionType):
        return st.none() | values_of(options[0])
    if dataclasses.is_dataclass(expected):
        return values_of(expected)
    if typing.get_origin(expected) is typing.Literal:
        return st.sampled_from(options)
    if typing.get_origin(expected) is tuple:
        return st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=4, unique=True).map(tuple)
    limits = {name: getattr(part, name) for part in field.metadata for name in ("ge", "le") if hasattr(part, name)}
    least, most = limits.get("ge", 1e-12), min(limits.get("le", 1e6), 1e6)
    if expected is int:
        return st.integers(math.ceil(least), math.floor(most))
    strategies = {float: st.floats(least, most), bool: st.booleans(), str: WORDS, typing.Any: st.booleans() | WORDS}
    return strategies[expected]  # Any: a name or a switch


OTHERWISE: dict[str, st.SearchStrategy] = {
    "betas": st.tuples(st.floats(0.0, 0.999), st.floats(0.0, 0.999)),
    "crop_area": st.tuples(st.floats(1e-6, 0.5), st.floats(0.5, 1.0)),
    "descriptors": st.lists(WORDS, max_size=2).map(tuple),
    "system": st.sampled_from(sorted(SETTINGS)),
    # where there is none, the system's is written down
    "transforms": WORDS.filter(bool),
    "loss_type": WORDS.filter(bool),
    "tower": WORDS.filter(bool),
    "input_size": st.integers(1, 4096),  # 0: what the arch tells is written down
    "tm": st.booleans() | WORDS,
}
OTHERWISE["sources"] = st.lists(values_of(SourceConfig), max_size=2).map(tuple)
OTHERWISE["sections"] = st.fixed_dictionaries({name: values_of(cls) for name, cls in SETTINGS.items()})


@given(config=values_of(Config))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_configuration_survives_a_round_trip_through_yaml(config, tmp_path):
    path = tmp_path / "config.yaml"
    assume(config.solver.start_epoch < config.solver.epochs)
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_the_defaults_survive_a_round_trip_through_yaml(write):
    assert load_config(write(to_yaml(DEFAULTS))) == DEFAULTS  # with an infinite merge temperature


ROOT = Path(__file__).resolve().parents[2]


SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.stem != "descriptors")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_shipped_configuration_loads(path, caplog):
    config = load_config(path)
    assert not caplog.records
    if config.data.label_list.startswith("lists/"):
        names = (ROOT / config.data.label_list).read_text().splitlines()[1:]
        assert config.data.num_classes in (0, len(names))


def test_the_published_recipes_are_shipped():
    small, large = (load_config(ROOT / "configs" / "k400" / f"{name}.yaml") for name in ("vitb16_8f", "vitl14_8f"))
    recipe = {
        name: (c.data.batch_size, c.solver.epochs, c.solver.lr_warmup_step, c.solver.lr, c.solver.clip_ratio,
               c.network.temporal_layer, c.network.num_experts, c.solver.weight_decay)
        for name, c in (("B/16", small), ("L/14", large))
    }  # fmt: skip
    assert recipe == {
        "B/16": (64, 30, 5, 5e-5, 0.07, 4, 4, 0.2),
        "L/14": (48, 20, 5, 5e-5, 0.06, 6, 4, 0.2),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solver: {start_epoch: 30, epochs: 30}", r"solver\.start_epoch 30 is not below solver\.epochs"),
    ],
)
def test_settings_that_cannot_work_together_are_named(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(text))


@pytest.mark.parametrize("old", ALIASES)
def test_an_old_name_is_read_as_the_new_one(old, write, caplog):
    value = {"network.merge_temperatures": "[1.0, .inf]", "solver.expert_draws": "shared",
             "eval.modulation": "false", "network.grad_checkpointing": "full"}.get(old, "2")  # fmt: skip
    section, key = old.split(".")
    new = load_config(write(""), [f"{ALIASES[old]}={value}"])
    assert new != DEFAULTS
    text = f"{section}: {{{key}: {value}}}"
    assert load_config(write(text)) == load_config(write(""), [f"{old}={value}"]) == parse_config(text, "x") == new
    assert changes(text, new) == []
    assert not caplog.records
    assert old not in to_yaml(new)


def test_the_old_switch_of_recomputation_is_a_name_now(write):
    text = "network: {grad_checkpointing: True}"
    assert load_config(write(text)).network.recompute == "full"
    assert load_config(write(text), ["network.grad_checkpointing=False"]) == load_config(write(""))
    assert load_config(write(text), ["network.recompute=light"]).network.recompute == "light"
    with pytest.raises(ValueError, match=r"network\.recompute: expected str, found 1 \(the old name is"):
        load_config(write("network: {grad_checkpointing: 1}"))


def test_an_old_name_in_a_file_and_the_new_one_laid_over_it_are_one_setting(write):
    write("loss: {merged: 0.1, expert: 2}", "base.yaml")
    config = load_config(write("base: base.yaml\nmote: {merged: 0.2}"), ["loss.merged=0.3", "mote.expert=3"])
    assert config.sections["mote"] == MoTESettings(merged=0.3, expert=3.0)


def test_an_old_and_a_new_name_in_one_file_are_an_error_that_names_both(write):
    with pytest.raises(ValueError, match=r"config\.yaml: loss\.merged is the old name of mote\.merged; give only one"):
        load_config(write("loss: {merged: 0.1}\nmote: {merged: 0.1}"))
    with pytest.raises(ValueError, match=r"the checkpoint: solver\.expert_draws is the old name of solver\.draws"):
        parse_config("solver: {draws: rank, expert_draws: rank}", "the checkpoint")


def test_an_old_section_may_be_empty_and_its_other_keys_are_unknown(write):
    assert load_config(write("loss:\nmote:\n")) == DEFAULTS
    with pytest.raises(ValueError, match=r"unknown key loss\.merge; the nearest is mote\.merged"):
        load_config(write("loss: {merge: 1}"))


def test_sections_are_of_the_chosen_system_and_of_those_the_file_names(write):
    assert set(load_config(write("")).sections) == {"mote"}
    assert set(load_config(write("network: {system: clip}")).sections) == {"clip"}
    assert set(load_config(write("network: {system: clip}\nmote: {merged: 0}")).sections) == {"clip", "mote"}
    assert load_config(write("mote: {merged: 0}")).section("mote", MoTESettings).merged == 0
    assert Config().section("mote", MoTESettings) == MoTESettings()


def test_who_builds_no_model_reads_no_section_of_a_system(write):
    path = write("data: {dataset: mine}\nmote: {nonsense: 1}\nlater: {a: 2}\nnetwork: {system: later}")
    config = configuration.load_config(path)
    assert (config.data.dataset, config.sections) == ("mine", {})
    for text in ("datas: 3", "data: {datset: mine}"):
        with pytest.raises(ValueError, match=r"unknown key (datas|data\.datset)"):
            configuration.load_config(write(text))
