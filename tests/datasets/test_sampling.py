"""Frame indices: tables worked out by hand from the published rules, and what holds for every length."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.clips.sampling import (
    bin_train_indices,
    dense_eval_indices,
    dense_train_indices,
    equal_train_indices,
    eval_indices,
    middle_eval_indices,
    train_indices,
)

NUM_FRAMES = st.integers(1, 500)
NUM_SEGMENTS = st.integers(1, 40)
NUM_CLIPS = st.integers(1, 12)
SEEDS = st.integers(0, 2**32)
FEW = settings(max_examples=150, deadline=None)


class EndOfSpan:
    """A generator that always draws the first, or always the last, allowed number."""

    def __init__(self, last: bool):
        self.last = last

    def integers(self, low, high, endpoint):
        assert endpoint
        return high if self.last else low


def test_training_bins_of_300_frames_overlap_by_their_border():
    first, last = (train_indices(300, 8, EndOfSpan(last)).tolist() for last in (False, True))
    assert list(zip(first, last, strict=True)) == [
        (0, 37), (37, 75), (75, 112), (112, 150), (150, 187), (187, 224), (224, 262), (262, 299),
    ]  # fmt: skip


def test_training_borders_round_halves_to_even():
    # s = (5 - 1) / 8 = 0.5: borders 0 .5 1 1.5 2 2.5 3 3.5 4 become 0 0 1 2 2 2 3 4 4.
    first, last = (train_indices(5, 8, EndOfSpan(last)).tolist() for last in (False, True))
    assert first == [0, 0, 1, 2, 2, 2, 3, 4]
    assert last == [0, 1, 2, 2, 2, 3, 4, 4]


def test_training_draws_reach_both_ends_of_a_bin():
    draws = np.stack([train_indices(300, 8, np.random.default_rng(seed)) for seed in range(2000)])
    assert draws.min(axis=0).tolist() == [0, 37, 75, 112, 150, 187, 224, 262]
    assert draws.max(axis=0).tolist() == [37, 75, 112, 150, 187, 224, 262, 299]


def test_validation_takes_the_start_of_every_segment():
    assert eval_indices(300, 8).tolist() == [[0, 37, 75, 112, 150, 187, 225, 262]]


def test_clips_start_evenly_within_the_first_segment():
    indices = eval_indices(300, 8, 4)
    assert indices[:, 0].tolist() == [0, 12, 24, 36]
    # 24 + 37.5 i
    assert indices[2].tolist() == [24, 61, 99, 136, 174, 211, 249, 286]


def test_clips_of_a_short_video_wrap_around_as_published():
    assert eval_indices(4, 8, 3).tolist() == [
        [0, 0, 1, 1, 2, 2, 3, 3],
        [3, 0, 0, 0, 1, 1, 2, 2],
        [3, 0, 0, 0, 1, 1, 2, 2],
    ]


def test_dense_clips_are_windows_of_128_frames_spread_over_the_video():
    # (300 - 128) // 2 = 86
    assert dense_eval_indices(300, 8, 3).tolist() == [
        [0, 16, 32, 48, 64, 80, 96, 112],
        [86, 102, 118, 134, 150, 166, 182, 198],
        [172, 188, 204, 220, 236, 252, 268, 284],
    ]


def test_dense_starts_round_the_gap_between_clips_down():
    # (300 - 128) // 3 = 57, so the last window ends before the video does.
    assert dense_eval_indices(300, 8, 4)[:, 0].tolist() == [0, 57, 114, 171]


def test_one_dense_clip_is_the_middle_window():
    assert dense_eval_indices(300, 8).tolist() == [[86, 102, 118, 134, 150, 166, 182, 198]]


def test_dense_clips_of_short_videos_wrap_around():
    assert dense_eval_indices(100, 8, 2).tolist() == [[0, 16, 32, 48, 64, 80, 96, 12]] * 2
    assert dense_eval_indices(100, 16)[0].tolist() == [*range(0, 100, 8), 4, 12, 20]


def test_dense_training_starts_anywhere_a_window_fits():
    starts = {dense_train_indices(131, 8, np.random.default_rng(seed))[0] for seed in range(200)}
    assert starts == {0, 1, 2, 3}
    clip = dense_train_indices(131, 8, np.random.default_rng(0))
    assert np.diff(clip).tolist() == [16] * 7


@FEW
@given(NUM_FRAMES, NUM_SEGMENTS, SEEDS)
def test_training_indices_are_ordered_and_within_the_video(num_frames, num_segments, seed):
    indices = train_indices(num_frames, num_segments, np.random.default_rng(seed))
    assert indices.shape == (num_segments,)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < num_frames
    assert (np.diff(indices) >= 0).all()


@FEW
@given(NUM_FRAMES, NUM_SEGMENTS, SEEDS)
def test_dense_training_indices_are_within_the_video(num_frames, num_segments, seed):
    indices = dense_train_indices(num_frames, num_segments, np.random.default_rng(seed))
    assert indices.shape == (num_segments,)
    assert indices.min() >= 0
    assert indices.max() < num_frames


@pytest.mark.parametrize("rule", [eval_indices, dense_eval_indices, middle_eval_indices])
@FEW
@given(NUM_FRAMES, st.integers(1, 200), NUM_CLIPS)
def test_evaluation_indices_are_within_the_video(rule, num_frames, num_segments, num_clips):
    indices = rule(num_frames, num_segments, num_clips)
    assert indices.shape == (num_clips, num_segments)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < num_frames


@FEW
@given(NUM_FRAMES, NUM_SEGMENTS, NUM_CLIPS)
def test_the_first_of_several_clips_is_the_validation_clip(num_frames, num_segments, num_clips):
    several = eval_indices(num_frames, num_segments, num_clips)
    assert several[0].tolist() == eval_indices(num_frames, num_segments)[0].tolist()
    assert several[0].tolist() == [int(num_frames / num_segments * i) for i in range(num_segments)]


@FEW
@given(NUM_FRAMES, NUM_SEGMENTS, SEEDS)
def test_training_indices_depend_on_the_generator_alone(num_frames, num_segments, seed):
    for rule in (train_indices, dense_train_indices):
        once, again = (rule(num_frames, num_segments, np.random.default_rng(seed)).tolist() for _ in range(2))
        assert once == again


# --- disjoint bins


class EndOfBin:
    """A generator that always draws the first, or always the last, number below ``high``."""

    def __init__(self, last: bool):
        self.last = last

    def integers(self, low, high):
        return high - 1 if self.last else low


def test_disjoint_bins_allow_the_published_frames(text4vis_golden):
    bins = json.loads((text4vis_golden / "sampling.json").read_text())["train_bins"]
    assert bins
    for num_frames, num_segments, first, last in bins:
        found = [bin_train_indices(num_frames, num_segments, EndOfBin(is_last)).tolist() for is_last in (False, True)]
        assert found == [first, last], (num_frames, num_segments)


def test_short_videos_keep_every_frame_and_repeat_the_published_ones(text4vis_golden):
    class Legacy:
        """The published generator, which draws what is asked of ours."""

        def __init__(self, seed: int):
            self.state = np.random.RandomState(seed)

        def integers(self, low, high, size):
            return self.state.randint(low, high, size)

    short = json.loads((text4vis_golden / "sampling.json").read_text())["train_short"]
    assert short
    for num_frames, num_segments, seed, expected in short:
        assert bin_train_indices(num_frames, num_segments, Legacy(seed)).tolist() == expected


def test_evaluation_takes_the_frames_of_text4vis(text4vis_golden):
    tables = json.loads((text4vis_golden / "sampling.json").read_text())
    for num_frames, num_segments, num_clips, expected in tables["test"]:
        assert eval_indices(num_frames, num_segments, num_clips).ravel().tolist() == expected
    for num_frames, num_segments, num_clips, expected in tables["dense_test"]:
        assert dense_eval_indices(num_frames, num_segments, num_clips).ravel().tolist() == expected
    for num_frames, num_segments, expected in tables["val"]:
        assert eval_indices(num_frames, num_segments).ravel().tolist() == expected


@FEW
@given(num_frames=NUM_FRAMES, num_segments=NUM_SEGMENTS, seed=SEEDS)
def test_draws_of_disjoint_bins_are_frames_in_order_each_once_where_there_are_enough(num_frames, num_segments, seed):
    found = bin_train_indices(num_frames, num_segments, np.random.default_rng(seed))
    assert found.shape == (num_segments,)
    assert 0 <= found[0] <= found[-1] < num_frames
    assert (np.diff(found) >= 0).all()
    assert len(np.unique(found)) == min(num_frames, num_segments)


def test_draws_of_disjoint_bins_reach_both_ends_of_a_bin():
    draws = np.stack([bin_train_indices(300, 8, np.random.default_rng(seed)) for seed in range(2000)])
    assert draws.min(axis=0).tolist() == [0, 37, 75, 112, 150, 187, 225, 262]
    assert draws.max(axis=0).tolist() == [36, 74, 111, 149, 186, 224, 261, 299]


# --- equal bins and middle frames


def test_equal_bins_leave_out_the_frames_at_the_end():
    draws = np.stack([equal_train_indices(39, 8, np.random.default_rng(seed)) for seed in range(500)])
    assert draws.min(axis=0).tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    assert draws.max(axis=0).tolist() == [3, 7, 11, 15, 19, 23, 27, 31]
    assert len({tuple(draw - draw[0]) for draw in draws}) > 400  # each bin draws for itself


def test_equal_bins_of_a_short_video_are_rounded_and_wrap_around_as_published():
    indices = equal_train_indices(10, 32, np.random.default_rng(0))
    # 31 * 10 / 32 = 9.69 rounds to 10, which is frame 0; 8 * 10 / 32 = 2.5 rounds to 2.
    assert (indices[31], indices[8], indices[30]) == (0, 2, 9)
    assert indices[:31].tolist() == sorted(indices[:31])


@FEW
@given(NUM_FRAMES, NUM_SEGMENTS, SEEDS)
def test_equal_bins_stay_within_the_video(num_frames, num_segments, seed):
    indices = equal_train_indices(num_frames, num_segments, np.random.default_rng(seed))
    assert indices.shape == (num_segments,)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < num_frames


def test_one_clip_takes_the_middle_frames():
    assert middle_eval_indices(9, 8).tolist() == [[0, 1, 2, 3, 5, 6, 7, 8]]
    assert middle_eval_indices(320, 32).tolist() == [[*range(5, 320, 10)]]


def test_several_clips_are_shifted_evenly_around_the_middle():
    assert middle_eval_indices(64, 8, 4)[:, 0].tolist() == [1, 3, 5, 7]
    assert middle_eval_indices(64, 8, 3)[1].tolist() == middle_eval_indices(64, 8)[0].tolist()
