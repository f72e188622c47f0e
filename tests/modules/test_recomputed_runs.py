"""network.recompute: who recomputes what, and that a run ends with the same weights."""

from collections import Counter

import pytest
import torch

from clip.blocks import LIGHT, NONE, RECOMPUTE
from engine.train import train
from modules.build import load_config
from modules.check import check_network
from modules.recompute import default_recompute
from utils.distributed import process_group


@pytest.fixture
def build(debug_config, tmp_path, fp32, prepare_run):
    """Prepare a run of the debug configuration; overrides as on the command line."""

    def build(*overrides: str, name: str = "run"):
        small = ["data.num_segments=2", "network.templates=single", "network.temporal_layer=1", "solver.epochs=1"]
        return prepare_run(load_config(debug_config, [f"data.output_path={tmp_path}", *small, *overrides]), fp32, name)

    return build


def test_a_gpu_recomputes_lightly_where_a_configuration_says_nothing():
    assert default_recompute(torch.device("cuda", 0)) == LIGHT
    assert default_recompute(torch.device("cpu")) == NONE


@pytest.mark.parametrize("name", ["", *RECOMPUTE])
def test_all_blocks_of_towers_and_head_do_what_the_configuration_says(build, name):
    system = build(f"network.recompute={name}", "network.fix_text=false")[0].model
    assert Counter(block.recompute for block in system.blocks()) == {name or NONE: len(system.blocks())}
    assert len(system.blocks()) == 2 + 1 + 1


def test_an_unknown_name_is_an_error_that_lists_the_known(debug_config):
    with pytest.raises(
        ValueError, match=r"network\.recompute: expected one of none, light, medium, full, found 'most'"
    ):
        check_network(load_config(debug_config, ["network.recompute=most"]))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_ends_with_the_same_weights_whatever_it_recomputes(build, monkeypatch, strategy):
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(key, value)
    ends = []
    with process_group(60):
        for name in RECOMPUTE:
            state, run = build(f"network.recompute={name}", f"solver.strategy={strategy}", name=name)
            train(state, run)
            ends.append(torch.load(run.folder / "last_model.pt", weights_only=True))
    expected, *others = ends
    assert expected["optimizer_state_dict"]["state"][0]["step"] == 3
    for found in others:
        for part in ("model_state_dict", "fusion_model_state_dict"):
            assert all(torch.equal(found[part][key], value) for key, value in expected[part].items())
