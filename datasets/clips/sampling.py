"""Which frames a clip consists of: pure functions of the number of frames F.

All indices are 0-based. Rules and rounding are those of the published code, so that released weights see the
frames they were tested with. Where a video has fewer frames than a rule wants, ``NO_FRAME`` may stand at a clip's end.
"""

import numpy as np

DENSE_WINDOW = 128  # frames that a dense clip spans
NO_FRAME = -1  # in the place of an index, behind the frames that there are: padding


def train_indices(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T segments, int64 [T].

    Segment i spans round(s i) to round(s (i + 1)) inclusive, s = (F - 1) / T, halves rounded to even. Neighbours
    share their border frame, and a video shorter than T repeats frames, both as published.
    """
    borders = np.round((num_frames - 1) / num_segments * np.arange(num_segments + 1)).astype(np.int64)
    return rng.integers(borders[:-1], borders[1:], endpoint=True)


def bin_train_indices(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T disjoint bins, int64 [T]; Text4Vis's rule.

    Bin i spans i F // T to (i + 1) F // T - 1. A video of at most T frames keeps every frame, and T - F random ones
    come twice (or more often), in order of time.
    """
    if num_frames <= num_segments:
        again = rng.integers(0, num_frames, num_segments - num_frames)
        return np.sort(np.concatenate([np.arange(num_frames), again]))
    borders = np.arange(num_segments + 1) * num_frames // num_segments
    return rng.integers(borders[:-1], borders[1:])


def equal_train_indices(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T equal bins of F // T frames, int64 [T]; ViFi-CLIP's and OST's rule.

    The F mod T frames at the end are never drawn, as published. A video shorter than T gives frame round(i F / T),
    halves to even; where that is F, past the end, it wraps around to frame 0, also as published.
    """
    if (length := num_frames // num_segments) == 0:
        return np.round(np.arange(num_segments) * (num_frames / num_segments)).astype(np.int64) % num_frames
    return np.arange(num_segments) * length + rng.integers(length, size=num_segments)


def part_train_indices(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T equal parts, int64 [T]; TVTSv2's rule.

    The last frame of a part is never drawn, as published, unless the part has no other; the published code then fails.
    A video shorter than T gives all its frames, and ``NO_FRAME`` behind them.
    """
    borders = _parts(num_frames, num_segments)
    drawn = rng.integers(borders[:-1], np.maximum(borders[1:] - 1, borders[:-1] + 1))
    return _padded(drawn, num_segments)


def dense_train_indices(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """T frames of one window of 128 at a random start, int64 [T]; wraps around in shorter videos."""
    last_start = max(num_frames - DENSE_WINDOW, 0)
    return _dense_clip(int(rng.integers(last_start, endpoint=True)), num_frames, num_segments)


def eval_indices(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    """C clips of T frames spread over the whole video, int64 [C, T].

    Clip c takes frame int(start_c + F / T i) mod F with C starts from 0 to F / T - 1, rounded down. One clip is
    the start of every segment, which is also the validation rule. In videos shorter than T the starts after the
    first are negative and wrap around, as published.
    """
    interval = num_frames / num_segments
    starts = np.linspace(0, interval - 1, num_clips, dtype=np.int64)
    # Truncation, not floor: int(-0.5) is 0 in the published code.
    return (starts[:, None] + interval * np.arange(num_segments)).astype(np.int64) % num_frames


def middle_eval_indices(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    """C clips of T frames from within the same segments of F / T frames, int64 [C, T]; ViFi-CLIP's and OST's rule.

    Clip c takes the frame at (c + 1/2) / C of each segment, rounded down: one clip the middle ones, several clips
    shifted evenly. The published code draws random frames where there are several, another result in each test.
    """
    length = num_frames / num_segments
    starts = length * ((np.arange(num_clips) + 0.5) / num_clips)
    return (np.arange(num_segments) * length + starts[:, None]).astype(np.int64)


def part_eval_indices(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    """C clips of the frames in the middle of T equal parts, int64 [C, T]; TVTSv2's rule.

    Clip c takes the frame at (c + 1/2) / C between the first and the last of each part, rounded down; the published
    code has one clip. A video shorter than T gives all its frames, and ``NO_FRAME`` behind them.
    """
    borders = _parts(num_frames, num_segments)
    shifts = (2 * np.arange(num_clips)[:, None] + 1) * (np.diff(borders) - 1) // (2 * num_clips)
    return _padded(borders[:-1] + shifts, num_segments)


def whole_eval_indices(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    """C clips of T frames from the first to the last frame, int64 [C, T]; the rule of TVTSv2's features.

    C T frames lie evenly between the ends, rounded down; clip c takes every C-th from the c-th on (the published code
    has one clip). A video shorter than T repeats frames.
    """
    spread = np.linspace(0, num_frames - 1, num_clips * num_segments).astype(np.int64)
    return spread.reshape(num_segments, num_clips).T


def dense_eval_indices(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    """C windows of 128 frames, every (128 // T)-th frame, int64 [C, T]; wraps around in shorter videos.

    Windows are spread evenly from the first frame on. A single window sits in the middle of the video (the
    published code divides by zero there).
    """
    last_start = max(num_frames - DENSE_WINDOW, 0)
    if num_clips == 1:
        starts = [last_start // 2]
    else:
        starts = [clip * (last_start // (num_clips - 1)) for clip in range(num_clips)]
    return np.stack([_dense_clip(start, num_frames, num_segments) for start in starts])


def _dense_clip(start: int, num_frames: int, num_segments: int) -> np.ndarray:
    stride = max(DENSE_WINDOW // num_segments, 1)
    return (start + stride * np.arange(num_segments)) % num_frames


def _parts(num_frames: int, num_segments: int) -> np.ndarray:
    """Borders of min(F, T) equal parts of a video, int64 [parts + 1], from 0 to F."""
    return np.linspace(0, num_frames, min(num_frames, num_segments) + 1).astype(np.int64)


def _padded(indices: np.ndarray, num_segments: int) -> np.ndarray:
    """Indices [..., n], n <= T, with ``NO_FRAME`` behind them: [..., T]."""
    missing = num_segments - indices.shape[-1]
    return np.pad(indices, [(0, 0)] * (indices.ndim - 1) + [(0, missing)], constant_values=NO_FRAME)
