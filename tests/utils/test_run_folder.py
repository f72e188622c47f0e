"""Run folders: names, what they record, and that no run is overwritten."""

import json
import platform

import pytest
import torch

from utils.run_folder import check_run_folder, create_run_folder, environment, folder_name, launch_id, run_folder


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("ViT-B/16", "ViT-B-16"),
        ("ViT-L/14@336px", "ViT-L-14@336px"),
        ("ViT-B-16/laion2b_s34b_b88k", "ViT-B-16-laion2b_s34b_b88k"),
        ("some/folder/tiny_clip.pt", "tiny_clip"),
    ],
)
def test_an_architecture_is_one_folder_name(arch, name):
    assert folder_name(arch) == name


def test_a_run_folder_records_configuration_and_versions(tmp_path):
    folder = tmp_path / "exps" / "debug" / "run"
    create_run_folder(folder, "seed: 3\n")
    assert (folder / "config.yaml").read_text() == "seed: 3\n"
    found = json.loads((folder / "environment.json").read_text())
    assert found == environment() | {"launch": launch_id()}
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"])  # which may add the CUDA version
    assert found["git_sha"] is None or len(found["git_sha"]) == 40


def test_a_folder_with_a_run_is_not_overwritten_unless_it_is_continued(tmp_path):
    check_run_folder(tmp_path, may_continue=False)
    create_run_folder(tmp_path, "seed: 1\n")
    (tmp_path / "last_model.pt").write_bytes(b"weights")
    with pytest.raises(FileExistsError, match=r"already holds a run.*resume=auto.*remove it"):
        check_run_folder(tmp_path, may_continue=False)
    check_run_folder(tmp_path, may_continue=True)
    create_run_folder(tmp_path, "seed: 2\n")
    assert (tmp_path / "config.yaml").read_text() == "seed: 2\n"
    assert (tmp_path / "last_model.pt").read_bytes() == b"weights"


def test_a_run_stopped_before_its_first_checkpoint_is_not_overwritten_either(tmp_path):
    create_run_folder(tmp_path, "seed: 1\n")
    with pytest.raises(FileExistsError, match="remove it"):
        check_run_folder(tmp_path, may_continue=False)


@pytest.mark.parametrize(("dataset", "name"), [("k400", "../up"), ("k400", "/"), ("k400", "."), ("../k400", "a")])
def test_a_run_stays_below_the_output_path(dataset, name):
    with pytest.raises(ValueError, match=r"below exps, found"):
        run_folder("exps", dataset, "ViT-B/16", name)
    assert run_folder("exps", "k400", "ViT-B/16", "few_shot/a").as_posix() == "exps/k400/ViT-B-16/few_shot/a"


def test_a_model_folder_gives_its_name(tmp_path):
    (tmp_path / "clip-vit.base").mkdir()
    (tmp_path / "clip-vit.base" / "config.json").write_text("{}")
    assert folder_name(f"{tmp_path}/clip-vit.base/") == "clip-vit.base"
