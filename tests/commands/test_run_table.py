"""scripts/run_table.sh: towers one after the other, their table, and what cannot be tested told."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.clip.members import description, reference_of, save_member

pytestmark = pytest.mark.slow
CLIP_S_TOKENS = {"hf_tokenizer_name": None, "tokenizer_kwargs": None, "vocab_size": 49408}


def test_a_table_of_two_towers_and_one_that_is_not_there(repo_root, debug_config, tmp_path):
    tags = []
    for family in ("DFN", "CLIPA"):  # neither needs timm, so the processes of the script have them as small
        tree = description(family)
        tree["model_cfg"]["text_cfg"] |= CLIP_S_TOKENS if family == "CLIPA" else {}
        tags.append(save_member(tmp_path / family, tree, reference_of(tree)))
    config = yaml.safe_load(debug_config.read_text())
    config["data"]["input_size"] = 224  # the towers' own, 32, counts
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "NAME": str(tmp_path / "table")}
    environment["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{environment['PATH']}"
    command = ["bash", str(repo_root / "scripts" / "run_table.sh"), " ".join([*tags, f"local-dir:{tmp_path / 'none'}"])]
    command += [f"{tmp_path}/one.yaml {tmp_path}/two.yaml", "--precision", "fp32"]
    done = subprocess.run(command, env=environment, cwd=repo_root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected open_clip_config.json in the folder" in done.stderr
    lines = (tmp_path / "table" / "table.md").read_text().splitlines()
    assert lines[2] == "| tower | one | two | mean |"
    assert [line.split("`")[1] for line in lines[4:]] == [*tags, f"local-dir:{tmp_path / 'none'}"]
    assert lines[-1].endswith("| failed | failed | failed |")
    again = subprocess.run(command, env=environment, cwd=repo_root, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "wrote" in again.stdout
    other = subprocess.run(
        [*command, "seed=3"], env=environment, cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert other.returncode == 2
    assert "holds results of other arguments" in other.stderr
