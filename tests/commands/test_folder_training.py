"""Fine-tuning on a folder per class: no list files, the same split in every command, and clear errors."""

import runpy
import shutil
from pathlib import Path

import pytest
import yaml

import train
from datasets.lists.labels import read_class_names
from datasets.lists.records import read_video_list
from modules.build import load_config
from tools.make_debug_data import CLASS_NAMES

QUICK = ["--precision", "fp32", "solver.epochs=1"]


@pytest.fixture(scope="module")
def folder(debug_data, tmp_path_factory) -> Path:
    """The debug videos, five a class, in a folder per class."""
    root = tmp_path_factory.mktemp("my videos")
    for part in ("train", "val"):
        for line in (debug_data / f"{part}.txt").read_text().splitlines():
            name, label = line.rsplit(maxsplit=1)
            (root / CLASS_NAMES[int(label)].replace(" ", "_")).mkdir(exist_ok=True)
            shutil.copy(debug_data / "videos" / name, root / CLASS_NAMES[int(label)].replace(" ", "_") / name)
    return root


@pytest.fixture(scope="module")
def config(debug_config, folder, tmp_path_factory) -> Path:
    """configs/custom.yaml over the debug configuration's sizes."""
    tree = yaml.safe_load(debug_config.read_text())
    custom = yaml.safe_load((Path(__file__).parents[2] / "configs" / "custom.yaml").read_text())
    tree["data"] |= custom["data"] | {"folder": str(folder), "batch_size": 4, "workers": 0}
    path = tmp_path_factory.mktemp("configs") / "custom.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def run(config) -> Path:
    """Run folder of one epoch."""
    train.main(["--config", str(config), "--log_time", "first", *QUICK])
    return Path(yaml.safe_load(config.read_text())["data"]["output_path"], "custom", "tiny_clip", "first")


def test_training_needs_only_a_folder_and_keeps_the_lists_it_used(run, folder):
    names = read_class_names(run / "labels.csv")
    assert names == sorted(CLASS_NAMES)
    parts = {part: read_video_list(run / f"{part}.txt", folder, "video", 4, key=part) for part in ("train", "val")}
    assert sorted(parts["train"].labels.tolist()) == sorted(list(range(4)) * 4)
    assert sorted(parts["val"].labels.tolist()) == list(range(4))
    for videos in parts.values():
        for index in range(len(videos)):
            assert Path(videos.path(index)).parent.name.replace("_", " ") == names[videos.labels[index]]
            assert (folder / videos.path(index)).is_file()


def test_a_test_takes_the_validation_part_with_any_seed(run, config, folder, repo_root, tmp_path):
    test = runpy.run_path(str(repo_root / "test.py"))["main"]
    weights = ["--weights", str(run / "last_model.pt"), "--output", str(tmp_path), "--precision", "fp32"]
    results = test(["--config", str(config), *weights, "seed=7"])
    held_out = read_video_list(run / "val.txt", folder, "video", 4, key="val")
    assert results["num_videos"] == 4
    assert results["list_fingerprint"] == held_out.fingerprint()
    assert test(["--config", str(run / "config.yaml"), *weights])["list_fingerprint"] == held_out.fingerprint()


def test_given_train_and_val_folders_are_used(config, folder, tmp_path):
    for name in (path.name for path in folder.iterdir()):
        videos = sorted((folder / name).iterdir())
        for part, chosen in (("train", videos[:3]), ("val", videos[3:])):
            (tmp_path / part / name).mkdir(parents=True)
            for video in chosen:
                shutil.copy(video, tmp_path / part / name)
    train.main(["--config", str(config), "--log_time", "given", *QUICK,
                f"data.folder={tmp_path}", f"data.output_path={tmp_path / 'runs'}"])  # fmt: skip
    run = tmp_path / "runs" / "custom" / "tiny_clip" / "given"
    for part, count in (("train", 12), ("val", 8)):
        lines = (run / f"{part}.txt").read_text().splitlines()
        assert len(lines) == count
        assert all(line.startswith(f"{part}/") for line in lines)


def test_a_run_is_not_resumed_with_other_videos(config, folder, tmp_path):
    videos = shutil.copytree(folder, tmp_path / "videos")
    arguments = ["--config", str(config), "--log_time", "changing", *QUICK, f"data.folder={videos}",
                 f"data.output_path={tmp_path / 'runs'}"]  # fmt: skip
    train.main(arguments)
    train.main([*arguments, "resume=auto"])  # unchanged
    (videos / "a_bar_moving_up" / "new.mp4").touch()
    with pytest.raises(ValueError, match=r"data\.folder .*no longer those of .*\.txt"):
        train.main([*arguments, "resume=auto"])


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data.folder={folder}/nowhere", FileNotFoundError, r"nowhere: no such folder"),
        ("data.train_list=a.txt", ValueError, r"data\.folder takes the place of data\.train_list"),
        ("data.label_list=a.csv", ValueError, r"data\.folder takes the place of data\.label_list"),
        ("data.num_classes=5", ValueError, r"data\.num_classes is 5, but .* holds 4 classes"),
        ("data.modality=RGB", ValueError, r"data\.folder holds video files, but data\.modality is RGB"),
        ("data.folder=", ValueError, r"data\.label_list is not set: .*data\.folder"),
        ("data.val_share=1", ValueError, r"data\.val_share: expected 0\.01 to 0\.99"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_clear_error(config, folder, override, error, message):
    with pytest.raises(error, match=message):
        train.main(["--config", str(config), "--log_time", "error", *QUICK, override.format(folder=folder)])


def test_the_shipped_configuration_names_no_lists(repo_root):
    data = load_config(repo_root / "configs" / "custom.yaml").data
    assert not any((data.train_list, data.val_list, data.train_root, data.val_root, data.label_list, data.num_classes))
