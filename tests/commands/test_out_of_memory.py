"""A GPU's memory that does not suffice is one line of what would need less."""

import pytest
import torch

import train
from utils.cli import run_main


@pytest.mark.parametrize(("recompute", "advice"), [("light", ", or network.recompute=medium or full"), ("full", "")])
def test_out_of_memory_names_batch_recomputation_and_accumulation(
    debug_config, tmp_path, monkeypatch, capsys, recompute, advice
):
    def too_much(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")

    monkeypatch.setattr("engine.train.train_step", too_much)
    argv = ["--config", str(debug_config), "--precision", "fp32", f"data.output_path={tmp_path}"]
    argv += [f"network.recompute={recompute}", "solver.grad_accumulation_steps=2", "network.templates=single"]
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: train.main(argv))
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: out of memory on cpu: data.batch_size 4, network.recompute {recompute}, "
        f"solver.grad_accumulation_steps 2; try half the batch with twice the accumulation{advice} "
        "(CUDA out of memory. Tried to allocate 2.00 GiB.)"
    )
