"""The second built-in world: what its parts hold, and what is true of its pictures."""

import numpy as np
import pytest

from datasets.shapes.paths import poses
from datasets.shapes.proxy import pictures, world
from datasets.shapes.proxy.looks import sample_looks
from datasets.shapes.proxy.outlines import distance_table
from datasets.shapes.proxy.render import _mosaic, render
from datasets.shapes.proxy.videos import complete
from datasets.shapes.proxy.world import ANY, HALVES, KINDS, LABEL_SETS, OBJECTS, PHOTO, SCENES, STYLES, classes_of
from datasets.shapes.world import MOTION_PAIRS, MOTIONS, SEEN_OBJECTS
from datasets.shapes.worlds import WORLDS, ProxySpec

PROXY = WORLDS["proxy"]
SPEC = ProxySpec(seed=0, scale=1.0)


def objects_of(label_set):
    return {OBJECTS[shown.object_id] for shown in classes_of(label_set)}


def test_development_and_final_half_have_no_object_in_common_with_each_other_or_with_training():
    halves = {half: set().union(*(objects_of(f"{half}_{kind}") for kind in KINDS)) for half in HALVES}
    seen = objects_of("seen")
    assert seen == set(SEEN_OBJECTS)
    assert seen.isdisjoint(halves["dev"] | halves["final"])
    assert halves["dev"].isdisjoint(halves["final"])
    assert len(halves["dev"]) == len(halves["final"]) == 12


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_classes_have_names_of_their_own(label_set):
    names = [shown.name for shown in classes_of(label_set)]
    assert len(set(names)) == len(names) >= 12
    assert not any("{" in name or "  " in name for name in names)


def test_names_say_what_a_class_fixes():
    assert classes_of("dev_scenes")[0].name == "a drop on grass"
    assert classes_of("dev_colours")[2].name == "a green lightning bolt"
    assert classes_of("final_objects")[0].name == "a ring moving left"
    assert world.ProxyClass(OBJECTS.index("arrow"), colour_id=1).name == "an orange arrow"


def test_the_halves_ask_the_same_of_different_objects():
    for kind in KINDS:
        of_half = [[shown._replace(object_id=0) for shown in classes_of(f"{half}_{kind}")] for half in HALVES]
        assert [s._replace(colour_id=0) for s in of_half[0]] == [s._replace(colour_id=0) for s in of_half[1]]


def test_colours_are_not_the_usual_ones():
    for half in HALVES:
        assert all(c.colour_id != world.usual_colour(c.object_id) for c in classes_of(f"{half}_colours"))


def test_each_seen_object_has_a_time_reversed_pair_and_two_single_directions():
    pair_of = {MOTIONS.index(motion): name for name, pair in MOTION_PAIRS.items() for motion in pair}
    for number in range(len(SEEN_OBJECTS)):
        pairs = [pair_of[c.motion_id] for c in classes_of("seen") if c.object_id == number]
        assert sorted(pairs.count(name) for name in set(pairs)) == [1, 1, 2]


def shown_in(part):
    for video in PROXY.videos_of(part, SPEC):
        yield complete(video, np.random.default_rng(video.index))


@pytest.mark.parametrize("part", ["train", "val"])
def test_seen_videos_are_photos_of_four_scenes_mostly_at_home(part):
    shown = list(shown_in(part))
    assert {style for _, style in shown} == {PHOTO}
    assert {s.scene_id for s, _ in shown} == set(world.SEEN_SCENES)
    home = np.mean([s.scene_id == world.home_scene(s.object_id) for s, _ in shown])
    assert 0.7 < home < 0.85  # 70 %, and a quarter of the rest


def test_only_styles_are_not_photos_and_what_a_class_leaves_open_is_drawn():
    for kind in KINDS:
        shown = list(shown_in(f"dev_{kind}"))
        styles = {style for _, style in shown}
        assert styles == (set(world.OTHER_STYLES) if kind == "styles" else {PHOTO})
        assert {s.scene_id for s, _ in shown} == set(range(len(SCENES)))
        assert all(s.motion_id != ANY for s, _ in shown)
    assert {s.motion_id for s, _ in shown_in("dev_scenes")} == set(range(len(MOTIONS)))


def test_objects_keep_their_usual_looks_in_four_of_five_and_no_two_share_them():
    usual = {(world.usual_colour(i), world.usual_texture(i)) for i in range(len(OBJECTS))}
    assert len(usual) == len(OBJECTS)
    object_ids = np.arange(8000) % len(OBJECTS)
    none, zeros = np.full(8000, ANY), np.zeros(8000, dtype=int)
    looks = sample_looks(object_ids, zeros, none, zeros, zeros, np.random.default_rng(0))
    for ids, usual_of, others in (
        (looks.colour_ids, world.usual_colour, len(world.COLOURS)),
        (looks.texture_ids, world.usual_texture, len(world.TEXTURES)),
    ):
        kept = np.mean(ids == [usual_of(i) for i in object_ids])
        assert kept == pytest.approx(0.8 + 0.2 / others, abs=0.015)


def test_a_colour_that_a_class_fixes_is_shown():
    fixed = np.full(200, 5)
    zeros = np.zeros(200, dtype=int)
    looks = sample_looks(zeros, zeros, fixed, zeros, zeros, np.random.default_rng(0))
    np.testing.assert_array_equal(looks.colour_ids, fixed)
    assert (looks.colours[:, 2] > looks.colours[:, 1]).all()  # purple has little green


def test_outlines_differ_from_each_other():
    inside = distance_table() < 0
    shares = (inside[:, None] ^ inside[None]).sum(axis=(2, 3)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    assert shares[~np.eye(len(OBJECTS), dtype=bool)].min() > 0.12
    assert (inside.sum(axis=(1, 2)) > 800).all()


@pytest.fixture(scope="module")
def drawn():
    return pictures.draw_pictures(400, np.random.default_rng(0), (32, 32))


def test_pictures_cover_every_attribute_and_repeat_with_the_generator(drawn):
    assert drawn.frames.shape == (400, 32, 32, 3)
    for column, names in zip(drawn.attributes.T, pictures.ATTRIBUTES, strict=True):
        found = {names[i] for i in column if i != pictures.NOT_SHOWN}
        assert found | {"upside down"} == set(names) | {"upside down"}  # which only what spins fastest ever is
    again = pictures.draw_pictures(400, np.random.default_rng(0), (32, 32))
    np.testing.assert_array_equal(drawn.frames, again.frames)


def test_places_sizes_and_tilts_are_those_of_the_pose():
    looks = one_look("photo")
    columns = [pictures.PLACES, pictures.SIZES, pictures.TILTS]
    for pose, expected in (
        ((-0.5, 0.1, 0.1, 0.3), ("left", "small", "upright")),
        ((0.1, 0.6, np.pi / 2 + 0.3, 0.5), ("bottom", "medium", "tilted to the right")),
        ((0.05, 0.0, -np.pi / 2, 0.7), ("middle", "large", "tilted to the left")),
        ((0.0, -0.4, -3.0, 0.7), ("top", "large", "upside down")),
    ):
        found = pictures.attributes_of(looks, np.array([pose]))[0, 6:]
        assert tuple(names[i] for names, i in zip(columns, found, strict=True)) == expected


def test_what_a_style_hides_is_not_said(drawn):
    styles = drawn.attributes[:, 4]
    hidden = {name: drawn.attributes[styles == i] == pictures.NOT_SHOWN for i, name in enumerate(STYLES)}
    assert hidden["sketch"][:, 1].all()
    assert hidden["negative"][:, 1].all()
    assert hidden["mosaic"][:, 2].all()
    assert not hidden["photo"].any()
    assert not hidden["neon sign"].any()
    assert np.mean(styles == PHOTO) == pytest.approx(pictures.PHOTO_RATE, abs=0.08)


def one_look(style, **ids):
    given = {"object_ids": 1, "motion_ids": 0, "colour_ids": 0, "scene_ids": 0} | ids
    columns = [np.array([value]) for value in given.values()]
    return sample_looks(*columns, np.array([STYLES.index(style)]), np.random.default_rng(3))


def frame_of(looks):
    instants = np.zeros((1, 1), dtype=np.float32)
    return render(looks, instants, instants, (48, 48), np.random.default_rng(0))[0, 0].astype(float)


def test_styles_look_as_they_are_called():
    photo = frame_of(one_look("photo"))
    sketch, neon, negative = (frame_of(one_look(style)) for style in ("sketch", "neon sign", "negative"))
    assert np.ptp(sketch, axis=2).mean() < 0.5 * np.ptp(photo, axis=2).mean()  # nearly grey
    assert neon.mean() < 0.8 * photo.mean()
    assert np.abs(255 - negative - photo).mean() < 12


def test_a_mosaic_has_tiles_of_the_mean_colour_of_their_pixels():
    canvas = np.random.default_rng(0).random((2, 3, 28, 42), dtype=np.float32)
    tiles = canvas.reshape(2, 3, 14, 2, 21, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(_mosaic(canvas), tiles.repeat(2, axis=2).repeat(2, axis=3), atol=1e-6)


def test_scenes_can_be_told_apart_by_their_mean_colour_or_their_contrast():
    frames = [frame_of(one_look("photo", scene_ids=i)) for i in range(len(SCENES))]
    facts = np.array([[*f.mean(axis=(0, 1)), *f.std(axis=(0, 1))] for f in frames])
    distances = np.linalg.norm(facts[:, None] - facts[None], axis=2)
    assert distances[~np.eye(len(SCENES), dtype=bool)].min() > 25


def test_a_scene_stays_itself_while_the_object_moves():
    looks = one_look("photo", scene_ids=SCENES.index("on a carpet"))
    instants = np.linspace(-0.5, 0.5, 5, dtype=np.float32)[None]
    frames = render(looks, instants, np.zeros_like(instants), (48, 48), np.random.default_rng(0))[0].astype(float)
    path = poses(looks, np.zeros(5, dtype=int), instants[0])
    assert path[0, 0] > path[-1, 0] + 0.5  # moving left
    corners = frames[:, :8, :8].mean(axis=(1, 2))
    assert np.abs(corners - corners[0]).max() < 40
    assert np.abs(frames[0] - frames[-1]).mean() > 8
