"""K-shot subsets: which videos, and that nothing but the class, K and the seed has a say."""

import numpy as np
import pytest

from datasets.lists.few_shot import few_shot_indices, full_length_passes
from datasets.lists.records import VideoList

CLASS_NAMES = ["jump", "run", "swim"]


def video_list(counts: tuple[int, ...] = (20, 30, 25), order: np.random.Generator | None = None) -> VideoList:
    """Videos ``<label>/<number>.mp4``, in random order if a generator is given."""
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = np.array([f"{label}/{i:03d}.mp4".encode() for label, n in enumerate(counts) for i in range(n)])
    videos = VideoList("", paths, labels, None)
    return videos if order is None else videos.take(order.permutation(len(videos)))


def chosen(videos: VideoList, shot: int = 4, seed: int = 0) -> list[tuple[bytes, int]]:
    few = videos.take(few_shot_indices(videos, shot, seed, CLASS_NAMES))
    return list(zip(few.paths.tolist(), few.labels.tolist(), strict=True))


def of_class(pairs: list[tuple[bytes, int]], label: int) -> list[bytes]:
    return [path for path, its_label in pairs if its_label == label]


def test_every_class_has_k_different_videos_of_its_own():
    pairs = chosen(video_list())
    assert len(set(pairs)) == len(pairs) == 12
    assert [label for _, label in pairs] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(path.decode().startswith(f"{label}/") for path, label in pairs)


def test_the_order_of_the_list_does_not_matter():
    rng = np.random.default_rng(1)
    assert chosen(video_list(order=rng)) == chosen(video_list(order=rng)) == chosen(video_list())


def test_other_classes_do_not_matter():
    assert of_class(chosen(video_list((7, 30, 90))), 1) == of_class(chosen(video_list()), 1)


def test_another_seed_draws_other_videos():
    draws = [frozenset(chosen(video_list(), seed=seed)) for seed in range(5)]
    assert len(set(draws)) == 5


def test_classes_of_one_size_are_drawn_independently():
    pairs = chosen(video_list((20, 20, 20)))
    numbers = {tuple(path.split(b"/")[1] for path in of_class(pairs, label)) for label in range(3)}
    assert len(numbers) == 3


def test_more_shots_hold_the_fewer_ones():
    few, many = chosen(video_list(), shot=2), chosen(video_list(), shot=8)
    for label in range(3):
        assert of_class(many, label)[:2] == of_class(few, label)


def test_the_draw_of_today_is_the_draw_of_tomorrow():
    """Published figures name a seed; what it draws must not change."""
    assert of_class(chosen(video_list(), shot=3), 1) == [b"1/001.mp4", b"1/017.mp4", b"1/029.mp4"]


def test_every_video_can_be_drawn():
    seen = {pair for seed in range(60) for pair in chosen(video_list(), seed=seed)}
    assert len(seen) == 75


def test_a_path_listed_twice_is_one_video():
    videos = video_list((4, 4, 4))
    doubled = videos.take(np.concatenate([np.arange(12), np.arange(12)]))
    assert chosen(doubled) == chosen(videos)
    with pytest.raises(ValueError, match=r"'jump' 4"):
        chosen(doubled, shot=5)


def test_a_class_with_fewer_videos_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"data\.shot is 4.*: 'run' 3, 'swim' 0$"):
        chosen(video_list((9, 3)))


def test_folders_of_frames_keep_their_lengths():
    videos = video_list()
    lengths = np.arange(len(videos)) + 100
    few = VideoList("", videos.paths, videos.labels, lengths)
    few = few.take(few_shot_indices(few, 2, 0, CLASS_NAMES))
    by_path = dict(zip(videos.paths.tolist(), lengths.tolist(), strict=True))
    assert few.num_frames.tolist() == [by_path[path] for path in few.paths.tolist()]


@pytest.mark.parametrize(
    ("num_videos", "num_chosen", "passes"), [(240436, 800, 300), (100, 8, 12), (95, 8, 11), (8, 8, 1), (5, 8, 1)]
)
def test_the_chosen_videos_are_repeated_to_the_length_of_the_list(num_videos, num_chosen, passes):
    assert full_length_passes(num_videos, num_chosen) == passes
