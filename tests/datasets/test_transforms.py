"""Transforms: the published crops, one draw for all frames of a clip, labels that follow a flip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.clips.presets import MOTE
from datasets.clips.transforms import NO_MIRROR, TrainTransform, mirror_labels
from datasets.lists.labels import read_class_names

LISTS = Path(__file__).parents[2] / "lists"
SIZE = 32


def random_frames(height: int, width: int, num_frames: int = 2, seed: int = 0) -> torch.Tensor:
    """Smooth random colours, uint8 [T, 3, H, W]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
    pictures = [np.asarray(Image.fromarray(frame).resize((width, height), Image.BICUBIC)) for frame in coarse]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def gradient_frames(num_frames: int = 4, size: int = 48) -> torch.Tensor:
    """Every pixel tells where it was: red grows to the right, green downwards; all frames alike."""
    ramp = torch.linspace(0, 250, size)
    frame = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    return frame.to(torch.uint8).expand(num_frames, -1, -1, -1).contiguous()


# --- evaluation


def published_views(frame: torch.Tensor, size: int, num_crops: int) -> list[np.ndarray]:
    """The published rule, written out with PIL, for one frame [3, H, W]."""
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    width, height = picture.size
    if width < height:
        picture = picture.resize((size, int(size * height / width)), Image.BICUBIC)
    else:
        picture = picture.resize((int(size * width / height), size), Image.BICUBIC)
    width, height = picture.size
    w, h = (width - size) // 4, (height - size) // 4
    corners = {
        1: [(round((width - size) / 2.0), round((height - size) / 2.0))],
        3: [(0, 2 * h), (4 * w, 2 * h), (2 * w, 2 * h)],
        5: [(0, 0), (4 * w, 0), (0, 4 * h), (4 * w, 4 * h), (2 * w, 2 * h)],
    }
    views = []
    for x, y in corners[min(num_crops, 5)]:
        crop = picture.crop((x, y, x + size, y + size))
        views.append(np.asarray(crop))
        if num_crops == 10:
            views.append(np.asarray(crop.transpose(Image.FLIP_LEFT_RIGHT)))
    return views


@pytest.mark.parametrize(
    ("height", "width"),
    [(72, 128), (128, 72), (48, 48), (32, 75), (100, 33), (24, 40), (240, 426)],
    ids=["landscape", "portrait", "square", "only wider", "only higher", "enlarged", "large"],
)
@pytest.mark.parametrize("num_crops", [1, 3, 5, 10])
def test_views_are_the_published_crops(height, width, num_crops):
    frames = random_frames(height, width)
    views = MOTE.eval_views(frames, SIZE, num_crops)
    assert views.shape == (num_crops, 2, 3, SIZE, SIZE)
    assert views.dtype == torch.uint8
    for time, frame in enumerate(frames):
        for view, expected in zip(views[:, time], published_views(frame, SIZE, num_crops), strict=True):
            difference = np.abs(view.permute(1, 2, 0).numpy().astype(int) - expected)
            assert difference.max() <= 2
            assert difference.mean() < 0.5


def test_three_crops_of_a_landscape_video_are_left_right_and_centre():
    frames = torch.zeros(1, 3, SIZE, 2 * SIZE, dtype=torch.uint8)
    frames[..., :SIZE] = 50
    frames[..., SIZE:] = 200
    left, right, centre = MOTE.eval_views(frames, SIZE, 3)
    assert (left == 50).all()
    assert (right == 200).all()
    assert (centre[..., : SIZE // 2] == 50).all()
    assert (centre[..., SIZE // 2 :] == 200).all()


def test_three_crops_of_a_portrait_video_are_the_same_centre_as_published():
    views = MOTE.eval_views(random_frames(96, 48), SIZE, 3)
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[2], MOTE.eval_views(random_frames(96, 48), SIZE, 1)[0])


def test_every_second_of_ten_crops_is_an_exact_mirror_image():
    frames = random_frames(72, 128)
    ten, five = MOTE.eval_views(frames, SIZE, 10), MOTE.eval_views(frames, SIZE, 5)
    assert torch.equal(ten[0::2], five)
    assert torch.equal(ten[1::2], five.flip(-1))


def test_a_video_of_the_input_size_passes_untouched():
    frames = random_frames(SIZE, SIZE)
    assert torch.equal(MOTE.eval_views(frames, SIZE, 1)[0], frames)


# --- training


def transform(mirror: int = 0, randaug: tuple[int, int] | None = None) -> TrainTransform:
    return MOTE.train_transform(SIZE, [mirror], randaug=randaug)


@pytest.mark.parametrize("randaug", [None, (2, 9)], ids=["plain", "RandAugment"])
def test_all_frames_of_a_clip_get_the_same_draw(randaug):
    augment = transform(randaug=randaug)
    frames = random_frames(60, 90, num_frames=1).expand(5, -1, -1, -1).contiguous()
    for seed in range(20):
        torch.manual_seed(seed)
        clip, _ = augment(frames, 0)
        assert clip.dtype == torch.uint8
        assert clip.shape == (5, 3, SIZE, SIZE)
        assert torch.equal(clip, clip[:1].expand_as(clip)), seed


@pytest.mark.parametrize("randaug", [None, (2, 9)], ids=["plain", "RandAugment"])
def test_the_seed_decides_all(randaug):
    augment = transform(randaug=randaug)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return augment(random_frames(60, 90), 0)[0]

    assert torch.equal(draw(3), draw(3))
    assert len({draw(seed).numpy().tobytes() for seed in range(10)}) == 10


def test_randaugment_does_what_crop_and_flip_cannot():
    def is_sheared(seed: int, randaug: tuple[int, int] | None) -> bool:
        torch.manual_seed(seed)
        clip, _ = transform(randaug=randaug)(gradient_frames(), 0)
        is_gray = (clip[:, 0] == clip[:, 1]).all()
        return not is_gray and bool((clip[:, 0] != clip[:, 0, :1]).any())  # red no longer the same in every row

    assert any(is_sheared(seed, (2, 9)) for seed in range(30))
    assert not any(is_sheared(seed, None) for seed in range(30))


def test_flips_grays_and_crop_sizes_come_as_often_as_published():
    flips, grays, areas, ratios = [], [], [], []
    frames = gradient_frames()
    for seed in range(600):
        torch.manual_seed(seed)
        clip, _ = transform()(frames, 0)
        first = clip[0].float()
        flips.append(bool(first[0, :, 0].mean() > first[0, :, -1].mean()))
        grays.append(bool((first[0] == first[1]).all() and (first[0] == first[2]).all()))
        if not grays[-1]:
            spans = [(first[channel].max() - first[channel].min()).item() / 250 for channel in (0, 1)]
            areas.append(spans[0] * spans[1])
            ratios.append(spans[0] / spans[1])
    gray_share = np.mean(grays)
    colour_flips = np.mean([flip for flip, gray in zip(flips, grays, strict=True) if not gray])
    assert gray_share == pytest.approx(0.2, abs=0.06)
    assert colour_flips == pytest.approx(0.5, abs=0.08)
    assert min(areas) == pytest.approx(0.08, abs=0.05)
    assert max(areas) > 0.85
    assert np.mean(areas) == pytest.approx(0.5, abs=0.08)
    assert min(ratios) > 0.6
    assert max(ratios) < 1.6


def test_the_crop_area_is_configurable():
    torch.manual_seed(0)
    whole = MOTE.train_transform(SIZE, [0], crop_area=(1.0, 1.0))
    clip, _ = whole(gradient_frames(), 0)
    assert clip.amax() - clip[:, :2].amin() > 200


# --- labels and mirrors


def test_something_something_has_the_published_pairs():
    names = read_class_names(LISTS / "something_v2" / "labels.csv")
    changed = {label: mirror for label, mirror in enumerate(mirror_labels(names)) if mirror != label}
    assert changed == {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}


@pytest.mark.parametrize("folder", ["kinetics400", "kinetics600", "ucf101", "hmdb51", "activitynet"])
def test_other_data_sets_keep_their_labels_in_a_mirror(folder):
    names = read_class_names(LISTS / folder / "labels.csv")
    assert mirror_labels(names) == list(range(len(names)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a star spinning clockwise", "a star spinning counterclockwise"], [1, 0]),
        (["a bar moving left", "a bar moving right", "a bar moving up"], [1, 0, 2]),
        (["from left to right", "from right to left"], [1, 0]),
        (["a bar moving left", "a bar moving up"], [NO_MIRROR, 1]),
        (["a dog leftover", "brightness"], [0, 1]),
        (["turning left clockwise", "turning right counterclockwise", "turning left"], [1, 0, NO_MIRROR]),
    ],
)
def test_words_of_direction_are_exchanged(names, expected):
    assert mirror_labels(names) == expected


def test_a_name_without_direction_keeps_its_label_even_if_it_occurs_twice():
    assert mirror_labels(["walk", "run", "walk"]) == [0, 1, 2]


def test_the_label_follows_the_flip():
    augment = MOTE.train_transform(SIZE, mirror_labels(["moving left", "moving right"]))
    seen = set()
    for seed in range(80):
        torch.manual_seed(seed)
        clip, label = augment(gradient_frames(), 0)
        if (clip[:, 0] == clip[:, 1]).all():
            continue  # gray: red no longer tells left from right
        is_flipped = bool(clip[:, 0, :, 0].float().mean() > clip[:, 0, :, -1].float().mean())
        assert label == int(is_flipped)
        seen.add(is_flipped)
    assert seen == {False, True}


def test_a_class_without_a_mirror_is_never_flipped():
    augment = MOTE.train_transform(SIZE, mirror_labels(["moving left"]))
    for seed in range(80):
        torch.manual_seed(seed)
        clip, label = augment(gradient_frames(), 0)
        assert label == 0
        if not (clip[:, 0] == clip[:, 1]).all():
            assert clip[:, 0, :, 0].float().mean() < clip[:, 0, :, -1].float().mean(), seed
