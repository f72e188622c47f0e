"""The files of the second world: the command, the lists, and the bits."""

import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from datasets.decode.pyav_reader import PyAVReader
from datasets.shapes.__main__ import main, write_shapes
from datasets.shapes.proxy.world import PARTS, label_set_of
from datasets.shapes.videos import ShapesSpec, encode_video
from datasets.shapes.worlds import WORLDS, ProxySpec
from modules.build import load_config
from utils.files import claim_folder

ROOT = Path(__file__).resolve().parents[2]
PROXY = WORLDS["proxy"]
SPEC = ProxySpec(seed=3, scale=0.01)  # one video per class


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return main(["--world", "proxy", "--out", str(tmp_path_factory.mktemp("proxy")), "--seed", "3", "--scale", "0.01",
                 "--workers", "0"])  # fmt: skip


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_run_is_completed_to_the_same_files_in_several_processes(root, tmp_path):
    write_shapes(tmp_path, SPEC, world=PROXY)
    (tmp_path / "complete.json").unlink()
    for video in PROXY.videos_of("final_styles", SPEC)[::2]:
        (tmp_path / "videos" / video.path).unlink()
    write_shapes(tmp_path, SPEC, 2, PROXY)
    assert contents(tmp_path) == contents(root)


@pytest.mark.slow
def test_lists_name_readable_videos_with_labels_of_their_class(root):
    for part in PARTS:
        with open(root / "lists" / f"{label_set_of(part)}_labels.csv", newline="") as file:
            names = {int(row["id"]): row["name"] for row in csv.DictReader(file)}
        lines = (root / "lists" / f"{part}.txt").read_text().splitlines()
        assert len(lines) == len(names)
        for line in lines:
            path, label = line.rsplit(maxsplit=1)
            assert names[int(label)] == Path(path).parent.name
            assert (root / "videos" / path).is_file()


def test_files_decode_to_the_rendered_frames_and_repeat(tmp_path):
    video = PROXY.videos_of("dev_colours", SPEC)[4]
    encode_video(PROXY.render_video(video, SPEC.seed), tmp_path / "video.mp4")
    decoded = PyAVReader(tmp_path / "video.mp4")
    frames = decoded.read(np.arange(decoded.num_frames)).permute(0, 2, 3, 1).numpy()
    rendered = PROXY.render_video(video, SPEC.seed)
    assert frames.shape == rendered.shape
    assert np.abs(frames.astype(float) - rendered).mean() < 20  # noise and colour are compressed away
    np.testing.assert_array_equal(PROXY.render_video(video, SPEC.seed), rendered)
    assert not np.array_equal(PROXY.render_video(video, SPEC.seed + 1)[:8], rendered[:8])


def test_a_folder_of_one_world_is_refused_by_the_other(tmp_path):
    claim_folder(tmp_path / "spec.json", asdict(SPEC))
    with pytest.raises(ValueError, match="was made with other settings"):
        write_shapes(tmp_path, ShapesSpec(seed=3, scale=0.01))


def test_films_are_the_demo_s(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--world", "proxy", "--films", "--out", str(tmp_path)])
    assert "--films: there are none in the world proxy" in capsys.readouterr().err


@pytest.mark.parametrize("label_set", PROXY.label_sets)
def test_there_is_a_configuration_of_each_label_set(label_set):
    base = "mote" if label_set == "seen" else label_set
    config = load_config(ROOT / "configs" / "proxy" / f"{base}.yaml")
    assert config.data.label_list == f"exps/proxy/data/lists/{label_set}_labels.csv"
    part = "val" if label_set == "seen" else label_set
    assert config.data.val_list == f"exps/proxy/data/lists/{part}.txt"
    assert config.network.arch == "exps/proxy/clip_0.pt"
