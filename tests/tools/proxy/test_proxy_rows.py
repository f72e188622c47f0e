"""Rows of the proxy world's table: settings that can be trained, and a plan that pairs them."""

import argparse
from pathlib import Path

import pytest

from datasets.clips.presets import OWN_PRESET
from modules.build import load_config
from modules.check import check_network
from tools.proxy.rows import (
    ALL,
    CONFIGS,
    FIRST_SEED,
    FORMS,
    GROUPS,
    Planned,
    _clips,
    main,
    plan,
    rows_of,
    runs_of,
)

ROWS = {row.name: row for group in GROUPS.values() for row in group.rows}
needs_world = pytest.mark.skipif(not CONFIGS.is_dir(), reason="the world's configurations are not here yet")


@needs_world
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_is_a_configuration_that_can_be_trained_and_tested(row, repo_root, monkeypatch):
    monkeypatch.chdir(repo_root)
    planned = Planned(row, clip=0, seed=FIRST_SEED)
    check_network(load_config(planned.config, planned.overrides))
    for form in row.forms:
        config = load_config(planned.config, [*planned.overrides, *FORMS[form]])
        check_network(config)
        assert config.network.system == row.system
        assert config.eval.weight_average == (0.5 if form in ("average", "both") else 1.0)
        if row.system == "mote":
            assert config.sections["mote"].modulation is (form in ("modulation", "both"))


@needs_world
def test_rows_that_are_compared_have_one_schedule(repo_root, monkeypatch):
    monkeypatch.chdir(repo_root)
    found = {}
    for name, row in ROWS.items():
        planned = Planned(row, clip=0, seed=FIRST_SEED)
        config = load_config(planned.config, planned.overrides)
        solver = config.solver
        schedule = solver.type, solver.epochs, solver.lr, solver.clip_ratio, solver.lr_warmup_step, solver.weight_decay
        data = config.data
        pictures = data.num_segments, data.transforms or OWN_PRESET, data.crop_area
        found[name] = (*schedule, *pictures, data.batch_size, config.seed)
    others = {name for name, what in found.items() if what != found["mote"]}
    whose_idea_it_is = {"plain_low_rate", "mote_low_rate", "mote_low_distill", "mote_high_rate"}
    whose_idea_it_is |= {"mote_long", "mote_long_distill", "mote_randaug_long"}
    assert others == whose_idea_it_is


def test_every_row_has_a_name_of_its_own_and_a_reference_that_is_a_row():
    names = [row.name for group in GROUPS.values() for row in group.rows]
    assert len(names) == len(set(names))
    assert {row.reference for row in ROWS.values()} - {""} <= set(names)
    assert set(ALL) <= set(GROUPS)


def test_the_plan_has_every_row_with_the_same_seeds_and_the_pretrained_model_once():
    planned = plan(rows_of("short"), clips=(0, 1), seeds=2, half="dev")
    named = [(each.clip, each.name) for each in planned]
    assert named == [
        (0, "frozen"), (0, "plain_1024"), (0, "mote_1024"), (1, "frozen"), (1, "plain_1024"), (1, "mote_1024"),
        (0, "plain_1025"), (0, "mote_1025"), (1, "plain_1025"), (1, "mote_1025"),
    ]  # fmt: skip
    assert len({each.results for each in planned}) == len(planned)
    assert all("dev" in each.results.parts for each in planned)


def test_runs_that_are_paired_stand_at_the_same_places():
    frozen, mote = (runs_of(ROWS[name], (0, 1), 3, "final") for name in ("frozen", "mote"))
    assert [(run.clip, run.seed) for run in frozen] == [(run.clip, run.seed) for run in mote]
    assert len({run.results for run in frozen}) == 2
    assert len({run.results for run in mote}) == 6


def test_rows_are_asked_for_by_names_and_groups():
    assert [row.name for row in rows_of("mote short")] == ["mote", "frozen", "plain"]
    assert {row.name for row in rows_of("all")} == {row.name for group in ALL for row in GROUPS[group].rows}
    with pytest.raises(ValueError, match=r"--rows: expected all, short, .* found 'shrt'"):
        rows_of("shrt")


@pytest.mark.parametrize("text", ["", "a", "0,1", "-1"])
def test_clips_are_numbers(text):
    assert _clips("0 1 0") == (0, 1)
    with pytest.raises(argparse.ArgumentTypeError, match="expected numbers like '0 1'"):
        _clips(text)


def test_the_script_gets_a_line_for_each_run(small_world, capsys):
    main(["--rows", "short", "--seeds", "1", "--half", "dev"])
    frozen, plain, _ = (line.split("|") for line in capsys.readouterr().out.splitlines())
    assert frozen[:5] == ["frozen", "0", "1024", "configs/proxy/mote.yaml", ""]
    assert plain[4:6] == ["exps/proxy/proxy/clip_0/plain_1024", "exps/proxy/results/dev/clip_0/plain_1024"]
    assert {"seed=1024", "network.arch=exps/proxy/clip_0.pt", "network.num_experts=0"} <= set(plain[6].split())
    assert Path(plain[3]).is_file()


def test_the_rows_that_every_page_needs_are_always_planned(small_world, capsys):
    main(["--rows", "no_mse", "--seeds", "1"])
    rows = [line.split("|")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["frozen", "plain", "mote", "no_mse"]
