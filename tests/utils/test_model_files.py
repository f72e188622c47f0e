"""Files and folders to share models: every bit and fact comes back, and errors name the file or the model."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from modules.formats.ours import joined, read_checkpoint
from utils.weights.model_files import locate, write_model_file, write_model_folder

CONTENT = {
    "epoch": 4,
    "model_state_dict": {"logit_scale": torch.tensor(4.6), "visual.proj": torch.arange(6.0).view(2, 3).T},
    "fusion_model_state_dict": {"spe_cls_feature": torch.ones(2, 3, dtype=torch.float16)},
    "optimizer_state_dict": {"state": {0: torch.ones(2)}},
    "merged": True,
    "config": "network:\n  merge_temperatures:\n  - 1.5\n  - .inf\n",
    "class_names": ["a", "ü"],
    "towers": {"image_size": 32, "pixel_mean": [0.5, 0.5, 0.5]},
}


def assert_content(found: dict) -> None:
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert found[part].keys() == CONTENT[part].keys()
        for name, value in CONTENT[part].items():
            assert torch.equal(found[part][name], value)
            assert found[part][name].dtype == value.dtype
    assert [found[name] for name in ("epoch", "merged", "class_names")] == [4, True, ["a", "ü"]]
    assert found["towers"] == CONTENT["towers"]
    assert found["optimizer_state_dict"] == {}


def test_a_file_comes_back(tmp_path):
    write_model_file(tmp_path / "m.safetensors", joined(CONTENT), CONTENT)
    found = read_checkpoint(tmp_path / "m.safetensors")
    assert_content(found)
    assert found["config"] == CONTENT["config"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_folder_comes_back_and_its_json_is_plain(tmp_path):
    write_model_folder(tmp_path / "model", joined(CONTENT), CONTENT)
    found = read_checkpoint(tmp_path / "model")
    assert_content(found)
    facts = json.loads((tmp_path / "model" / "config.json").read_text(), parse_constant=pytest.fail)
    assert facts["config"]["network"]["merge_temperatures"] == [1.5, "inf"]


def test_the_folder_s_config_file_counts(tmp_path):
    write_model_folder(tmp_path, joined(CONTENT), CONTENT)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(facts | {"class_names": ["other"]}))
    assert read_checkpoint(tmp_path)["class_names"] == ["other"]


def test_what_is_missing_or_not_ours_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.safetensors: no such file"):
        read_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors: no such file"):
        read_checkpoint(tmp_path)
    write_model_folder(tmp_path, joined(CONTENT), CONTENT)
    for text, error in (("{", "not JSON"), ("[]", "expected keys"), ('{"config": 1}', "expected keys")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config.json: {error}"):
            read_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json: no such file"):
        read_checkpoint(tmp_path)


def test_other_safetensors_are_told_apart(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"visual.proj": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"x.safetensors: expected tensors clip.\*, head.\*, .*found visual.proj"):
        read_checkpoint(path)
    save_file({"clip.visual.proj": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"x.safetensors: expected metadata under 'mote'"):
        read_checkpoint(path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x.safetensors: not readable"):
            read_checkpoint(path)


def test_a_model_id_has_an_owner_and_a_name():
    for name in ("hf://model", "hf://a/b/c", "hf://a/b c"):
        with pytest.raises(ValueError, match=rf"{name}: "):
            locate(name)


READ = """
from modules.formats.ours import read_checkpoint
from utils.cli import run_main
run_main(lambda: print(read_checkpoint("hf://me/model")["class_names"]))
"""


def read_in_a_process(repo_root, **environment: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(repo_root)} | environment
    return subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=False)


def test_a_model_in_the_hub_s_cache_is_read_offline(repo_root, tmp_path):
    revision = "0" * 40
    cached = tmp_path / "hub" / "models--me--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots").mkdir()
    write_model_folder(cached / "snapshots" / revision, joined(CONTENT), CONTENT)
    result = read_in_a_process(repo_root, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1", PYTHONIOENCODING="utf-8")
    assert result.stdout.strip() == "['a', 'ü']", result.stderr


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_the_hub_the_error_is_one_line(environment, repo_root, tmp_path):
    result = read_in_a_process(repo_root, HF_HOME=str(tmp_path), **environment)
    assert result.returncode == 2
    assert result.stderr == "error: hf://me/model: not in the cache, and the Hub cannot be reached\n"
