"""The built-in shapes set: classes, rendering, and the files that are written."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.decode.pyav_reader import PyAVReader
from datasets.shapes.__main__ import main, write_shapes
from datasets.shapes.paths import poses
from datasets.shapes.pictures import ATTRIBUTES, draw_pictures
from datasets.shapes.render import render
from datasets.shapes.scenes import sample_scenes
from datasets.shapes.videos import ShapesSpec, render_video, videos_of
from datasets.shapes.world import (
    LABEL_SETS,
    MOTION_PAIRS,
    MOTION_SIGNS,
    MOTIONS,
    OBJECTS,
    PARTS,
    SEEN_OBJECTS,
    classes_of,
    label_set_of,
)

ROOT = Path(__file__).resolve().parents[2]
SPEC = ShapesSpec(seed=3, scale=0.02)  # one video per class
SIZE = (64, 64)
DEMO_FACTS = (
    ("train", 0, (64.65, 24.4, 56.78), (25, 33, 65)),
    ("train", 801, (111.51, 107.23, 68.75), (131, 117, 61)),
    ("val", 100, (41.48, 112.51, 99.93), (20, 122, 100)),
    ("zs_objects", 33, (72.11, 45.09, 66.08), (34, 255, 193)),
    ("zs_style", 77, (195.35, 161.7, 167.73), (33, 46, 107)),
)


@pytest.fixture(scope="module")
def shapes_root(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes"), SPEC)


@pytest.mark.slow
def test_the_command_writes_the_same_set_in_several_processes(shapes_root, tmp_path):
    command = [sys.executable, "-m", "datasets.shapes", "--seed", "3", "--scale", "0.02", "--workers", "2"]
    subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    assert contents(tmp_path) == contents(shapes_root)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_zero_shot_classes_are_not_seen_classes():
    seen = set(classes_of("seen"))
    assert all(seen.isdisjoint(classes_of(name)) for name in LABEL_SETS if name != "seen")


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_a_label_set_has_distinct_names_and_both_motions_of_each_pair(label_set):
    classes = classes_of(label_set)
    assert len({shape_class.name for shape_class in classes}) == len(classes)
    twins = [shape_class._replace(motion_id=shape_class.motion_id ^ 1) for shape_class in classes]
    assert set(twins) == set(classes)


def test_unseen_combinations_have_seen_objects_and_seen_motions():
    seen, unseen = classes_of("seen"), classes_of("zs_combinations")
    assert {c.object_id for c in unseen} <= {c.object_id for c in seen}
    assert {c.motion_id for c in unseen} <= {c.motion_id for c in seen}


def test_unseen_objects_have_seen_motions():
    unseen = classes_of("zs_objects")
    assert {OBJECTS[c.object_id] for c in unseen}.isdisjoint(SEEN_OBJECTS)
    assert {c.motion_id for c in unseen} <= {c.motion_id for c in classes_of("seen")}


def test_motions_of_a_pair_have_opposite_signs():
    for first, second in MOTION_PAIRS.values():
        np.testing.assert_array_equal(first[1:], -np.array(second[1:]))
    assert len(MOTION_SIGNS) == len(MOTIONS)


@pytest.mark.parametrize("pair", MOTION_PAIRS)
@pytest.mark.parametrize("is_poster", [False, True])
def test_a_pair_visits_the_same_poses_in_opposite_order_and_has_the_same_mean_frame(pair, is_poster):
    instants = np.linspace(-0.5, 0.5, 17, dtype=np.float32)[None]
    clips, paths = [], []
    for motion in MOTION_PAIRS[pair]:
        generator = np.random.default_rng(5)
        motion_ids = np.array([MOTIONS.index(motion)])
        scenes = sample_scenes(np.array([0]), motion_ids, np.array([is_poster]), generator)
        paths.append(poses(scenes, np.zeros(17, dtype=int), instants[0]))
        clips.append(render(scenes, instants, np.zeros_like(instants), SIZE, generator)[0].astype(float))
    np.testing.assert_allclose(paths[0], paths[1][::-1], atol=1e-5)
    # What is left is only clutter that the object covers at other moments.
    assert np.abs(clips[0].mean(axis=0) - clips[1].mean(axis=0)).mean() < 3
    assert np.abs(clips[0][0] - clips[1][0]).mean() > 3


def test_objects_stay_in_the_picture():
    generator = np.random.default_rng(0)
    motion_ids = np.arange(2000) % len(MOTIONS)
    scenes = sample_scenes(np.zeros(2000, dtype=int), motion_ids, np.zeros(2000, dtype=bool), generator)
    for instant in (-0.5, 0.5):
        pose = poses(scenes, np.arange(2000), np.full(2000, instant, dtype=np.float32))
        assert np.abs(pose[:, :2]).max() < 0.85  # the centre; 1 is the picture's edge
        assert pose[:, 3].min() > 0.2
        assert pose[:, 3].max() < 1.0


def test_a_hint_changes_a_frame_only_around_the_object():
    generator = np.random.default_rng(1)
    scenes = sample_scenes(np.array([0]), np.array([0]), np.array([False]), generator)
    instants = np.zeros((1, 2), dtype=np.float32)
    opacity = np.array([[0.0, 0.5]], dtype=np.float32)
    plain, hinted = render(scenes, instants, opacity, SIZE, np.random.default_rng(0))[0].astype(float)
    changed = np.abs(plain - hinted).max(axis=2) > 60
    assert 0.005 < changed.mean() < 0.3


def test_a_video_depends_on_seed_part_and_index_only():
    first, second = videos_of("train", SPEC)[:2]
    np.testing.assert_array_equal(render_video(first, seed=3), render_video(first, seed=3))
    for other, seed in ((second, 3), (first, 4), (videos_of("val", SPEC)[0], 3)):
        assert not np.array_equal(render_video(first, seed=3)[0], render_video(other, seed)[0])


@pytest.mark.parametrize("part", PARTS)
def test_lists_name_readable_videos_with_labels_of_their_class(shapes_root, part):
    with open(shapes_root / "lists" / f"{label_set_of(part)}_labels.csv", newline="") as file:
        names = {int(row["id"]): row["name"] for row in csv.DictReader(file)}
    lines = (shapes_root / "lists" / f"{part}.txt").read_text().splitlines()
    assert len(lines) == len(videos_of(part, SPEC)) == len(names)
    for line, video in zip(lines, videos_of(part, SPEC), strict=True):
        path, label = line.rsplit(maxsplit=1)
        assert names[int(label)] == Path(path).parent.name
        assert names[int(label)] == video.shape_class.name
        assert (shapes_root / "videos" / path).is_file()


@pytest.mark.parametrize("part", PARTS)
def test_files_decode_to_the_rendered_frames(shapes_root, part):
    video = videos_of(part, SPEC)[-1]
    decoded = PyAVReader(shapes_root / "videos" / video.path)
    rendered = render_video(video, SPEC.seed)
    frames = decoded.read(np.arange(decoded.num_frames)).permute(0, 2, 3, 1).numpy()
    assert frames.shape == rendered.shape
    assert np.abs(frames.astype(float) - rendered).mean() < 20  # noise and colour are compressed away


def test_a_killed_run_is_completed_to_the_same_files(shapes_root, tmp_path):
    expected = contents(shapes_root)
    write_shapes(tmp_path, SPEC)
    (tmp_path / "complete.json").unlink()
    (tmp_path / "lists" / "val.txt").unlink()
    for video in videos_of("zs_style", SPEC)[::2]:
        (tmp_path / "videos" / video.path).unlink()
    video_folder = videos_of("train", SPEC)[0].shape_class.name
    (tmp_path / "videos" / "train" / video_folder / ".half.mp4.1.part").write_bytes(b"half a video")
    write_shapes(tmp_path, SPEC)
    assert contents(tmp_path) == expected


def test_a_finished_set_is_reused(shapes_root):
    before = {path: path.stat().st_mtime_ns for path in shapes_root.rglob("*")}
    write_shapes(shapes_root, SPEC)
    assert {path: path.stat().st_mtime_ns for path in shapes_root.rglob("*")} == before


def test_a_folder_with_another_set_is_refused(shapes_root):
    with pytest.raises(ValueError, match=r"was made with other settings: .*seed was 3, is 4"):
        main(["--out", str(shapes_root), "--seed", "4"])
    assert json.loads((shapes_root / "spec.json").read_text())["seed"] == SPEC.seed


def test_pictures_cover_every_attribute_and_repeat_with_the_generator():
    pictures = draw_pictures(600, np.random.default_rng(0), (32, 32))
    assert pictures.frames.shape == (600, 32, 32, 3)
    for column, names in zip(pictures.attributes.T, ATTRIBUTES, strict=True):
        assert set(column) == set(range(len(names)))
    again = draw_pictures(600, np.random.default_rng(0), (32, 32))
    np.testing.assert_array_equal(pictures.frames, again.frames)


def test_the_demo_s_videos_are_what_they_always_were():
    # Means of colours, and the middle pixel of the first frame: other draws, or in another order, would give others.
    for part, index, mean, pixel in DEMO_FACTS:
        frames = render_video(videos_of(part, ShapesSpec())[index], seed=0)
        np.testing.assert_allclose(frames.mean(axis=(0, 1, 2)), mean, atol=0.02)
        np.testing.assert_allclose(frames[0, 20, 30], pixel, atol=1)
